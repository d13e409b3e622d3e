# SPDX-License-Identifier: Apache-2.0
"""What ferry says before a move, beside what comes of it: the demo's guest, checked and then moved, to and fro."""

import json

from lablib import options
from lablib.base import built

from . import cases, report
from .bed import guest_for, lab_for
from .movers import FerryMove
from .scenario_move import GUEST, LINE

HELP = "what `ferry check` predicts, beside the move that follows"
CASES = ("check",)
# What is predicted -> the report's figure, unit, and how both are read.
FIGURES = {
    "total time": ("s", lambda p: p["total_ms"] / 1000, lambda r: r["total_ms"] / 1000),
    "downtime": ("ms", lambda p: p["downtime_ms"], lambda r: r["downtime_ms"]),
    "bytes on the wire": ("MiB", lambda p: p["bytes"] / 2**20, lambda r: r["link"]["wire_bytes"] / 2**20),
}


def add_options(parser):
    cases.add_option(parser, CASES)
    options.add_line(parser, LINE)
    parser.add_argument("--repeat", type=int, default=5, metavar="N", help="checks and moves")
    options.add_up(parser)
    options.add_guest(parser)
    parser.set_defaults(**GUEST, at="site-a", ferryd=True)


def _one(lab, guest):
    source = guest.only_site()
    target = lab.other(source.name)
    mover = FerryMove()
    mover.prepare(guest, target)
    found = json.loads(source.run([built("tools/ferry/ferry"), "--json", "check", guest.name, "--to", target.name],
                                  "check"))
    move = mover.move(guest, source, target, 120)
    mover.clean(guest, source)
    return {"prediction": found["prediction"], "report": move}


def _check(lab, guest, args, say):
    runs = []
    for n in range(args.repeat):
        say(f"check and move ({n + 1} of {args.repeat})")
        runs.append(_one(lab, guest))
    rows = []
    for name, (unit, predicted, measured) in FIGURES.items():
        pairs = [(predicted(run["prediction"]), measured(run["report"])) for run in runs]
        rows.append(report.row("check", name, unit, report.median([p for p, _ in pairs]),
                               report.median([m for _, m in pairs]), "measured"))
        rows.append(report.row("check", f"{name}, worst error", "%",
                               max(100 * abs(p - m) / m for p, m in pairs), None, "measured"))
    return rows, runs


def run(args, say):
    """Rows ("ferry" is what was predicted, the reference what was measured) and the runs behind them."""
    rows, runs = [], {}
    for name in cases.chosen(args, CASES):
        with lab_for(args, say) as lab, guest_for(lab, args, say) as guest:
            found, runs[name] = {"check": _check}[name](lab, guest, args, say)
        rows += found
    return rows, runs
