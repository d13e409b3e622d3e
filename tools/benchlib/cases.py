# SPDX-License-Identifier: Apache-2.0
"""Scenarios that consist of named cases: which of them to run."""

from lablib.base import LabError


def add_option(parser, cases):
    parser.add_argument("--cases", default="all", metavar="NAME[,NAME]", help=f"of {', '.join(cases)}")


def chosen(args, cases):
    """The names, in the order asked for."""
    names = list(cases) if args.cases == "all" else args.cases.split(",")
    unknown = set(names) - set(cases)
    if unknown:
        raise LabError(f"there is no case {', '.join(unknown)}", f"there are {', '.join(cases)}")
    return names
