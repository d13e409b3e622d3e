# SPDX-License-Identifier: Apache-2.0
"""One move, measured from outside: time, bytes on the wire, downtime, what the guest felt."""

import threading
import time

from lablib import witness
from lablib.base import LabError, wait_until
from lablib.verify import verify

from .heartbeat import Watch, downtime_ms, longest_gap_ms, write_rate
from .movers import NotFinished

# Before a move, the guest works undisturbed for this long.
SETTLE_S = 2

# The rows of a move: key of the measurement, name, unit.
METRICS = (
    ("total_s", "total time", "s"),
    ("wire_mib", "bytes on the wire", "MiB"),
    ("downtime_ms", "downtime", "ms"),
    ("stall_ms", "longest stall of the guest", "ms"),  # the downtime is one of them
    ("writes_per_s", "guest write rate", "1/s"),
    ("write_p50_ms", "guest write latency p50", "ms"),
    ("write_p99_ms", "guest write latency p99", "ms"),
    ("write_max_ms", "guest write latency max", "ms"),
)


# The copy has begun when the line has carried this much: what goes before is talk.
COPY_BYTES = 2**20


def wire_bytes(line):
    stats = line.stats()
    return stats["a_to_b"]["bytes"] + stats["b_to_a"]["bytes"]


class _CopyStart(threading.Thread):
    """Notes when the copy begins, and has the guest count its latencies from there."""

    def __init__(self, guest, source, wire):
        super().__init__(daemon=True)
        self.guest, self.source, self.wire = guest, source, wire
        self.ended = threading.Event()
        self.time = None

    def run(self):
        while not self.ended.wait(0.05):
            if wire_bytes(self.guest.lab.line) - self.wire < COPY_BYTES:
                continue
            try:
                witness.ask(self.source, self.guest.name, "reset")
            except LabError:
                continue  # it just moved away: too short a copy to tell its latencies apart
            self.time = time.monotonic()
            return

    def stop(self):
        self.ended.set()
        self.join()


def measure_move(guest, mover, time_limit_s, seen=None):
    """Moves the guest to the other site, verifies it there, and returns the measurement as a dict; `seen`, a
    dict, gets what it was measured from: when it started, when the copy did, the heartbeats. A move that does not end in its time gives {"unfinished": reason} and what can be told anyway."""
    lab = guest.lab
    source = guest.only_site()
    target = lab.other(source.name)
    mover.prepare(guest, target)
    time.sleep(SETTLE_S)
    watch = Watch(lab, guest.name)
    watch.start()
    wire = wire_bytes(lab.line)
    copy = _CopyStart(guest, source, wire)
    copy.start()
    start = time.monotonic()
    try:
        result = _attempt(guest, mover, source, target, time_limit_s)
        if "unfinished" not in result and not wait_until(lambda: watch.seen_at(target.name), 10):
            raise LabError(f"{mover.name} is done but no heartbeat comes from {target.name}")
    finally:
        copy.stop()
        beats = watch.stop()
    if seen is not None:
        seen.update(start=start, copy=copy.time or start, beats=beats, source=source.name)
    stats = guest.ask("stats")["writes"]
    result["wire_mib"] = (wire_bytes(lab.line) - wire) / 2**20
    result["writes_per_s"] = write_rate(beats, source.name, copy.time or start)
    for key in ("p50", "p99", "max"):
        result[f"write_{key}_ms"] = stats[f"{key}_us"] / 1000
    if "unfinished" not in result:
        result["downtime_ms"] = downtime_ms(beats, source.name)
        result["stall_ms"] = longest_gap_ms(beats, start)
        mover.clean(guest, source)
    _check(guest, mover)
    return result


def _attempt(guest, mover, source, target, time_limit_s):
    start = time.monotonic()
    try:
        report = mover.move(guest, source, target, time_limit_s)
    except NotFinished as e:
        return {"unfinished": str(e)}
    return {"total_s": time.monotonic() - start, "report": report}


def _check(guest, mover):
    findings = verify(guest)
    if not findings["ok"]:
        raise LabError(f"after {mover.name} guest {guest.name} is not well: "
                       f"{'; '.join(findings['problems'])}",
                       "figures of a move that loses data are worth nothing; look at it in a lab of your own: "
                       "tools/lab up, then the bench again")
