# SPDX-License-Identifier: Apache-2.0
"""What a guest feels of its disks being copied far away, and what the copy costs: over long lines, to a slow disk,
by a guest that writes too much, across a cut, to a site that has an old copy. Ferry and stock libvirt with synchronous
writes, on the same lab in the same run."""

import argparse
import random
import threading
import time

from lablib import options, scramble
from lablib.verify import verify

from . import cases, report
from .bed import guest_for, lab_for
from .heartbeat import write_rate
from .measure import measure_move
from .movers import mover
from .sampler import Sampler
from .slow_disk import slow_disk

HELP = "the disks: guest writes during the copy, slow targets, overload, outages"
REFERENCE = "virsh-sync"
BASELINE_S = 8
WINDOW_S = 2
SETTLED_S = 10
GENTLE = ["service.write_slack_ms=2"]
WRITES_ROWS = (("guest write rate", "% of unmirrored"), ("p99 above unmirrored", "ms"), ("total time", "s"))
QUIET = {"memory": 256, "disks": 1, "disk": 1024, "format": "raw", "files": 600, "dirty": 0, "dirty_set": 64, "fill": 0,
         "change": 4096, "iops": 100, "vcpus": 1, "at": "site-a"}


def add_options(parser):
    cases.add_option(parser, CASES)
    parser.add_argument("--ferry-only", action="store_true", help="without the reference")
    parser.add_argument("--time-limit", type=float, default=120, metavar="S", help="of one move")
    parser.add_argument("--moves", type=int, default=100, metavar="N", help="of the case `equal`")
    options.add_up(parser)


def run(args, say):
    """Rows and the single measurements behind them."""
    rows, runs = [], {}
    for name in cases.chosen(args, CASES):
        case = CASES[name]
        line = {"rtt": 100, "rate": 1000, "loss": 0, "queue": 50, **case.get("line", {})}
        settings = argparse.Namespace(**{**vars(args), **QUIET, **case.get("guest", {}), **line})
        settings.conf = [*args.conf, *case.get("conf", [])]
        settings.time_limit = case.get("time_limit", args.time_limit)
        results = {}
        with lab_for(settings, say) as lab, guest_for(lab, settings, say) as guest:
            for mode in ("ferry",) if args.ferry_only or "ferry_only" in case else ("ferry", REFERENCE):
                say(f"{name}: moving by {mode}")
                results[mode] = case["measure"](guest, mode, settings)
        runs[name] = results
        reference = results.get(REFERENCE, {})
        for metric, unit in case["rows"]:
            rows.append(report.row(name, metric, unit, results["ferry"].get(metric), reference.get(metric),
                                   REFERENCE, reference.get("unfinished")))
    return rows, runs


# --- measuring ---


def _baseline(guest):
    """The guest's writes while nothing moves."""
    guest.ask("reset")
    time.sleep(BASELINE_S)
    return guest.ask("stats")["writes"]


def _move(guest, mode, args, seen=None):
    result = measure_move(guest, mover(mode), args.time_limit, seen)
    result["total time"] = result.get("total_s")
    return result


def _copy_span(result, seen):
    """When the copy began and ended, on our clock; by ferry's own word."""
    phases = result.get("report", {}).get("phases_ms", {})
    if "copying" not in phases or "mirroring" not in phases:
        return None
    return seen["start"] + phases["copying"] / 1000, seen["start"] + phases["mirroring"] / 1000


def _slowed_rates(seen, start, end):
    """Acknowledged writes per second at the source, window by window."""
    rates, at = [], start
    while at + WINDOW_S <= end:
        beats = [b for b in seen["beats"] if b.site == seen["source"] and at <= b.time < at + WINDOW_S]
        if len(beats) > 1:
            rates.append((beats[-1].acknowledged - beats[0].acknowledged) / (beats[-1].time - beats[0].time))
        at += WINDOW_S
    return rates


# --- cases ---


def _writes(guest, mode, args):
    """A guest that writes a little: it should not notice."""
    before = _baseline(guest)
    result = _move(guest, mode, args)
    result["baseline"] = before
    result["guest write rate"] = 100 * result["writes_per_s"] / before["per_second"]
    result["p99 above unmirrored"] = result["write_p99_ms"] - before["p99_us"] / 1000
    return result


def _files(guest, mode, args):
    """Real files, nothing else: is the line full, or the processors, and how much crosses it?"""
    seen = {}
    with Sampler(guest.lab.line) as sampler:
        result = _move(guest, mode, args, seen)
    raw = guest.record()["disk_mib"] and QUIET["files"] * 2**20
    span = _copy_span(result, seen)
    if span:
        carried, seconds, cpu = sampler.between(*span)
        result["line busy"] = 100 * carried * 8 / (args.rate * 1e6 * seconds) if seconds else None
        result["processors busy"] = 100 * cpu
        result["line or processors busy"] = max(result["line busy"] or 0, result["processors busy"])
        result["copied at"] = raw / 2**20 / seconds if seconds else None
    else:  # all it sent, its memory too
        carried = result["wire_mib"] * 2**20
    result["on the wire of raw"] = carried / raw
    return result


def _slow_target(guest, mode, args):
    """The target's disk writes 5 MB/s, the guest 3 MB/s."""
    target = guest.lab.other(guest.only_site().name)
    before = _baseline(guest)
    with slow_disk(target, 5_000_000):
        result = _move(guest, mode, args)
    result["baseline"] = before
    result["guest write rate"] = 100 * result["writes_per_s"] / before["per_second"]
    log_peak = result.get("report", {}).get("disk", {}).get("log_peak_bytes")
    result["log at most, of its bound"] = 100 * log_peak / (256 << 20) if log_peak is not None else None
    return result


def _overload(guest, mode, args):
    """The guest writes all it can over a narrow line."""
    seen = {}
    before = _baseline(guest)
    with Sampler(guest.lab.line) as sampler:
        result = _move(guest, mode, args, seen)
    result["baseline"] = before
    # From when the first burst of the copy is through until the guest stops: the copy and the memory.
    stopped = result.get("report", {}).get("phases_ms", {}).get("stopped")
    end = seen["start"] + (stopped / 1000 if stopped else result.get("total_s") or args.time_limit)
    settled = seen["copy"] + SETTLED_S
    carried, seconds, _ = sampler.between(settled, end)
    rates = _slowed_rates(seen, settled, end)
    result["rates"] = rates
    result["used of the line"] = 100 * carried * 8 / (args.rate * 1e6 * seconds) if seconds else None
    result["guest's slowest window of its fastest"] = 100 * min(rates) / max(rates) if rates and max(rates) else None
    result["guest write rate, slowed"] = sum(rates) / len(rates) if rates else None
    return result


class _Cut(threading.Thread):
    """Cuts the line while the disks are copied, for a time."""

    def __init__(self, guest, source, seconds):
        super().__init__(daemon=True)
        self.guest, self.source, self.seconds, self.span = guest, source, seconds, None

    def run(self):
        line = self.guest.lab.line
        before = line.stats()["a_to_b"]["bytes"]
        while line.stats()["a_to_b"]["bytes"] < before + 20 * 2**20:
            time.sleep(0.1)
        start = time.monotonic()
        line.cut()
        time.sleep(self.seconds)
        line.mend()
        self.span = start, time.monotonic()


def _outage(guest, mode, args):
    """The line is cut for a minute in the middle of the copy."""
    seen = {}
    before = _baseline(guest)
    cut = _Cut(guest, guest.only_site(), 60)
    cut.start()
    result = _move(guest, mode, args, seen)
    cut.join()
    result["baseline"] = before
    there = [b for b in seen["beats"] if cut.span[0] <= b.time <= cut.span[1]]
    rate = write_rate(there, seen["source"], cut.span[0])
    result["guest write rate in the cut"] = 100 * rate / before["per_second"]
    return result


def _copied_wire(guest, mode, args):
    """Moves; what crossed the line, both ways, while the disks were copied is added."""
    seen = {}
    with Sampler(guest.lab.line, ("a_to_b", "b_to_a")) as sampler:
        result = _move(guest, mode, args, seen)
    span = _copy_span(result, seen)
    result["copy_wire"] = sampler.between(*span)[0] if span else result["wire_mib"] * 2**20
    return result


def _spoil(path, share):
    """Other contents in that share of the file's blocks of 4 KiB that hold something, anywhere."""
    chance = random.Random(1)
    blocks = path.stat().st_size // 4096
    with open(path, "r+b") as file:
        held = [n for n in range(blocks) if any(file.read(4096))]
        for n in chance.sample(held, int(len(held) * share)):
            file.seek(n * 4096)
            file.write(chance.randbytes(4096))


def _seed(guest, mode, args):
    """A second move, to a site that has an old copy of which 5 % differ: what crosses the line, of the first move's."""
    first = _copied_wire(guest, mode, args)
    if mode == "ferry":
        home = guest.lab.other(guest.only_site().name)
        _spoil(home.path(guest.record()["disks"][0] + ".ferry-old"), 0.05)
    result = _copied_wire(guest, mode, args)
    result["first"] = first
    result["disk bytes of the first move's"] = 100 * result["copy_wire"] / first["copy_wire"]
    return result


def _equal(guest, _mode, args):
    """Moves to and fro; at each switchover the disks are compared byte by byte."""
    scramble.prepare(guest)
    moves, operations, seeded = [], 0, 0
    start = time.monotonic()
    for seed in range(1, args.moves + 1):
        equal, count, report = scramble.move(guest, seed)
        moves.append(equal)
        operations += count
        seeded += report["disk"]["seed_bytes"]
    findings = verify(guest)
    return {"disks equal": 100 * sum(moves) / len(moves), "moves": len(moves), "operations": operations,
            "from seeds": seeded / 2**20, "total time": time.monotonic() - start,
            "the witness misses": len(findings["problems"])}


CASES = {
    "writes-rtt100": {"measure": _writes, "conf": GENTLE, "guest": {"files": 200}, "time_limit": 300, "rows": WRITES_ROWS},
    "writes-rtt214": {"measure": _writes, "conf": GENTLE, "guest": {"files": 200}, "time_limit": 300,
                      "line": {"rtt": 214}, "rows": WRITES_ROWS},
    # As shipped: the copy goes as fast as it can, and QEMU's bursts are felt.
    "writes-fast": {"measure": _writes, "ferry_only": True, "rows": WRITES_ROWS},
    "files": {"measure": _files, "guest": {"iops": 0},
              "rows": (("line or processors busy", "%"), ("line busy", "%"), ("processors busy", "%"),
                       ("copied at", "MiB/s"), ("on the wire of raw", "1"), ("total time", "s"))},
    "slow-target": {"measure": _slow_target, "guest": {"disk": 256, "files": 60, "iops": 730},
                    "rows": (("guest write rate", "% of unmirrored"), ("log at most, of its bound", "%"),
                             ("total time", "s"))},
    "overload": {"measure": _overload, "line": {"rate": 30}, "conf": ["storage.log_memory=64M"], "time_limit": 240,
                 "guest": {"disk": 48, "files": 24, "iops": 4000, "disks": 3},
                 "rows": (("used of the line", "%"), ("guest's slowest window of its fastest", "%"),
                          ("guest write rate, slowed", "1/s"), ("total time", "s"))},
    # Stock loses its connection, or waits: the cut is for ferry alone to bear.
    "outage": {"measure": _outage, "line": {"rate": 200}, "time_limit": 240, "ferry_only": True,
               "conf": ["storage.log_memory=64M", "storage.spool=/var/cache/libvirt", "storage.spool_size=1G"],
               "guest": {"disk": 384, "files": 200},
               "rows": (("guest write rate in the cut", "% of unmirrored"), ("total time", "s"))},
    "seed": {"measure": _seed, "guest": {"iops": 0}, "conf": ["storage.use_seeds=yes"],
             "rows": (("disk bytes of the first move's", "%"), ("total time", "s"))},
    "equal": {"measure": _equal, "line": {"rtt": 5}, "ferry_only": True, "conf": ["storage.use_seeds=yes"],
              "guest": {"memory": 96, "disks": 2, "disk": 40, "files": 20, "iops": 50, "dirty_set": 8},
              "rows": (("disks equal", "% of moves"), ("moves", "1"), ("operations", "1"), ("from seeds", "MiB"),
                       ("the witness misses", "1"), ("total time", "s"))},
}
