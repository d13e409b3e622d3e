# SPDX-License-Identifier: Apache-2.0
"""What an operator of two sites does: checks before moves, drills, evacuations."""

import contextlib
import json
import subprocess
import threading
import time

from lablib import options, witness
from lablib.base import LabError, built, wait_until
from lablib.verify import verify

from . import cases, report
from .bed import guest_for, lab_for
from .heartbeat import Watch, longest_gap_ms
from .measure import SETTLE_S, wire_bytes
from .movers import FerryMove
from .scenario_move import GUEST, LINE

HELP = "checks, drills and evacuations: how true, how light, how fast they are"
SMALL = {"memory": 256, "disk": 256, "files": 100, "dirty": 2, "dirty_set": 16, "iops": 20}
EVACUATED = 6
# The line is cut this often, from this long after the start on, for this long, with this pause between.
CUTS, CUT_AFTER_S, CUT_S, CUT_PAUSE_S = 2, 5, 15, 10
FOLDER = "/etc/ferry/drill.d"
# The drill's command: says that it is there, and waits until the clone was looked at.
WAIT = "#!/bin/sh\ntouch /run/ferry/here\nwhile [ ! -e /run/ferry/go ]; do sleep 0.1; done\n"
# What is predicted -> the report's figure, unit, and how both are read.
FIGURES = {
    "total time": ("s", lambda p: p["total_ms"] / 1000, lambda r: r["total_ms"] / 1000),
    "downtime": ("ms", lambda p: p["downtime_ms"], lambda r: r["downtime_ms"]),
    "bytes on the wire": ("MiB", lambda p: p["bytes"] / 2**20, lambda r: r["link"]["wire_bytes"] / 2**20),
}


def add_options(parser):
    cases.add_option(parser, CASES)
    options.add_line(parser, LINE)
    parser.add_argument("--repeat", type=int, default=5, metavar="N", help="checks and moves of the case check")
    options.add_up(parser)
    options.add_guest(parser)  # of which the cases set what is theirs
    parser.set_defaults(at="site-a", ferryd=True)


def _ferry(site, *words):
    """A command's document; an exit status of 1 has one, too."""
    done = subprocess.run(site.enter([built("tools/ferry/ferry"), "--json", *words]), text=True, check=False,
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=600)
    try:
        return json.loads(done.stdout)
    except ValueError:
        raise LabError(f"ferry {words[0]} failed (exit status {done.returncode}): {done.stderr.strip()}") from None


def _expect(found, wanted, what):
    if found != wanted:
        raise LabError(f"{what}: {found}, not {wanted}", "figures of what went wrong are worth nothing")


def _checked_move(lab, guest):
    source = guest.only_site()
    target = lab.other(source.name)
    mover = FerryMove()
    mover.prepare(guest, target)
    found = _ferry(source, "check", guest.name, "--to", target.name)
    move = mover.move(guest, source, target, 120)
    mover.clean(guest, source)
    return {"prediction": found["prediction"], "report": move}


def _check(lab, args, say):
    """The demo's guest, checked and then moved, to and fro."""
    runs = []
    with guest_for(lab, args, say) as guest:
        for n in range(args.repeat):
            say(f"check and move ({n + 1} of {args.repeat})")
            runs.append(_checked_move(lab, guest))
    rows = []
    for name, (unit, predicted, measured) in FIGURES.items():
        pairs = [(predicted(run["prediction"]), measured(run["report"])) for run in runs]
        rows.append(report.row("check", name, unit, report.median([p for p, _ in pairs]),
                               report.median([m for _, m in pairs]), "measured"))
        rows.append(report.row("check", f"{name}, worst error", "%",
                               max(100 * abs(p - m) / m for p, m in pairs), None, "measured"))
    return rows, runs


class _Background(threading.Thread):
    """Runs a function beside others; result() is its value, or raises what it raised."""

    def __init__(self, function, *args):
        super().__init__(daemon=True)
        self.function, self.args, self.value, self.error = function, args, None, None
        self.start()

    def run(self):
        try:
            self.value = self.function(*self.args)
        except Exception as e:  # told by result()
            self.error = e

    def result(self):
        self.join()
        if self.error:
            raise self.error
        return self.value


def _drill(lab, args, say):
    """The demo's guest, rehearsed under load with its disk kept, then moved."""
    with guest_for(lab, args, say) as guest:
        source = guest.only_site()
        target = lab.other(source.name)
        target.path(FOLDER).mkdir(exist_ok=True)
        target.path(f"{FOLDER}/wait").write_text(WAIT)
        target.path(f"{FOLDER}/wait").chmod(0o755)
        time.sleep(SETTLE_S)
        watch = Watch(lab, guest.name)
        watch.start()
        start = time.monotonic()
        say("drilling")
        drill = _Background(_ferry, source, "drill", guest.name, "--to", target.name, "--run", "wait", "--keep-disk")
        here = wait_until(lambda: target.path("/run/ferry/here").exists() or not drill.is_alive(), 120)
        time.sleep(1)
        beats = watch.stop()
        clone = witness.ask(target, guest.name, "verify", 120) if here and drill.is_alive() else None
        target.path("/run/ferry/go").touch()
        rehearsed = drill.result()
        if clone is None:
            raise LabError(f"the drill's command never ran: {rehearsed.get('reason')}")
        target.path(witness.heartbeat_path(guest.name)).unlink(missing_ok=True)
        _expect(rehearsed["outcome"], "drilled", "the drill's outcome")
        _expect(target.run(["virsh", "list", "--all", "--name"], "list the domains").split(), [], "left at the target")
        _expect(verify(guest)["problems"], [], "problems of the source after the drill")
        say("moving")
        moved = _ferry(source, "move", guest.name, "--to", target.name)
        _expect(moved["outcome"], "committed", "the move's outcome")
        _expect(verify(guest)["problems"], [], "problems after the move")
        FerryMove().clean(guest, source)
    missing = sum(len(clone[key]) if isinstance(clone[key], list) else clone[key]
                  for key in ("lost_writes", "bad_blocks", "write_errors", "bad_pages"))
    stop_ms = longest_gap_ms([beat for beat in beats if beat.site == source.name], start)
    rows = [report.row("drill", "the source stands still", "ms", stop_ms, None, "-"),
            report.row("drill", "the clone misses", "1", missing, None, "-"),
            report.row("drill", "disk bytes of the move, of the drill's", "%",
                       100 * moved["disk"]["wire_bytes"] / rehearsed["disk"]["wire_bytes"], None, "-")]
    return rows, [{"drill": rehearsed, "move": moved}]


def _cut_now_and_then(line, ended):
    for n in range(CUTS):
        if ended.wait(CUT_PAUSE_S if n else CUT_AFTER_S):
            return n
        line.cut()
        try:
            time.sleep(CUT_S)
        finally:
            line.mend()
    return CUTS


def _evacuation(name, cut, lab, args, say):
    with contextlib.ExitStack() as stack:
        guests = [stack.enter_context(guest_for(lab, args, say, f"vm{n + 1}")) for n in range(EVACUATED)]
        source = guests[0].only_site()
        target = lab.other(source.name)
        time.sleep(SETTLE_S)
        wire, start = wire_bytes(lab.line), time.monotonic()
        ended = threading.Event()
        cuts = _Background(_cut_now_and_then, lab.line, ended) if cut else None
        say("evacuating")
        try:
            found = _ferry(source, "evacuate", "--to", target.name)
        finally:
            ended.set()
        total_s = time.monotonic() - start
        if cut:
            _expect(cuts.result(), CUTS, "cuts of the line")
        wire = wire_bytes(lab.line) - wire
        say("verifying")
        well = [guest for guest in guests if guest.only_site().name == target.name and verify(guest)["ok"]]
        for guest in guests:
            FerryMove().clean(guest, source)
    allowed_s = 1.25 * wire * 8 / (args.rate * 1e6) + 15
    return [report.row(name, "VMs arrived and verified", "1", len(well), EVACUATED, "all"),
            report.row(name, "total time", "s", total_s, None if cut else allowed_s, "1.25 x bytes / line + 15 s"),
            report.row(name, "bytes on the wire", "MiB", wire / 2**20, None, "-")], [found]


def _whole_evacuation(lab, args, say):
    return _evacuation("evacuation", False, lab, args, say)


def _cut_evacuation(lab, args, say):
    return _evacuation("evacuation-cut", True, lab, args, say)


# Case -> (what measures it, its guests, the daemons' configuration)
CASES = {
    "check": (_check, GUEST, []),
    "drill": (_drill, GUEST, ["storage.use_seeds=yes"]),
    "evacuation": (_whole_evacuation, SMALL, []),
    "evacuation-cut": (_cut_evacuation, SMALL, []),
}


def run(args, say):
    """Rows and the runs behind them. Of the case check "ferry" is what was predicted, the reference what came."""
    rows, runs = [], {}
    conf = args.conf
    for name in cases.chosen(args, CASES):
        measure, guest, extra = CASES[name]
        vars(args).update(guest, conf=[*conf, *extra])
        with lab_for(args, say) as lab:
            found, runs[name] = measure(lab, args, say)
        rows += found
    return rows, runs
