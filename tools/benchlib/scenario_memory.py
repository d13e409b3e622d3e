# SPDX-License-Identifier: Apache-2.0
"""What a guest's memory costs on the wire, by kind of guest: ferry's codec, stock libvirt in its modes, a zstd
pipe; and the codec's own speed on the streams that were recorded from these guests."""

import argparse
import pathlib
import tempfile

from . import cases, recording, report
from .bed import guest_for, lab_for
from .measure import measure_move
from .movers import mover

HELP = "memory on the wire by kind of guest: the codec, stock, its XBZRLE and multifd, a zstd pipe"
MIB = 2**20
RECORD_MBIT = 480  # fast enough to end, slow enough for pages to be sent again
RECORDED = {"cache", "counter", "demo"}
QUIET = {"disks": 1, "format": "raw", "files": 0, "dirty": 0, "dirty_set": 64, "fill": 0, "change": 4096, "iops": 0,
         "vcpus": 1, "at": "site-a"}

# Case -> the line (RTT in ms, Mbit/s), the guest, the words to its witness before each move.
CASES = {
    "cache": ((100, 200), {"memory": 448, "disk": 400, "files": 300}, "cache 0"),
    "counter": ((100, 200), {"memory": 256, "disk": 64, "dirty": 20, "change": 8}, None),
    "noise": ((0.2, 1000), {"memory": 384, "disk": 64, "fill": 200}, None),
    "demo": ((100, 1000), {"memory": 512, "disk": 1024, "files": 600, "dirty": 20, "iops": 100}, None),
}
STOCK = ("virsh-sync", "virsh-xbzrle", "virsh-multifd")


def add_options(parser):
    cases.add_moves(parser, CASES, STOCK, 180)


def run(args, say):
    """Rows and the single measurements behind them."""
    rows, runs = [], {}
    for name in cases.chosen(args, CASES):
        runs[name] = _run_case(name, args, say)
        rows += _rows(name, runs[name])
    return rows, runs


def _run_case(name, args, say):
    (rtt, rate), guest_options, words = CASES[name]
    line = {"rtt": rtt, "rate": rate, "loss": 0, "queue": 50}
    settings = argparse.Namespace(**{**vars(args), **QUIET, **guest_options, **line})
    results = {}
    with lab_for(settings, say) as lab, guest_for(lab, settings, say) as guest:
        for mode in ("ferry", *cases.references(args)):
            results[mode] = _move(guest, mode, words, args, say, name)
            if name == "counter":  # the first pass is not what is compared
                guest.ask("rate dirty=0")
                results[mode]["first_pass"] = _move(guest, mode, words, args, say, f"{name}, at rest")
                guest.ask(f"rate dirty={settings.dirty}")
        if name in RECORDED:
            with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
                say(f"{name}: recording the stream")
                if words:
                    guest.ask(words, 120)
                path = recording.record(guest, pathlib.Path(folder) / "stream", RECORD_MBIT)
                results["recorded"] = recording.bench(path)
    return results


def _move(guest, mode, words, args, say, what):
    if words:
        guest.ask(words, 120)
    say(f"{what}: moving by {mode}")
    result = measure_move(guest, mover(mode), args.time_limit)
    if "unfinished" in result:
        say(f"{mode}: {result['unfinished']}")
    return result


def _memory_mib(result):
    wire = result.get("report", {}).get("memory", {}).get("wire_bytes")
    return wire / MIB if wire is not None else None


def _sent_again_mib(result):
    both = _memory_mib(result), _memory_mib(result["first_pass"])
    return max(both[0] - both[1], 0) if None not in both else None


def _against_stock(case, metric, unit, figure, results):
    """A row for each stock mode; the plain one carries the bare metric's name, which targets go by."""
    ferry = figure(results["ferry"])
    for mode, result in results.items():
        if mode not in ("ferry", "recorded"):
            name = metric if mode == "virsh-sync" else f"{metric}, {mode.removeprefix('virsh-')}"
            yield report.row(case, name, unit, ferry, figure(result), mode, result.get("unfinished"))


def _rows(case, results):
    rows = list(_against_stock(case, "memory on the wire", "MiB", _memory_mib, results))
    if case == "counter":
        rows += _against_stock(case, "memory sent again", "MiB", _sent_again_mib, results)
    rows += _against_stock(case, "total time", "s", lambda r: r.get("total_s"), results)
    rows += _against_stock(case, "downtime", "ms", lambda r: r.get("downtime_ms"), results)
    recorded = results.get("recorded")
    if recorded:
        codec, plain, mib = recorded["codec"], recorded["zstd"], recorded["bytes"] / MIB
        # A recorded stream has no disks beside it: what references save shows only in the move.
        rows.append(report.row(case, "memory on the wire, zstd pipe", "MiB", _memory_mib(results["ferry"]),
                               plain["wire_bytes"] / MIB, "zstd -1"))
        rows.append(report.row(case, "recorded stream", "MiB", codec["wire_bytes"] / MIB, plain["wire_bytes"] / MIB,
                               "zstd -1"))
        for work in ("encode", "decode"):
            rows.append(report.row(case, f"{work} speed, one core", "MiB/s", mib / codec[f"{work}_s"],
                                   mib / plain[f"{work}_s"], "zstd -1"))
    return rows
