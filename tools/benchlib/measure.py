# SPDX-License-Identifier: Apache-2.0
"""One move, measured from outside: time, bytes on the wire, downtime, what the guest felt."""

import time

from lablib.base import LabError, wait_until
from lablib.verify import verify

from .heartbeat import Watch, longest_gap_ms, write_rate
from .movers import NotFinished

# Before a move, the guest works undisturbed for this long.
SETTLE_S = 2

# The rows of a move: key of the measurement, name, unit.
METRICS = (
    ("total_s", "total time", "s"),
    ("wire_mib", "bytes on the wire", "MiB"),
    ("downtime_ms", "downtime", "ms"),
    ("writes_per_s", "guest write rate", "1/s"),
    ("write_p50_ms", "guest write latency p50", "ms"),
    ("write_p99_ms", "guest write latency p99", "ms"),
    ("write_max_ms", "guest write latency max", "ms"),
)


def _wire_bytes(line):
    stats = line.stats()
    return stats["a_to_b"]["bytes"] + stats["b_to_a"]["bytes"]


def measure_move(guest, mover, time_limit_s):
    """Moves the guest to the other site, verifies it there, and returns the measurement as a dict.
    A move that does not end in its time gives {"unfinished": reason, "wire_mib": ...}."""
    lab = guest.lab
    source = guest.only_site()
    target = lab.other(source.name)
    mover.prepare(guest, target)
    time.sleep(SETTLE_S)
    guest.ask("reset")
    watch = Watch(lab, guest.name)
    watch.start()
    wire = _wire_bytes(lab.line)
    start = time.monotonic()
    try:
        report = mover.move(guest, source, target, time_limit_s)
    except NotFinished as e:
        result = {"unfinished": str(e)}
    else:
        result = {"total_s": time.monotonic() - start, "report": report}
        if not wait_until(lambda: watch.seen_at(target.name), 10):
            raise LabError(f"{mover.name} is done but no heartbeat comes from {target.name}")
    stats = guest.ask("stats")["writes"]
    end = time.monotonic()
    beats = watch.stop()
    result["wire_mib"] = (_wire_bytes(lab.line) - wire) / 2**20
    result["writes_per_s"] = write_rate(beats, source.name, start)
    for key in ("p50", "p99", "max"):
        result[f"write_{key}_ms"] = stats[f"{key}_us"] / 1000
    if "unfinished" not in result:
        result["downtime_ms"] = longest_gap_ms(beats, start, end)
        mover.clean(guest, source)
    _check(guest, mover)
    return result


def _check(guest, mover):
    findings = verify(guest)
    if not findings["ok"]:
        raise LabError(f"after {mover.name} guest {guest.name} is not well: "
                       f"{'; '.join(findings['problems'])}",
                       "figures of a move that loses data are worth nothing; look at it in a lab of your own: "
                       "tools/lab up, then the bench again")
