#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Goal: a move that fails, fails cleanly. Whatever goes wrong before the decision, the VM runs on at the
source and misses nothing, no domain, disk, marker or socket folder stays at the target and none of the move's
own at the source, the exit status is the documented one, and the message names what failed and what to do. An
outage shorter than the limit is no failure at all."""

import contextlib
import os
import signal
import sys

import ferrylab
from ferrylab import (IMAGES, brittle_images, expect, expect_committed, expect_disks_only, expect_equal, expect_failed,
                      expect_moved, expect_nothing_at, expect_stayed, expect_words, small_images, until,
                      wait_finished, wait_written)

# A stripe without a sign of life for 2 s counts as dead, 5 s without any stripe end a move.
CONF = {"link.outage_limit_s": 5, "link.stripe_timeout_s": 2, **ferrylab.SHORT_LOG}
# So slow that every phase can be met: some seconds of copying, some seconds of memory.
# All cases use the same kind of guest, so that those that leave it in place share one.
LIKE = {"files": 40, "disk": 128}
SLOW_MBIT = 20
FAST_MBIT = 1000


@contextlib.contextmanager
def slow(bed, rate=SLOW_MBIT):
    bed.line(rate=rate)
    try:
        yield
    finally:
        bed.line(rate=FAST_MBIT)


def started(bed, phase):
    """A guest and its move, in that phase: "copying" or "memory". Only that is made to last."""
    guest = bed.guest(**LIKE)
    if phase == "memory":
        move = bed.move(guest, "site-a", "site-b", "--hold")
        move.send_memory(SLOW_MBIT)
    else:
        bed.line(rate=SLOW_MBIT)
        move = bed.move(guest)
        move.wait_phase(phase)
    expect_equal(move.view()["phase"], phase, "the phase in which the fault is met")
    return guest, move


def gave_up(bed, guest, move, words, status=1):
    """The end of a failed move, and what is left of it: nothing."""
    result = move.end()
    bed.line(rate=FAST_MBIT)
    report = expect_failed(result, words, status)
    wait_finished(bed, report["id"])
    expect_stayed(bed, guest)
    return report


def expect_mend(report):
    expect(report["error"]["mend"], f"the message does not say what to do: {report['error']}")


# --- no conversation ---


def target_down(bed):
    """The target's ferryd is down: refused; the VM moves once it is up"""
    guest = bed.guest(**LIKE)
    bed.lab.ferryds["site-b"].stop()
    result = bed.move(guest).end()
    expect_equal(result.status, 3, f"exit status ({result})")
    expect_words(result.document()["reason"], ["link", "site-b", "refused"], "the reason")
    expect_mend(result.document())
    expect_stayed(bed, guest)
    bed.start("site-b")
    wait_finished(bed, expect_committed(bed.move(guest).end())["id"])
    expect_moved(bed, guest)


def wrong_fingerprint(bed):
    """Another key than the configured one, at either side: refused, and said so"""
    guest = bed.guest(**LIKE)
    for site, words in (("site-a", ["site-b", "fingerprint"]), ("site-b", ["site-b"])):
        def falsify(text):
            head, fingerprint = text.split("fingerprint = sha256:")
            return head + "fingerprint = sha256:" + ("1" if fingerprint[0] != "1" else "2") + fingerprint[1:]

        with bed.configured(site, falsify):
            for each in ("site-a", "site-b"):  # sessions from before the change
                bed.restart(each)
            result = bed.move(guest).end()
            expect_equal(result.status, 3, f"exit status with a wrong fingerprint at {site} ({result})")
            expect_words(result.document()["reason"], words, "the reason")
            expect_mend(result.document())
            expect_stayed(bed, guest)


# --- space ---


def no_space_at_start(bed):
    """No space at the target: refused before anything is made"""
    guest = bed.guest(**LIKE)
    with small_images(bed, "site-b", 100):
        result = bed.move(guest).end()
        expect_equal(result.status, 3, f"exit status ({result})")
        expect_words(result.document()["reason"], ["site-b", "MiB", "free"], "the reason")
        expect_mend(result.document())
        expect_stayed(bed, guest)


def no_space_in_between(bed):
    """The target's file system fills up during the copy"""
    guest = bed.guest(**LIKE)
    with small_images(bed, "site-b", 180), slow(bed):
        move = bed.move(guest)
        move.wait_phase("copying")
        filler = bed.site("site-b").path(f"{IMAGES}/filler")
        with open(filler, "wb") as file:
            with contextlib.suppress(OSError):  # to the last block
                while True:
                    file.write(bytes(1 << 20))
                    file.flush()
        report = expect_failed(move.end(), ["site-b", "space"])
        expect_mend(report)
        filler.unlink(missing_ok=True)
        wait_finished(bed, report["id"])
        expect_stayed(bed, guest)


# --- the line ---


def long_outage(bed):
    """The line is cut for longer than the limit, while copying"""
    guest, move = started(bed, "copying")
    bed.cut()
    report = expect_failed(move.end(), ["link"])
    expect_mend(report)
    bed.mend()
    bed.line(rate=FAST_MBIT)
    wait_finished(bed, report["id"])
    expect_stayed(bed, guest)


def long_outage_memory(bed):
    """The line is cut for longer than the limit, in the memory phase"""
    guest, move = started(bed, "memory")
    bed.cut()
    report = expect_failed(move.end(), ["link"])
    bed.mend()
    bed.line(rate=FAST_MBIT)
    wait_finished(bed, report["id"])
    expect_stayed(bed, guest)


def short_outage(bed):
    """Outages shorter than the limit are ridden out: the move commits and counts them"""
    guest, move = started(bed, "copying")
    outages = 0
    for phase in ("copying", "memory"):
        move.wait_phase(phase)
        bed.cut()
        # Every stripe must have died, or there was no outage.
        until(lambda: move.view()["link"]["outages"] > outages, lambda: f"no outage is counted: {move.view()['link']}")
        bed.mend()
        outages = move.view()["link"]["outages"]
    bed.line(rate=FAST_MBIT)
    report = expect_committed(move.end())
    expect(report["link"]["outages"] >= 2, f"outages of the report: {report['link']}")
    wait_finished(bed, report["id"])
    expect_moved(bed, guest)


# --- the operator ---


def cancel(bed):
    """Cancelled while copying and in the memory phase; a second cancel is too late"""
    for phase in ("copying", "memory"):
        guest, move = started(bed, phase)
        result = bed.ferry("site-a", "cancel", move.id)
        expect_equal(result.status, 0, f"exit status of cancel ({result})")
        gave_up(bed, guest, move, ["cancelled"])
        again = bed.ferry("site-a", "cancel", move.id)
        expect_equal(again.status, 1, f"exit status of a second cancel ({again})")
        expect_words(again.err, ["ended"], "the second cancel's message")


def cancel_at_target(bed):
    """The target's site does not cancel: it says where to"""
    guest, move = started(bed, "copying")
    result = bed.ferry("site-b", "cancel", move.id)
    expect(result.status != 0, f"cancel at the target succeeds: {result}")
    expect_words(result.err, ["source"], "the message")
    bed.line(rate=FAST_MBIT)
    wait_finished(bed, expect_committed(move.end())["id"])
    expect_moved(bed, guest)


def two_at_once(bed):
    """A second move of the same VM is refused and does not disturb the first"""
    guest, move = started(bed, "copying")
    second = bed.ferry("site-a", "move", guest.name, "--to", "site-b")
    expect_equal(second.status, 3, f"exit status of the second move ({second})")
    expect_words(second.document()["reason"], ["another move", guest.name], "the second move's reason")
    expect_equal(move.view()["outcome"], "running", "the first move")
    bed.line(rate=FAST_MBIT)
    wait_finished(bed, expect_committed(move.end())["id"])
    expect_moved(bed, guest)


# --- the guest and the machines ---


def guest_ends(bed):
    """The guest is destroyed during the move, while copying and in the memory phase"""
    for phase in ("copying", "memory"):
        guest, move = started(bed, phase)
        bed.alter(guest)
        bed.virsh("site-a", "destroy", guest.name)
        result = move.end()
        bed.line(rate=FAST_MBIT)
        report = expect_failed(result, ["ended at the source"])
        wait_finished(bed, report["id"])
        expect_nothing_at(bed, "site-b", guest)
        expect_equal(bed.domains("site-a").get(guest.name), "shut off", "the domain at the source")
        until(lambda: not bed.socket_folders("site-a"), "the socket folder stays at the source")
        expect_equal(bed.images("site-a"), {"vm.raw"}, "files at the source")
        bed.virsh("site-a", "start", guest.name)  # it can be started again


def target_qemu_killed(bed):
    """The target's QEMU is killed, while copying and in the memory phase"""
    for phase in ("copying", "memory"):
        guest, move = started(bed, phase)
        for pid in until(lambda: bed.qemus("site-b"), "no QEMU at the target"):
            os.kill(pid, signal.SIGKILL)
        report = gave_up(bed, guest, move, ["site-b"])
        expect_mend(report)


def target_disk_fails(bed):
    """The target's disk answers writes with EIO"""
    guest = bed.guest(**LIKE)
    with brittle_images(bed, "site-b", 300) as break_it, slow(bed):
        move = bed.move(guest)
        wait_written(bed, "site-b", guest, 4)
        break_it()
        report = expect_failed(move.end(), ["site-b", "disk", "Input/output error"])
        expect_mend(report)
        wait_finished(bed, report["id"])
        expect_stayed(bed, guest)


def ferryd_stopped(bed):
    """Either ferryd is stopped in order during the move: it gives up and says why"""
    for site, words in (("site-a", ["stopped"]), ("site-b", ["stopped"])):
        guest, move = started(bed, "copying")
        bed.lab.ferryds[site].stop()
        result = move.end()
        bed.start(site)
        bed.line(rate=FAST_MBIT)
        if site == "site-a":
            expect(result.status in (1, 5), f"exit status when its own ferryd ends ({result})")
            report = move.view()
            expect_words(report["reason"], words, "the reason after the restart")
        else:
            report = expect_failed(result, words)
        expect_mend(report)
        wait_finished(bed, report["id"])
        expect_stayed(bed, guest)
        expect_disks_only(bed, "site-a", guest)


if __name__ == "__main__":
    sys.exit(ferrylab.run("failures", [target_down, wrong_fingerprint, no_space_at_start, no_space_in_between,
                                       long_outage, long_outage_memory, short_outage, cancel, cancel_at_target,
                                       two_at_once, guest_ends, target_qemu_killed, target_disk_fails,
                                       ferryd_stopped], CONF))
