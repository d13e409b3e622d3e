# SPDX-License-Identifier: Apache-2.0
"""The fault matrix's parts: how a move is brought into a phase and kept there, what is done to it then, who looks
all the while, and what must hold afterwards whatever the end is.

A phase is met by a gate: a failpoint that stops one ferryd there, a hold, or a slow line. The fault begins behind
the gate, then the gate opens (unless the fault has its ferryd), the fault lasts its time and is mended."""

import contextlib
import os
import pathlib
import signal
import time

import ferrylab
from ferrylab import (Failed, booted_anew, expect, expect_disks_only, expect_nothing_at, expect_well, old_disks,
                      wait_finished)
from watchers import NeverTwoWhateverDies

LIKE = ferrylab.QUIET_GUEST
SLOW_MBIT = 60
FAST_MBIT = 1000
STALL_S = 20
CUT_S = 8  # longer than the sessions of this test live
EXIT = {"committed": (0,), "aborted": (1, 3)}

# Phase -> (whose ferryd stops there, the failpoint), or how else it is met.
GATES = {
    "preparing": ("target", "before-ready"),
    "copying": None,
    "mirroring": None,
    "memory": None,
    "stopped": ("target", "before-prepared-journal"),
    "prepared": ("source", "before-commit-journal"),
    "committed": ("source", "before-reply"),
    "released": ("source", "after-reply"),
    "resumed": ("target", "after-resume"),
}
VICTIMS = tuple(f"{role} {what}" for what in ("ferryd", "QEMU", "libvirtd") for role in ("source", "target"))
LINKS = ("cut", "cut one way", "reset")


class Case:
    """One move under one fault. `source`, `target`: the sites, by where the guest happens to be."""

    def __init__(self, bed, phase):
        self.bed, self.phase = bed, phase
        guest = ferrylab.Guest(bed.lab, "vm") if "vm" in bed.made and bed.made["vm"] else None
        if guest and guest.states() == {"site-b": "running"}:
            self.guest, self.source, self.target = guest, "site-b", "site-a"
        else:
            self.guest, self.source, self.target = bed.guest(**LIKE), "site-a", "site-b"
        self.old = old_disks(bed, self.target)
        self.move = None
        self.gated = None
        self.dead_vm = False  # the fault killed a copy: the VM may be off, or have booted anew

    def site_of(self, role):
        return self.source if role == "source" else self.target

    # --- the phase ---

    def begin(self):
        gate = GATES[self.phase]
        if gate:
            self.gated = self.site_of(gate[0])
            self.bed.restart(self.gated, f"{gate[1]}:stop")
        slow = self.phase == "copying"
        if slow:
            self.bed.line(rate=SLOW_MBIT)
        words = ("--hold",) if self.phase in ("mirroring", "memory") else ()
        self.move = self.bed.move(self.guest, self.source, self.target, *words)
        expect(self.move.id, "the move has no id")
        if gate:
            self.bed.wait_stopped(self.gated)
        elif slow:
            self.move.wait_phase("copying")
        elif self.phase == "memory":
            self.move.send_memory(SLOW_MBIT)
        else:
            self.move.wait_held()

    def open_gate(self, unless=None):
        if self.gated and self.gated != unless and self.bed.ferryd_pid(self.gated):
            self.bed.resume(self.gated)
        if self.phase == "mirroring":
            with contextlib.suppress(OSError, Failed):  # its ferryd may be what the fault is about
                self.bed.ferry(self.source, "switchover", self.move.id)

    # --- faults ---

    def pids(self, victim):
        role, what = victim.split()
        site = self.site_of(role)
        if what == "ferryd":
            return [self.bed.ferryd_pid(site)]
        if what == "libvirtd":
            return [self.bed.site(site).libvirtd.pid()]
        return self.bed.qemus(site)

    def kill(self, victim):
        role, what = victim.split()
        site = self.site_of(role)
        pids = [pid for pid in self.pids(victim) if pid]
        if what == "ferryd":
            self.bed.kill(site)
        elif what == "libvirtd":
            self.bed.alter(self.guest)
            self.bed.site(site).libvirtd.kill()
        else:
            self.dead_vm = bool(pids)
            for pid in pids:
                os.kill(pid, signal.SIGKILL)
        self.open_gate(site if what == "ferryd" else None)
        time.sleep(1)  # as a service manager would
        if what == "ferryd":
            self.bed.start(site)
        elif what == "libvirtd":
            self.bed.start_libvirtd_again(site)

    def stall(self, victim):
        role, what = victim.split()
        site = self.site_of(role)
        pids = [pid for pid in self.pids(victim) if pid]
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        self.open_gate(site if what == "ferryd" else None)
        time.sleep(STALL_S)
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):  # libvirt may have ended it
                os.kill(pid, signal.SIGCONT)

    def disturb(self, how):
        if how == "reset":
            self.bed.reset_connections(self.source)
            self.open_gate()
            return
        self.bed.lab.line.cut("a-to-b" if how == "cut one way" else "")
        self.open_gate()
        time.sleep(CUT_S)
        self.bed.mend()

    def cancel(self):
        if self.gated == self.source:
            self.open_gate()  # a stopped ferryd hears nobody
        result = self.bed.ferry(self.source, "cancel", self.move.id)
        expect(result.status in (0, 1), f"exit status of cancel ({result})")
        if self.gated != self.source:
            self.open_gate()

    # --- the end ---

    def finish(self):
        """What must hold, whatever came of it. Returns the end in a word or two."""
        self.bed.line(rate=FAST_MBIT)
        result = self.move.end()
        views = wait_finished(self.bed, self.move.id)
        outcome = {view["outcome"] for view in views.values()}.pop()
        expect(result.status in (*EXIT[outcome], 4, 5), f"exit status for {outcome}: {result}")
        at = self.target if outcome == "committed" else self.source
        other = self.bed.other(at)
        disks = {pathlib.Path(path).name for path in self.guest.record()["disks"]}
        expect_nothing_at(self.bed, other, self.guest, disks if outcome == "committed" else self.old)
        if self.dead_vm and self.guest.states() == {at: "shut off"}:
            self.bed.alter(self.guest)
            return f"{outcome}, VM off"
        if self.dead_vm and booted_anew(self.guest, at):
            self.bed.alter(self.guest)
            expect_disks_only(self.bed, at, self.guest)
            return f"{outcome}, booted anew"
        expect_well(self.guest, at)
        expect_disks_only(self.bed, at, self.guest)
        return outcome


def run(bed, phase, fault):
    """fault(case) does it, behind the gate. Returns the end in words."""
    case = Case(bed, phase)
    with NeverTwoWhateverDies(bed, case.guest.name):
        case.begin()
        fault(case)
        return case.finish()
