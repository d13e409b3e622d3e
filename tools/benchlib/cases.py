# SPDX-License-Identifier: Apache-2.0
"""Scenarios that consist of named cases: which of them to run, and beside which other movers."""

from lablib import options
from lablib.base import LabError


def add_option(parser, cases):
    parser.add_argument("--cases", default="all", metavar="NAME[,NAME]", help=f"of {', '.join(cases)}")


def add_moves(parser, cases, modes, time_limit_s):
    """Options of a scenario whose cases are moves by ferry and by others."""
    add_option(parser, cases)
    parser.add_argument("--modes", default=",".join(modes), metavar="NAME[,NAME]", help="references beside ferry")
    parser.add_argument("--time-limit", type=float, default=time_limit_s, metavar="S", help="of one move")
    options.add_up(parser)


def references(args):
    return [name for name in args.modes.split(",") if name]


def chosen(args, cases):
    """The names, in the order asked for."""
    names = list(cases) if args.cases == "all" else args.cases.split(",")
    unknown = set(names) - set(cases)
    if unknown:
        raise LabError(f"there is no case {', '.join(unknown)}", f"there are {', '.join(cases)}")
    return names
