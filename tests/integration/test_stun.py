#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Goal: a guest that dirties its memory faster than the line carries it is slowed down until the move commits; one
that does not is left alone; and whatever becomes of a move, or of ferryd in the midst of it, nothing of the guest's
processor time stays taken, at either site."""

import contextlib
import json
import os
import sys

import ferrylab
from ferrylab import expect, expect_equal, expect_moved, expect_stayed, until, wait_finished
from watchers import NeverTwo

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


@contextlib.contextmanager
def configured(bed, words):
    """site-a's ferryd with these lines in [memory], started anew."""
    path = bed.site("site-a").path(ferrylab.CONFIG)
    before = path.read_text()
    path.write_text(before + f"\n[memory]\n{words}\n")
    bed.restart("site-a")
    try:
        yield
    finally:
        path.write_text(before)
        bed.restart("site-a")


def qmp(bed, site, name, command, **arguments):
    words = {"execute": command, **({"arguments": arguments} if arguments else {})}
    return json.loads(bed.virsh(site, "qemu-monitor-command", name, json.dumps(words)))["return"]


def steered(bed):
    """stun_actuator = auto-converge: QEMU's throttle, as strong as the controller says"""
    bed.line(**LINE)
    with configured(bed, "stun_actuator = auto-converge"):
        guest = bed.guest(**BUSY)
        move = bed.move(guest)
        until(lambda: move.view()["stun"]["percent"] > 0, "the guest is not slowed down")
        until(lambda: move.view()["phase"] != "memory" or
              qmp(bed, "site-a", guest.name, "query-migrate").get("cpu-throttle-percentage", 0) > 1,
              "QEMU does not throttle")
        expect_free(bed, "site-a")
        report = move.end().document()
        expect_equal((report["outcome"], report["stun"]["actuator"]), ("committed", "auto-converge"), "the end")
        wait_finished(bed, report["id"])
        expect_moved(bed, guest)


# A guest of 60 bytes: in real mode it writes a word into every page from 64 KiB to 636 KiB, for ever. It needs no
# more of a processor than any KVM has.
BARE = "bare"
ROM_BYTES = 65536
ROM_CODE = bytes.fromhex("fa"          # cli
                         "b80010"      # mov ax, 0x1000
                         "8ed8"        # mov ds, ax
                         "ff060000"    # inc word [0]
                         "050001"      # add ax, 0x100
                         "3d009f"      # cmp ax, 0x9f00
                         "72f2"        # jb to mov ds
                         "ebed")       # jmp to mov ax
ROM_RESET = bytes.fromhex("e90d00")    # at 0xfff0: jmp to 0
BARE_XML = """<domain type='kvm'><name>bare</name><memory unit='MiB'>16</memory><vcpu>1</vcpu>
<os><type arch='x86_64' machine='pc-i440fx-7.2'>hvm</type><loader readonly='yes' type='rom'>{rom}</loader></os>
<features><kvm><dirty-ring state='on' size='1024'/></kvm></features>
<devices><memballoon model='none'/><controller type='usb' model='none'/></devices></domain>
"""
ROM = f"{ferrylab.IMAGES}/bare.rom"


def _start_bare(bed):
    rom = bytearray(b"\xf4" * ROM_BYTES)
    rom[:len(ROM_CODE)] = ROM_CODE
    rom[0xfff0:0xfff0 + len(ROM_RESET)] = ROM_RESET
    for site in ("site-a", "site-b"):
        bed.site(site).path(ROM).write_bytes(rom)
    bed.site("site-a").path("/run/bare.xml").write_text(BARE_XML.format(rom=ROM))
    try:
        bed.virsh("site-a", "define", "/run/bare.xml")
        bed.virsh("site-a", "start", BARE)
        qmp(bed, "site-a", BARE, "set-vcpu-dirty-limit", **{"dirty-rate": 1})
        limits_set = qmp(bed, "site-a", BARE, "query-vcpu-dirty-limit")
        qmp(bed, "site-a", BARE, "cancel-vcpu-dirty-limit")
    except (ferrylab.LabError, KeyError) as e:
        return str(e)
    expect_equal([cpu["limit-rate"] for cpu in limits_set], [1], "the limit that QEMU was told")
    expect(not qmp(bed, "site-a", BARE, "query-vcpu-dirty-limit"), "the limit stays")
    return None


def _remove_bare(bed):
    for site in ("site-a", "site-b"):
        for words in (("destroy", BARE), ("undefine", BARE)):
            with contextlib.suppress(ferrylab.LabError):
                bed.virsh(site, *words)
        bed.site(site).path(ROM).unlink(missing_ok=True)


def dirty_limit(bed):
    """A guest with KVM's dirty ring: QEMU takes the commands that limit its dirty rate, ferry chooses them, and the
    guest moves (it has too little memory to be in need of them)"""
    if not os.path.exists("/dev/kvm"):
        print("     skipped: this machine has no /dev/kvm")
        return
    try:
        why = _start_bare(bed)
        if why:
            print(f"     skipped: KVM runs no guest with a dirty ring here: {why.splitlines()[0]}")
            return
        bed.line(rtt=20, rate=100)
        move_id = bed.ferry("site-a", "move", BARE, "--to", "site-b", "--hold", "--detach").document()["id"]
        until(lambda: f"({BARE}): to slow the guest down: dirty-limit" in bed.ferryd_log("site-a"),
              "ferryd does not choose the dirty limit")
        bed.ferry("site-a", "switchover", move_id)
        expect_equal(wait_finished(bed, move_id)["site-a"]["outcome"], "committed", "the outcome")
        expect_equal(bed.domains("site-b").get(BARE), "running", "the guest at the target")
        expect(not qmp(bed, "site-b", BARE, "query-vcpu-dirty-limit"), "the target's copy is limited")
    finally:
        _remove_bare(bed)


def auto_converge(bed):
    """[memory] converge = auto-converge leaves it to QEMU, none to the downtime"""
    bed.line(**LINE)
    for policy in ("auto-converge", "none"):
        with configured(bed, f"converge = {policy}"):
            guest = bed.guest(**{**GUEST, "dirty": 12})
            move = bed.move(guest)
            move.wait_phase("memory")
            states = {c["capability"]: c["state"]
                      for c in qmp(bed, "site-a", guest.name, "query-migrate-capabilities")}
            expect_equal(states["auto-converge"], policy == "auto-converge", f"{policy}: QEMU's auto-converge")
            expect_free(bed, "site-a")
            report = move.end().document()
            expect_equal((report["outcome"], report["stun"]["max_percent"]), ("committed", 0), f"{policy}: the end")
            wait_finished(bed, report["id"])
            expect_moved(bed, guest)


if __name__ == "__main__":
    sys.exit(ferrylab.run("stun", [converges, is_left_alone, cancelled, cut, killed, steered, dirty_limit,
                                   auto_converge]))
