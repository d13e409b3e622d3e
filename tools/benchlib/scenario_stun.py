# SPDX-License-Identifier: Apache-2.0
"""Guests that dirty their memory faster and slower than the line carries it: by ferry with its stun, by stock
libvirt, and by stock with QEMU's auto-converge; the line that changes under a stunned guest; and a ferryd that is
killed in the midst of it."""

import argparse
import json
import threading
import time

from lablib import witness
from lablib.base import LabError, built, wait_until

from . import cases, report
from .bed import guest_for, lab_for
from .measure import measure_move
from .movers import FERRY_MODES, mover

HELP = "memory that does not converge by itself: time, downtime, what the guest keeps; changes of the line, crashes"
LINE = {"rtt": 100, "rate": 200, "loss": 0, "queue": 50}
LINK_BYTES_S = LINE["rate"] * 125000
# Of incompressible pages, after the headers of every layer.
LINK_MIB_S = LINK_BYTES_S * 0.95 / 2**20
GUEST = {"memory": 256, "disk": 64, "disks": 1, "format": "raw", "files": 8, "dirty_set": 64, "fill": 0,
         "change": 4096, "iops": 20, "vcpus": 1, "at": "site-a"}
FACTORS = {"x0.5": 0.45, "x0.9": 0.9, "x2": 2, "x5": 5}  # of what the line carries; "below 0.5" is below it
# Held as little as converges: how well the level is kept can be seen there, because it takes long enough.
GENTLE, HELD = "ferry-gentle", ("x2", "x5")
STOCK = ("virsh-sync", "virsh-auto-converge")
CASES = (*FACTORS, "line", "crash")
LIMITS = "find /sys/fs/cgroup -path '*/machine*' -path '*/vcpu*' \\( -name cpu.cfs_quota_us -o -name cpu.max \\) -exec cat {} +"


def add_options(parser):
    cases.add_moves(parser, CASES, STOCK, 100)
    parser.add_argument("--crashes", type=int, default=10, metavar="N", help="of ferryd, in case 'crash'")


def run(args, say):
    """Rows and the single measurements behind them."""
    rows, runs = [], {}
    for name in cases.chosen(args, CASES):
        say(f"case {name}")
        guest_args = argparse.Namespace(**vars(args))
        vars(guest_args).update(LINE, **GUEST, dirty=FACTORS.get(name, 3) * LINK_MIB_S, ferryd=True)
        with lab_for(guest_args, say) as lab, guest_for(lab, guest_args, say) as guest:
            case = {"line": _line_case, "crash": _crash_case}.get(name, _move_case)
            found, runs[name] = case(lab, guest, args, name, say)
        rows += found
    return rows, runs


# --- what ferry says of a running move ---


def _running(site):
    moves = json.loads(site.run([built("tools/ferry/ferry"), "--json", "list"], "list the moves"))["moves"]
    return next((m for m in moves if not m["finished"] and m["role"] == "source"), None)


class _StunnedWork(threading.Thread):
    """What a guest rewrites per second while it is slowed down, by its own count."""

    def __init__(self, guest, site):
        super().__init__(daemon=True)
        self.guest, self.site = guest, site
        self.ended = threading.Event()
        self.pages = self.seconds = 0

    def _look(self):
        move = _running(self.site)
        stats = witness.ask(self.site, self.guest.name, "stats")
        return bool(move and move["stun"]["percent"] > 0), time.monotonic(), stats["pages_rewritten"]

    def run(self):
        before = None
        while not self.ended.wait(0.4):
            try:
                now = self._look()
            except (LabError, OSError, ValueError):
                before = None
                continue
            if before and before[0] and now[0]:
                self.seconds += now[1] - before[1]
                self.pages += now[2] - before[2]
            before = now

    def mib_per_s(self):
        self.ended.set()
        self.join()
        return self.pages / 256 / self.seconds if self.seconds > 1 else None


# --- cases ---


def _measure(guest, mode, time_limit_s):
    work = _StunnedWork(guest, guest.only_site())
    if mode in FERRY_MODES:
        work.start()
    result = measure_move(guest, mover(mode), time_limit_s)
    if mode in FERRY_MODES:
        result["stunned_mib_per_s"] = work.mib_per_s()
    return result


def _taken_s(result):
    """What the guest lost of its time while it was held back."""
    stun = result["report"]["stun"]
    return stun["total_ms"] / 1000 * stun["mean_percent"] / 100


def _ferry_rows(name, ours, setting):
    """Of a move by ferry; `setting` says which, after the metric's name."""
    if "unfinished" in ours:
        return [report.row(name, f"committed{setting}", "", 0, 1, "always")]
    wire = ours["report"]["memory"]["wire_bytes"]
    return [report.row(name, f"committed{setting}", "", 1, 1, "always"),
            report.row(name, f"total time{setting}", "s", ours["total_s"], 2 * wire / LINK_BYTES_S + 10,
                       "2 x memory on the wire / line + 10 s"),
            report.row(name, f"downtime{setting}", "ms", ours["downtime_ms"], None, "-"),
            report.row(name, f"stun at most{setting}", "%", ours["report"]["stun"]["max_percent"], None, "-")]


def _held_rows(name, ours, gentle):
    rows = []
    if gentle.get("stunned_mib_per_s"):
        rows.append(report.row(name, "guest's rewriting while stunned, gentle", "MiB/s", gentle["stunned_mib_per_s"],
                               LINK_MIB_S, "what the line carries"))
    if "unfinished" not in ours and "unfinished" not in gentle:
        rows.append(report.row(name, "taken of the guest's time", "s", _taken_s(ours), _taken_s(gentle), GENTLE))
    return rows


def _move_case(lab, guest, args, name, say):
    runs = {}
    for mode in ("ferry", *([GENTLE] if name in HELD else []), *cases.references(args)):
        say(f"moving by {mode}")
        runs[mode] = _measure(guest, mode, args.time_limit)
    ours, rows = runs["ferry"], _ferry_rows(name, runs["ferry"], "")
    if GENTLE in runs:
        rows += _ferry_rows(name, runs[GENTLE], ", gentle") + _held_rows(name, ours, runs[GENTLE])
    for mode in cases.references(args):
        for key, metric, unit in (("total_s", "total time", "s"), ("wire_mib", "bytes on the wire", "MiB"),
                                  ("downtime_ms", "downtime", "ms")):
            rows.append(report.row(name, f"{metric}, {mode}", unit, ours.get(key), runs[mode].get(key), mode,
                                   runs[mode].get("unfinished")))
    return rows, runs


def _stun_percent(site):
    move = _running(site)
    return move["stun"]["percent"] if move else None


def _start_stunned(guest, source, target):
    """Gently: it shall be under way when the line changes, or ferryd is killed."""
    source.run([built("tools/ferry/ferry"), "--json", "move", guest.name, "--to", target.name, "--detach",
                *FERRY_MODES[GENTLE]], "start the move")
    if not wait_until(lambda: (_stun_percent(source) or 0) > 0, 60, 0.05):
        raise LabError("the guest is not slowed down")


def _follow_s(lab, site, rate, before_kept):
    """From a change of the line until what the guest keeps has gone two thirds of its way there."""
    wanted = before_kept * rate / lab.line.stats()["rate"]
    half = before_kept + (wanted - before_kept) * 2 / 3
    start = time.monotonic()
    lab.line.set(rate=rate)

    def there():
        percent = _stun_percent(site)
        if percent is None:
            return False
        kept = 100 - percent
        return kept <= half if wanted < before_kept else kept >= min(half, 97)

    return time.monotonic() - start if wait_until(there, 15, 0.05) else None


def _line_case(lab, guest, args, name, say):
    source = guest.only_site()
    target = lab.other(source.name)
    guest.ask(f"rate dirty={3 * LINK_MIB_S}")
    runs = {}
    for change, rate in (("halved", LINE["rate"] / 2), ("doubled", LINE["rate"] * 2)):
        say(f"the line is {change}")
        lab.line.set(rate=LINE["rate"])
        _start_stunned(guest, source, target)
        time.sleep(4)
        percent = _stun_percent(source)
        runs[change] = _follow_s(lab, source, rate, 100 - percent) if percent else None
        move = _running(source)
        if move:
            source.run([built("tools/ferry/ferry"), "cancel", move["id"]], "cancel the move")
            wait_until(lambda: not _running(source), 60)
        if guest.only_site().name != source.name:
            source, target = target, source
    lab.line.set(rate=LINE["rate"])
    return [report.row(name, f"level follows the line {change}", "s", seconds, None, "-")
            for change, seconds in runs.items()], runs


def _is_free(site):
    limits = site.run(["sh", "-c", LIMITS], "read the vCPUs' limits").split("\n")
    return all(line.split()[0] in ("-1", "max") for line in limits if line)


def _crash_case(lab, guest, args, name, say):
    source = guest.only_site()
    target = lab.other(source.name)
    times = []
    for n in range(args.crashes):
        say(f"crash {n + 1} of {args.crashes}")
        _start_stunned(guest, source, target)
        lab.ferryds[source.name].kill()
        start = time.monotonic()
        lab.ferryds[source.name].start()
        times.append(time.monotonic() - start if wait_until(lambda: _is_free(source), 20, 0.05) else None)
        if not wait_until(lambda: not _running(source), 60):
            raise LabError("the move does not end after ferryd was killed")
    worst = None if None in times else max(times)
    return [report.row(name, "guest free again after ferryd's restart, worst", "s", worst, None, "-"),
            report.row(name, "crashes", "", len(times), args.crashes, "wanted")], {"times": times}
