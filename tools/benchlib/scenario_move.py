# SPDX-License-Identifier: Apache-2.0
"""One busy guest moves over a long line, by ferry and by stock libvirt, on the same lab in the same run."""

from lablib import options

from . import report
from .bed import guest_for, lab_for
from .measure import METRICS, measure_move
from .movers import VIRSH_MODES, mover

HELP = "a busy guest moves: time, bytes, downtime, what the guest feels"
LINE = {"rtt": 100, "rate": 1000, "loss": 0, "queue": 50}
GUEST = {"memory": 512, "disk": 1024, "files": 600, "dirty": 20, "dirty_set": 64, "iops": 100}


def add_options(parser):
    options.add_line(parser, LINE)
    parser.add_argument("--mode", choices=("ferry", *VIRSH_MODES), default="ferry",
                        help="the reference: 'ferry' means ferry against virsh-sync, another is put in its place")
    parser.add_argument("--reference-only", action="store_true", help="stock libvirt alone, without ferry")
    parser.add_argument("--repeat", type=int, default=1, metavar="N", help="moves of each; medians are shown")
    parser.add_argument("--time-limit", type=float, default=120, metavar="S", help="of one move")
    options.add_up(parser)
    options.add_guest(parser)
    parser.set_defaults(**GUEST, at="site-a")


def case_name(args):
    name = f"rtt{args.rtt:g}"
    if args.rate != LINE["rate"]:
        name += f"-rate{args.rate:g}"
    if args.loss:
        name += f"-loss{args.loss:g}"
    return name


def run(args, say):
    """Rows and the single measurements behind them."""
    reference = "virsh-sync" if args.mode == "ferry" else args.mode
    modes = [reference] if args.reference_only else ["ferry", reference]
    args.ferryd = "ferry" in modes
    with lab_for(args, say) as lab, guest_for(lab, args, say) as guest:
        runs = measure(guest, modes, args, say)
    return [comparison(case_name(args), *names, reference, runs) for names in METRICS], runs


def measure(guest, modes, args, say, once_unfinished=False):
    """Mode -> its measurements, the modes in turn. once_unfinished: a mode that did not end in its time is not
    tried again."""
    runs = {mode: [] for mode in modes}
    for n in range(args.repeat):
        for mode in modes:
            if once_unfinished and any("unfinished" in each for each in runs[mode]):
                continue
            say(f"moving by {mode} ({n + 1} of {args.repeat})")
            result = measure_move(guest, mover(mode), args.time_limit)
            if "unfinished" in result:
                say(f"{mode}: {result['unfinished']}")
            runs[mode].append(result)
    return runs


def comparison(case, key, metric, unit, reference, runs):
    """One row: the medians of the moves that ended."""
    figures = {mode: report.median([r[key] for r in results if "unfinished" not in r])
               for mode, results in runs.items()}
    stuck = [r["unfinished"] for r in runs[reference] if "unfinished" in r]
    failed = stuck[0] if len(stuck) == len(runs[reference]) else None
    return report.row(case, metric, unit, figures.get("ferry"), figures[reference], reference, failed)
