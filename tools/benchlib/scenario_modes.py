# SPDX-License-Identifier: Apache-2.0
"""The tables of the hybrid study (modes of post-copy, 16 GB at 1 Gbit/s), scaled to this machine: VMs of four sizes
without load, and the largest with stressed memory in eight steps; by ferry as it is shipped, by stock pre-copy, and by
stock hybrid (one pass of pre-copy, then post-copy); with ferry-POLICY in --modes also by ferry's other policies. Time,
downtime, transferred data."""

import argparse

from lablib.base import LabError

from . import cases, report
from .bed import guest_for, lab_for
from .measure import measure_move
from .movers import mover

HELP = "ferry, stock pre-copy and stock hybrid: VMs of four sizes, and stressed memory in eight steps"
# A sixteenth of the study's memory, a fifth of its line: two cores carry both hosts and the line.
LINE = {"rtt": 0.2, "rate": 200, "loss": 0, "queue": 50}
SIZES = {"s": 128, "m": 256, "l": 512, "xl": 1024}
STEPS = 8
STEP_MIB = 16  # of SIZES["xl"] as 256 MB of 16 GB
STRESS = 2.5  # times what the line carries
LINE_MIB_S = LINE["rate"] * 125000 * 0.95 / 2**20
GUEST = {"disk": 64, "disks": 1, "format": "raw", "files": 8, "change": 4096, "iops": 10, "vcpus": 1, "at": "site-a"}
STRESSED = {f"xl+{STEP_MIB * n}": STEP_MIB * n for n in range(1, STEPS + 1)}
CASES = (*SIZES, *STRESSED)
# lan-direct and very-large ask for it; the others do not.
ALLOWED = "peer.allow=move-here move-from-here drill direct-memory"
STOCK = ("virsh-sync", "virsh-hybrid")
METRICS = (("total_s", "total time", "s"), ("downtime_ms", "downtime", "ms"), ("stall_ms", "longest stall", "ms"),
           ("wire_mib", "bytes on the wire", "MiB"))


def add_options(parser):
    cases.add_moves(parser, CASES, STOCK, 60)


def run(args, say):
    """Rows and the single measurements behind them."""
    rows, runs = [], {}
    up = argparse.Namespace(**vars(args))
    vars(up).update(LINE, ferryd=True, postcopy=True, conf=[*args.conf, ALLOWED])
    with lab_for(up, say) as lab:
        for name in cases.chosen(args, CASES):
            guest_args = argparse.Namespace(**vars(up))
            stressed = STRESSED.get(name, 0)
            vars(guest_args).update(GUEST, memory=SIZES.get(name, SIZES["xl"]), fill=0, dirty_set=stressed or 1,
                                    dirty=STRESS * LINE_MIB_S if stressed else 0)
            runs[name] = {}
            for mode in ("ferry", *cases.references(args)):
                say(f"{name}: {mode}")
                with guest_for(lab, guest_args, say) as guest:
                    runs[name][mode] = _measure(guest, mode, args.time_limit)
            rows += _rows(name, guest_args.memory, runs[name])
    return rows, runs


def _measure(guest, mode, time_limit_s):
    try:
        return measure_move(guest, mover(mode), time_limit_s)
    except LabError as e:
        if mode == "ferry":
            raise
        return {"unfinished": str(e)}  # a reference that fails is a result


def _rows(name, memory_mib, runs):
    ours, rows = runs["ferry"], []
    rows.append(report.row(name, "committed", "", int("unfinished" not in ours), 1, "always"))
    for mode, other in runs.items():
        for key, metric, unit in METRICS:
            if mode != "ferry":
                rows.append(report.row(name, f"{metric}, {mode}", unit, ours.get(key), other.get(key), mode,
                                       other.get("unfinished")))
    if "unfinished" not in runs.get("virsh-hybrid", {"unfinished": ""}):
        rows.append(report.row(name, "the hybrid's bytes, of 2 x memory", "MiB", runs["virsh-hybrid"]["wire_mib"],
                               2 * memory_mib, "2 x memory"))
    return rows
