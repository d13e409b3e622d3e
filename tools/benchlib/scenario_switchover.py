# SPDX-License-Identifier: Apache-2.0
"""The downtime of the demo's guest at several distances, seen from outside the guest, beside stock libvirt's."""

from lablib import options

from . import report
from .bed import guest_for, lab_for
from .scenario_move import GUEST, LINE, comparison, measure

HELP = "the downtime at several round trip times, and its parts"
RTTS = (0.2, 100, 214)
PARTS = ("stop", "tail", "flush", "load", "reply", "commit", "resume")
REFERENCE = "virsh-sync"


def add_options(parser):
    options.add_line(parser, LINE)
    parser.add_argument("--rtts", type=lambda text: [float(word) for word in text.split(",")], default=list(RTTS),
                        metavar="MS,MS", help="the distances; --rtt is not used")
    parser.add_argument("--repeat", type=int, default=5, metavar="N", help="moves of each; medians are shown")
    parser.add_argument("--time-limit", type=float, default=120, metavar="S", help="of one move; stock libvirt, "
                        "once it has not ended in it, is not tried again at that distance")
    options.add_up(parser)
    options.add_guest(parser)
    parser.set_defaults(**GUEST, at="site-a", ferryd=True)


def at_distance(args, say):
    case = f"rtt{args.rtt:g}"
    say(f"round trip {args.rtt:g} ms")
    with lab_for(args, say) as lab, guest_for(lab, args, say) as guest:
        runs = measure(guest, ["ferry", REFERENCE], args, say, once_unfinished=True)
    rows = [comparison(case, *names, REFERENCE, runs)
            for names in (("downtime_ms", "downtime", "ms"), ("stall_ms", "longest stall of the guest", "ms"),
                          ("total_s", "total time", "s"))]
    for part in PARTS:
        spans = [run["report"]["downtime_parts_ms"][part] for run in runs["ferry"]
                 if "downtime_parts_ms" in run.get("report", {})]
        rows.append(report.row(case, f"of which {part}", "ms", report.median(spans), None, REFERENCE))
    for each in rows:
        each["reference_failed"] = rows[0]["reference_failed"]
    return rows, {f"{case} {mode}": results for mode, results in runs.items()}


def run(args, say):
    """Rows and the single measurements behind them."""
    rows, runs = [], {}
    for args.rtt in args.rtts:
        more, singles = at_distance(args, say)
        rows += more
        runs |= singles
    return rows, runs
