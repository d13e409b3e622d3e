#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Goal: memory goes from QEMU to QEMU where both sites allow it, over parallel connections, without copies where the
host can; what excludes it is settled and said; and whatever ends such a move, the guest is whole in one place."""

import pathlib
import sys

import ferrylab
from ferrylab import expect, expect_equal, expect_moved, expect_rehearsed, expect_stayed, until, wait_finished
from modecases import BUSY, distrusting, moved, settings, substituted, trusting
from watchers import NeverTwo

LIKE = ferrylab.SMALL_GUEST


def direct(bed):
    """Memory from QEMU to QEMU over parallel connections: not through the link, and decided as ever"""
    trusting(bed, "site-a", "site-b")
    try:
        guest = bed.guest(**BUSY)
        report = moved(bed, guest, "--policy", "lan-direct")
        expect_equal(substituted(report), {}, "substitutions")
        expect_equal((settings(report)["memory_path"], settings(report)["parallel"]), ("direct", "auto"), "the path")
        memory, link = report["memory"], report["link"]
        expect(memory["bytes"] > 8 << 20 and link["wire_bytes"] < report["disk"]["wire_bytes"] + memory["bytes"],
               f"memory {memory}, link {link}")
        expect(report["downtime_ms"] >= 0, "no downtime is known")
        guest = bed.guest(**LIKE)
        report = moved(bed, guest, "--set", "memory_path=direct")
        expect_equal(substituted(report), {"compression": ("ferry", "none"), "converge": ("stun", "auto-converge")},
                     "one connection, ferry's own means left out")
    finally:
        distrusting(bed, "site-a", "site-b")


# A machine without a disk and with so little memory that QEMU may lock all of it, whatever libvirtd is allowed.
TINY = "tiny"
TINY_XML = """<domain type='qemu'><name>tiny</name><memory unit='MiB'>4</memory><vcpu>1</vcpu>
<os><type arch='x86_64' machine='pc-i440fx-7.2'>hvm</type></os>
<devices><memballoon model='none'/><controller type='usb' model='none'/></devices></domain>
"""
CAP_SYS_RESOURCE = 24


def may_lock(bed):
    """Whether site-a's libvirtd may let QEMU lock a guest's memory."""
    pid = bed.site("site-a").libvirtd.pid()
    line = next(line for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines() if "CapEff" in line)
    return bool(int(line.split()[1], 16) >> CAP_SYS_RESOURCE & 1)


def zero_copy(bed):
    """Zero-copy where the host can, with parallel turned on when it is missing; where it cannot, without"""
    trusting(bed, "site-a", "site-b")
    path = bed.site("site-a").path("/run/tiny.xml")
    path.write_text(TINY_XML)
    try:
        for words, wanted in (((), {}), (("--set", "parallel=off"), {"parallel": ("off", "auto")})):
            bed.virsh("site-a", "create", "/run/tiny.xml")
            result = bed.ferry("site-a", "move", TINY, "--to", "site-b", "--policy", "very-large", *words)
            expect_equal(result.status, 0, f"exit status of the tiny machine's move ({result})")
            report = result.document()
            expect_equal((substituted(report), settings(report)["zero_copy"]), (wanted, "yes"), "zero-copy")
            wait_finished(bed, report["id"])
            expect_equal(bed.domains("site-b").get(TINY), "running", "the tiny machine at the target")
            expect(TINY not in bed.domains("site-a"), "it is at the source, too")
            bed.virsh("site-b", "destroy", TINY)
        guest = bed.guest(**LIKE)
        wanted = {} if may_lock(bed) else {"zero_copy": ("yes", "no")}
        report = moved(bed, guest, "--policy", "very-large")
        expect_equal(substituted(report), wanted, "what becomes of a guest that is larger than the limit")
        expect_equal(settings(report)["memory_path"], "direct", "its memory's path")
    finally:
        for site in ("site-a", "site-b"):
            if TINY in bed.domains(site):
                bed.virsh(site, "destroy", TINY)
        distrusting(bed, "site-a", "site-b")


def held_and_direct(bed):
    """A held move goes through the link; so does a drill, and a move whose disks are compared"""
    trusting(bed, "site-a", "site-b")
    try:
        guest = bed.guest(**LIKE)
        started = bed.ferry("site-a", "move", guest.name, "--to", "site-b", "--policy", "lan-direct", "--hold",
                            "--detach").document()

        def view():
            return bed.api("site-a", "GET", f"/v1/moves/{started['id']}")[1]

        until(lambda: view()["held"], lambda: f"it is never held: {view()}")
        expect_equal(substituted(view())["memory_path"], ("direct", "tunnel"), "the path of a held move")
        expect_equal(bed.ferry("site-a", "cancel", started["id"]).status, 0, "exit status of cancel")
        wait_finished(bed, started["id"])
        expect_stayed(bed, guest)
        result = bed.ferry("site-a", "drill", guest.name, "--to", "site-b", "--policy", "lan-direct")
        expect_equal(result.status, 0, f"exit status of drill ({result})")
        expect_equal(substituted(result.document())["memory_path"], ("direct", "tunnel"), "the path of a drill")
        wait_finished(bed, result.document()["id"])
        expect_rehearsed(bed, guest)
        report = moved(bed, guest, "--policy", "lan-direct", "--verify")
        expect_equal(substituted(report)["memory_path"], ("direct", "tunnel"), "the path of a move that is verified")
    finally:
        distrusting(bed, "site-a", "site-b")


def direct_and_cancelled(bed):
    """A move whose memory goes directly is cancelled in the midst of it: the guest stays, nothing is left"""
    trusting(bed, "site-a", "site-b")
    try:
        bed.line(rtt=20, rate=40)
        guest = bed.guest(**{**BUSY, "dirty": 2})
        move = bed.move(guest, "site-a", "site-b", "--policy", "lan-direct", "--bwlimit", "16M")
        move.wait_phase("memory")
        expect_equal(bed.ferry("site-a", "cancel", move.id).status, 0, "exit status of cancel")
        expect_equal(move.end().document()["outcome"], "aborted", "the outcome")
        wait_finished(bed, move.id)
        expect_stayed(bed, guest)
    finally:
        distrusting(bed, "site-a", "site-b")


# As in test_recovery.py: where a ferryd dies, and where the VM must run in the end.
FAILPOINTS = (
    ("source", "before-commit-journal", "source"),
    ("source", "after-reply", "target"),
    ("target", "after-prepared-journal", "source"),
    ("target", "after-committed-journal", "target"),
)


def direct_at_failpoint(role, name, where):
    def case(bed):
        victim = "site-a" if role == "source" else "site-b"
        trusting(bed, "site-a", "site-b")
        try:
            guest = bed.guest(**ferrylab.QUIET_GUEST)
            old = ferrylab.old_disks(bed, "site-b")
            bed.restart(victim, f"{name}:kill")
            with NeverTwo(bed, guest.name):
                move = bed.move(guest, "site-a", "site-b", "--policy", "lan-direct")
                expect(move.id, "the move has no id")
                bed.wait_dead(victim)
                bed.start(victim)
                move.end()
                views = wait_finished(bed, move.id)
            expect_equal({v["outcome"] for v in views.values()}, {"committed" if where == "target" else "aborted"},
                         "the outcome")
            if where == "target":
                expect_moved(bed, guest)
            else:
                expect_stayed(bed, guest, "site-a", old)
        finally:
            distrusting(bed, "site-a", "site-b")

    case.__name__ = f"direct_{role}_{name.replace('-', '_')}"
    case.__doc__ = f"Direct memory, and the {role}'s ferryd is killed at {name}: the VM runs at the {where}"
    return case


if __name__ == "__main__":
    sys.exit(ferrylab.run("direct", [direct, zero_copy, held_and_direct, direct_and_cancelled,
                                     *[direct_at_failpoint(*words) for words in FAILPOINTS]]))
