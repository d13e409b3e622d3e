#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Goal: a guest that dirties its memory faster than the line carries it is slowed down until the move commits; one
that does not is left alone; and whatever becomes of a move, or of ferryd in the midst of it, nothing of the guest's
processor time stays taken, at either site."""

import json
import sys

import ferrylab
from ferrylab import (NeverTwo, expect, expect_equal, expect_moved, expect_stayed, until, wait_finished)

LINE = {"rtt": 100, "rate": 200}
GUEST = {"memory": 256, "files": 8, "disk": 64, "dirty_set": 64, "iops": 20}
BUSY = {**GUEST, "dirty": 60}  # the line carries about 23 MiB/s
FIND = "find /sys/fs/cgroup -path '*/machine*' -path '*/vcpu*' "


def limits(bed, site):
    """What the vCPUs of a site may use: of cgroup version 1, then 2."""
    text = bed.site(site).run(["sh", "-c", FIND + "-name cpu.cfs_quota_us -exec cat {} +; " + FIND +
                               "-name cpu.max -exec cat {} +"], "read the vCPUs' limits")
    return [line.split()[0] for line in text.splitlines()]


def expect_free(bed, site):
    found = limits(bed, site)
    expect(found, f"no vCPU at {site}")
    expect(all(limit in ("-1", "max") for limit in found), f"the vCPUs at {site} are limited: {found}")


def stunned_move(bed):
    """A move of the busy guest that has just slowed it down."""
    bed.line(**LINE)
    guest = bed.guest(**BUSY)
    expect_free(bed, "site-a")
    move = bed.move(guest)
    until(lambda: move.view()["stun"]["percent"] > 0, "the guest is not slowed down")
    expect(any(limit not in ("-1", "max") for limit in limits(bed, "site-a")), "the stun is in the report alone")
    return guest, move


def converges(bed):
    """A guest that dirties three times what the line carries moves, slowed down, and is free at the target"""
    bed.line(**LINE)
    guest = bed.guest(**BUSY)
    with NeverTwo(bed, guest.name):
        report = bed.move(guest).end().document()
    expect_equal(report["outcome"], "committed", "the outcome")
    stun = report["stun"]
    expect(0 < stun["max_percent"] <= 95 and stun["total_ms"] > 0, f"the report's stun: {stun}")
    expect_equal((stun["percent"], stun["actuator"], stun["verdict"]), (0, "cgroup", "needs stun"), "at the end")
    expect_free(bed, "site-b")
    wait_finished(bed, report["id"])
    expect_moved(bed, guest)


def is_left_alone(bed):
    """A guest that dirties little is not slowed down"""
    bed.line(**LINE)
    guest = bed.guest(**{**GUEST, "dirty": 5})
    report = bed.move(guest).end().document()
    expect_equal((report["outcome"], report["stun"]["max_percent"], report["stun"]["verdict"]),
                 ("committed", 0, "converges"), "outcome and stun")
    wait_finished(bed, report["id"])
    expect_moved(bed, guest)


def cancelled(bed):
    """A move that is cancelled while the guest is slowed down lets go of it"""
    guest, move = stunned_move(bed)
    expect_equal(bed.ferry("site-a", "cancel", move.id).status, 0, "exit status of cancel")
    expect_equal(move.end().document()["outcome"], "aborted", "the outcome")
    expect_free(bed, "site-a")
    wait_finished(bed, move.id)
    expect_stayed(bed, guest)


def cut(bed):
    """While the line is away the guest runs free; the move goes on afterwards"""
    guest, move = stunned_move(bed)
    bed.cut()
    until(lambda: move.view()["stun"]["percent"] == 0, "the guest is slowed down though nothing is carried")
    expect_free(bed, "site-a")
    bed.mend()
    expect_equal(move.end().document()["outcome"], "committed", "the outcome")
    expect_free(bed, "site-b")
    wait_finished(bed, move.id)
    expect_moved(bed, guest)


def killed(bed):
    """ferryd is killed while the guest is slowed down: the next one puts everything back"""
    guest, move = stunned_move(bed)
    bed.kill("site-a")
    expect(any(limit not in ("-1", "max") for limit in limits(bed, "site-a")), "the stun ended before ferryd did")
    bed.start("site-a")
    expect_free(bed, "site-a")
    wait_finished(bed, move.id)
    expect_stayed(bed, guest)


def auto_converge(bed):
    """[memory] converge = auto-converge leaves it to QEMU, none to the downtime"""
    bed.line(**LINE)
    path = bed.site("site-a").path(ferrylab.CONFIG)
    before = path.read_text()
    try:
        for policy in ("auto-converge", "none"):
            path.write_text(before + f"\n[memory]\nconverge = {policy}\n")
            bed.restart("site-a")
            guest = bed.guest(**{**GUEST, "dirty": 12})
            move = bed.move(guest)
            move.wait_phase("memory")
            answer = bed.virsh("site-a", "qemu-monitor-command", guest.name,
                               '{"execute": "query-migrate-capabilities"}')
            states = {c["capability"]: c["state"] for c in json.loads(answer)["return"]}
            expect_equal(states["auto-converge"], policy == "auto-converge", f"{policy}: QEMU's auto-converge")
            expect_free(bed, "site-a")
            report = move.end().document()
            expect_equal((report["outcome"], report["stun"]["max_percent"]), ("committed", 0), f"{policy}: the end")
            wait_finished(bed, report["id"])
            expect_moved(bed, guest)
    finally:
        path.write_text(before)
        bed.restart("site-a")


if __name__ == "__main__":
    sys.exit(ferrylab.run("stun", [converges, is_left_alone, cancelled, cut, killed, auto_converge]))
