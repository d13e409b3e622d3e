#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Goal: a ferryd may die at any moment. Killed with SIGKILL while disks are copied, while memory is sent, and at
every named point of the switchover, at the source and at the target, and started again: at no time do two
copies run, in the end exactly one does, the witness in it misses nothing, both sites count the move as finished
and agree on its end, and nothing is left over. Starting once more changes nothing."""

import sys
import time

import ferrylab
from ferrylab import (booted_anew, expect, expect_equal, expect_moved, expect_nothing_at, expect_stayed, expect_words,
                      old_disks, until, wait_finished)
from watchers import NeverTwo

CONF = ferrylab.SHORT_LOG
LIKE = ferrylab.QUIET_GUEST
SLOW_MBIT = 10
FAST_MBIT = 1000


def start_again_changes_nothing(bed, move, guest):
    def state():
        moves = {s: [(m["phase"], m["outcome"], m["finished"]) for m in bed.moves(s) if m["id"] == move.id]
                 for s in ("site-a", "site-b")}
        return moves, guest.states(), bed.images("site-a"), bed.images("site-b")

    before = state()
    for site in ("site-a", "site-b"):
        bed.restart(site)
    expect_equal(state(), before, "moves, domains and files after one more start")


def expect_recovered(bed, guest, move, runs_at, outcome, old):
    views = wait_finished(bed, move.id)
    expect_equal({v["outcome"] for v in views.values()}, {outcome}, "the outcome")
    if outcome == "committed":
        expect_moved(bed, guest, runs_at)
    else:
        expect_stayed(bed, guest, runs_at, old)
    start_again_changes_nothing(bed, move, guest)


def prepared(bed):
    """The guest, and the sites in the direction it moves next: from where it happens to be."""
    bed.line(rate=FAST_MBIT)
    if "vm" in bed.made and ferrylab.Guest(bed.lab, "vm").states() == {"site-b": "running"}:
        return ferrylab.Guest(bed.lab, "vm"), "site-b", "site-a"
    return bed.guest(**LIKE), "site-a", "site-b"


def killed_in_phase(bed, phase, role):
    guest, source, target = prepared(bed)
    victim = source if role == "source" else target
    old = old_disks(bed, target)
    with NeverTwo(bed, guest.name):
        if phase == "memory":
            move = bed.move(guest, source, target, "--hold")
            move.send_memory(SLOW_MBIT)
        else:
            bed.line(rate=SLOW_MBIT)
            move = bed.move(guest, source, target)
            move.wait_phase(phase)
        expect_equal(move.view()["phase"], phase, "the phase in which ferryd is killed")
        bed.kill(victim)
        bed.line(rate=FAST_MBIT)
        bed.start(victim)
        result = move.end()
        expect(result.status in ((1, 5) if role == "source" else (1,)), f"exit status of the move ({result})")
        expect_recovered(bed, guest, move, source, "aborted", old)


def copying_source(bed):
    """The source's ferryd is killed while disks are copied"""
    killed_in_phase(bed, "copying", "source")


def copying_target(bed):
    """The target's ferryd is killed while disks are copied"""
    killed_in_phase(bed, "copying", "target")


def memory_source(bed):
    """The source's ferryd is killed while memory is sent"""
    killed_in_phase(bed, "memory", "source")


def memory_target(bed):
    """The target's ferryd is killed while memory is sent"""
    killed_in_phase(bed, "memory", "target")


def autostart(bed):
    """During a move a restarted host would not start the old copy; without a commit it does so again"""
    guest, source, target = prepared(bed)
    link = bed.site(source).path(f"/etc/libvirt/qemu/autostart/{guest.name}.xml")
    bed.virsh(source, "autostart", guest.name)
    for end in ("cancelled", "killed"):
        expect(link.is_symlink(), "virsh autostart makes no link")
        bed.line(rate=SLOW_MBIT)
        move = bed.move(guest, source, target)
        move.wait_phase("copying")
        expect(not link.is_symlink(), "the VM would start with its host in the middle of a move")
        if end == "killed":
            bed.kill(source)
            bed.line(rate=FAST_MBIT)
            bed.start(source)
        else:
            bed.ferry(source, "cancel", move.id)
            bed.line(rate=FAST_MBIT)
        move.end()
        wait_finished(bed, move.id)
        expect(link.is_symlink(), f"the VM does not start with its host any more after a move that was {end}")
    move = bed.move(guest, source, target)
    expect_equal(move.end().status, 0, "exit status of the move that commits")
    wait_finished(bed, move.id)
    expect(not link.is_symlink(), "the old copy would start with its host")
    expect(bed.site(target).path(f"/etc/libvirt/qemu/autostart/{guest.name}.xml").is_symlink(),
           "the VM does not start with its new host")
    bed.virsh(target, "autostart", "--disable", guest.name)
    expect_moved(bed, guest, target)


def host_restarts(bed):
    """The source's host restarts in the middle of a move: its VM starts again once the target does not run it"""
    for parted in (False, True):
        guest = bed.guest(**LIKE)
        bed.virsh("site-a", "autostart", guest.name)
        bed.line(rate=SLOW_MBIT)
        move = bed.move(guest)
        move.wait_phase("copying")
        with NeverTwo(bed, guest.name):
            if parted:
                bed.cut()
            bed.restart_host("site-a")
            if parted:
                until(lambda: "host was restarted" in bed.moves("site-a")[-1]["reason"],
                      lambda: f"the source does not say why it waits: {bed.moves('site-a')[-1]['reason']!r}")
                time.sleep(12)  # longer than a silent target is waited for where nobody can be harmed
                expect_equal(guest.states().get("site-a"), "shut off", "the VM while the target cannot be asked")
                bed.mend()
            move.end()
            wait_finished(bed, move.id)
            expect(booted_anew(guest, "site-a"), "the VM is one that has died with its host")
        bed.alter(guest)
        expect_nothing_at(bed, "site-b", guest)
        expect(bed.site("site-a").path(f"/etc/libvirt/qemu/autostart/{guest.name}.xml").is_symlink(),
               "the VM does not start with its host any more")
        expect_equal(move.id in [m["id"] for m in bed.moves("site-a") if m["outcome"] == "aborted"], True,
                     "the move counts as aborted")
        bed.line(rate=FAST_MBIT)
        guest.stop()


def trouble(bed):
    """The target's libvirtd is gone when the move is decided: the target says what it waits for, and runs the VM when it is back"""
    guest, source, target = prepared(bed)
    old = old_disks(bed, target)
    bed.restart(source, "before-commit:stop")
    move = bed.move(guest, source, target)
    bed.wait_stopped(source)
    bed.site(target).libvirtd.kill()
    bed.resume(source)

    def said():
        return [m.get("trouble", "") for m in bed.moves(target) if m["id"] == move.id][0]

    until(said, "the target does not say what it waits for")
    expect_words(bed.ferry(target, "show", move.id, as_json=False).out, ["trying again", "libvirt"], "the words for it")
    expect_words(bed.metrics(target), ["ferry_moves_troubled 1"], "the target's metrics")
    bed.start_libvirtd_again(target)
    expect(move.end().status in (0, 4), "exit status of the move")
    wait_finished(bed, move.id)
    expect_equal(said(), "", "what it waits for in the end")
    expect_words(bed.metrics(target), ["ferry_moves_troubled 0"], "the target's metrics in the end")
    bed.restart(source)
    expect_recovered(bed, guest, move, target, "committed", old)


# Where ferryd dies -> where the VM must run in the end. The decision is the source's journal together with
# what its libvirtd has read: before it has the reply it runs on at the source, from then on at the target.
FAILPOINTS = (
    ("source", "before-commit-journal", "source"),
    ("source", "after-commit-journal", "source"),
    ("source", "before-reply", "source"),
    ("source", "after-reply", "target"),
    ("source", "before-commit", "target"),
    ("source", "after-commit", "target"),
    ("target", "before-prepared-journal", "source"),
    ("target", "after-prepared-journal", "source"),
    ("target", "after-committed-journal", "target"),
    ("target", "after-resume", "target"),
)


def at_failpoint(role, name, where):
    def case(bed):
        guest, source, target = prepared(bed)
        victim = source if role == "source" else target
        old = old_disks(bed, target)
        bed.restart(victim, f"{name}:kill")
        with NeverTwo(bed, guest.name):
            move = bed.move(guest, source, target)
            expect(move.id, "the move has no id")
            bed.wait_dead(victim)
            # Without its ferryd the VM may run or wait, but never twice: a moment of that, then the start.
            until(lambda: len(guest.running_at()) <= 1, "two copies run while a ferryd is down")
            bed.start(victim)
            result = move.end()
            allowed = (1,) if where == "source" else (0, 4)  # in doubt, perhaps, while a ferryd was down
            expect(result.status in (*allowed, *((5,) if role == "source" else ())), f"exit status of the move ({result})")
            outcome = "committed" if where == "target" else "aborted"
            expect_recovered(bed, guest, move, source if where == "source" else target, outcome, old)

    case.__name__ = f"failpoint_{role}_{name.replace('-', '_')}"
    case.__doc__ = f"The {role}'s ferryd is killed at {name}: the VM runs at the {where}"
    return case


if __name__ == "__main__":
    sys.exit(ferrylab.run("recovery", [copying_source, copying_target, memory_source, memory_target, autostart,
                                       host_restarts, trouble, *[at_failpoint(*words) for words in FAILPOINTS]],
                          CONF))
