#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Goal: each way of moving that a policy can choose moves a guest whole: ferry's codec, XBZRLE with a cache that can
be changed meanwhile, auto-converge, no help at all, and memory from QEMU to QEMU, over parallel connections, without
copies; and where something cannot be had, the nearest is taken, said, and the move goes on."""

import json
import pathlib
import sys

import ferrylab
from ferrylab import (NeverTwo, expect, expect_equal, expect_moved, expect_stayed, expect_words, until, wait_finished)

LIKE = ferrylab.SMALL_GUEST
# Rounds for a few seconds.
BUSY = {"memory": 256, "files": 8, "disk": 64, "dirty_set": 64, "iops": 20, "dirty": 20}
LINE = {"rtt": 20, "rate": 200}


def qmp(bed, site, name, command):
    return json.loads(bed.virsh(site, "qemu-monitor-command", name, json.dumps({"execute": command})))["return"]


def capabilities(bed, name):
    return {c["capability"] for c in qmp(bed, "site-a", name, "query-migrate-capabilities") if c["state"]}


def trusting(bed, *sites):
    """Configurations in which memory may go without encryption to and from these sites' peers."""
    for site in sites:
        path = bed.site(site).path(ferrylab.CONFIG)
        path.write_text(path.read_text().replace("allow = move-here", "allow = direct-memory move-here"))
        bed.reload(site)


def distrusting(bed, *sites):
    for site in sites:
        path = bed.site(site).path(ferrylab.CONFIG)
        path.write_text(path.read_text().replace("direct-memory ", ""))
        bed.reload(site)


def moved(bed, guest, *words, at_memory=None):
    """The report of a move that commits, with the guest whole at the target and never in two places."""
    with NeverTwo(bed, guest.name):
        move = bed.move(guest, "site-a", "site-b", *words)
        if at_memory:
            move.wait_phase("memory")
            at_memory(move)
        result = move.end()
    expect_equal(result.status, 0, f"exit status of move {words} ({result})")
    report = result.document()
    wait_finished(bed, report["id"])
    expect_moved(bed, guest)
    return report


def settings(report):
    return {key: s["value"] for key, s in report["policy"]["settings"].items()}


def substituted(report):
    for s in report["policy"]["substitutions"]:
        expect(s["why"], f"a substitution without a reason: {s}")
    return {s["setting"]: (s["wanted"], s["taken"]) for s in report["policy"]["substitutions"]}


def xbzrle(bed):
    """XBZRLE: QEMU compresses, ferry's codec does not, and the cache can be changed while memory is sent"""
    bed.line(**LINE)
    guest = bed.guest(**BUSY)
    result = bed.ferry("site-a", "move", guest.name, "--to", "site-b", "--set", "compression=xbzrle", "--set",
                       "time_limit_s=600", "--detach")
    expect_equal(result.status, 0, f"exit status of move ({result})")
    move_id = result.document()["id"]

    def view():
        return bed.api("site-a", "GET", f"/v1/moves/{move_id}")[1]

    until(lambda: view()["phase"] not in ("preparing", "copying", "mirroring"), "no memory is sent")
    expect("xbzrle" in capabilities(bed, guest.name), "QEMU does not use XBZRLE")
    expect_equal(qmp(bed, "site-a", guest.name, "query-migrate-parameters")["xbzrle-cache-size"], 64 << 20, "the cache")
    result = bed.ferry("site-a", "set", move_id, "xbzrle_cache=128M")
    expect_equal(result.status, 0, f"exit status of set ({result})")
    until(lambda: view()["outcome"] != "running" or
          qmp(bed, "site-a", guest.name, "query-migrate-parameters")["xbzrle-cache-size"] == 128 << 20,
          "the cache keeps its size")
    report = wait_finished(bed, move_id)["site-a"]
    expect_equal((report["outcome"], settings(report)["compression"], settings(report)["xbzrle_cache"]),
                 ("committed", "xbzrle", "128M"), "the report")
    expect("codec" not in report["memory"], f"ferry's codec is at work, too: {report['memory']}")
    expect_moved(bed, guest)


def auto_converge(bed):
    """Auto-converge with its steps: QEMU is told them, and ferry does not stun"""
    bed.line(**LINE)
    guest = bed.guest(**BUSY)

    def look(move):
        if "auto-converge" not in capabilities(bed, guest.name) and move.view()["outcome"] == "running":
            raise ferrylab.Failed("QEMU does not auto-converge")
        parameters = qmp(bed, "site-a", guest.name, "query-migrate-parameters")
        expect_equal((parameters["cpu-throttle-initial"], parameters["cpu-throttle-increment"]), (33, 7), "its steps")

    report = moved(bed, guest, "--set", "converge=auto-converge", "--set", "auto_converge_initial=33", "--set",
                   "auto_converge_increment=7", at_memory=look)
    expect_equal((report["stun"]["max_percent"], settings(report)["converge"]), (0, "auto-converge"), "the report")


def no_help(bed):
    """Neither codec nor stun"""
    guest = bed.guest(**LIKE)
    report = moved(bed, guest, "--set", "converge=none", "--set", "compression=none")
    expect("codec" not in report["memory"] and report["stun"]["max_percent"] == 0, f"the report: {report}")
    expect_equal(report["policy"]["substitutions"], [], "substitutions")


def each_policy(bed):
    """Every shipped policy moves a guest"""
    for policy in [p["name"] for p in bed.ferry("site-a", "policies").document()["policies"]]:
        guest = bed.guest(**LIKE)
        report = moved(bed, guest, "--policy", policy)
        expect_equal(report["policy"]["name"], policy, "the report's policy")


def encrypted(bed):
    """Direct memory that one site does not allow: all of it goes through the link, and that is said"""
    guest = bed.guest(**LIKE)
    wanted = {"memory_path": ("direct", "tunnel"), "zero_copy": ("yes", "no"), "parallel": ("auto", "off")}
    try:
        for trusts in ((), ("site-a",), ("site-b",)):
            trusting(bed, *trusts)
            guest = bed.guest(**LIKE)
            report = moved(bed, guest, "--policy", "very-large")
            distrusting(bed, *trusts)
            expect_equal(substituted(report), wanted, f"what was taken when {trusts or 'nobody'} trusts")
            expect(report["memory"]["wire_bytes"] > 1 << 20, f"its memory did not cross the link: {report['memory']}")
    finally:
        distrusting(bed, "site-a", "site-b")
    shown = bed.ferry("site-a", "show", report["id"], as_json=False).out
    expect_words(shown, ["memory_path tunnel instead of direct", "zero_copy no instead of yes"], "show")
    expect_words(bed.ferryd_log("site-a"), ["memory_path tunnel instead of direct"], "the log")


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
    """A held move goes through the link; so does a drill"""
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
        expect_stayed(bed, guest)
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
    sys.exit(ferrylab.run("modes", [xbzrle, auto_converge, no_help, each_policy, encrypted, direct, zero_copy,
                                    held_and_direct, direct_and_cancelled,
                                    *[direct_at_failpoint(*words) for words in FAILPOINTS]]))
