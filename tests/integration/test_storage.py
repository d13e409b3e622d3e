#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Goal: the storage half of a move when something is too slow for the guest. A guest that writes faster than
the line is slowed, told so, and moves; one that cannot be helped is freed where it is, and loses nothing. And disks are
compared when that is wanted: a target that does not give back what was written does not get the VM."""

import json
import mmap
import os
import socket
import sys

import ferrylab
from ferrylab import (PATIENCE_S, expect, expect_committed, expect_equal, expect_failed, expect_moved,
                      expect_stayed, until, wait_finished, wait_written)

MIB = 1 << 20
CONF = {"storage.log_memory": "16M", "storage.stall_limit_s": "4"}
# It writes all it can, a slow line is what holds it back.
BUSY = {"files": 24, "disk": 128, "dirty": 1, "dirty_set": 4, "iops": 4000}


def overload(bed):
    """A guest that writes more than the line carries is slowed by the link, visibly, and moves"""
    bed.line(rtt=50, rate=3)  # a guest on a slow disk writes more than that, too
    guest = bed.guest(**BUSY)
    move = bed.move(guest)
    move.wait_phase("copying")
    view = until(lambda: (v := move.view())["disk"]["guest_limit_bytes_per_s"] > 0 and
                 v["disk"]["guest_slowed_ms"].get("link", 0) > 0 and v,
                 lambda: f"the guest is not slowed: {move.view()['disk']}")
    expect_equal(view["disk"]["guest_limit_reason"], "link", "why the guest is slowed")
    text = bed.metrics("site-a")
    for name in ("ferry_move_guest_limit_bytes_per_second", "ferry_move_guest_slowed_seconds_total"):
        expect(f'{name}{{move="{move.id}"' in text, f"the metrics have no {name}")
    expect(f'ferry_move_guest_limit_bytes_per_second{{move="{move.id}"}} 0\n' not in text, "no limit in the metrics")
    bed.line(rtt=50, rate=100)  # faster than the guest: it is let go, and the move ends sooner
    report = expect_committed(move.end())
    disk = report["disk"]
    expect(disk["guest_slowed_ms"].get("link", 0) > 0, f"the report does not say that the link slowed the guest: {disk}")
    expect(disk["log_peak_bytes"] <= 16 * MIB, f"the log held {disk['log_peak_bytes']} bytes of 16 MiB")
    shown = bed.ferry("site-a", "show", report["id"], as_json=False).out
    expect("slowed: the guest" in shown and "by the link" in shown, f"ferry show does not say it: {shown}")
    wait_finished(bed, report["id"])
    expect_moved(bed, guest)


def stall(bed):
    """A line that is cut while the guest writes much: the move aborts, the guest goes on where it is"""
    bed.line(rtt=20, rate=100)
    guest = bed.guest(**{**BUSY, "disk": 192})
    move = bed.move(guest)
    move.wait_phase("copying")
    bed.cut()
    report = expect_failed(move.end(), ["write", "waited 4 s", "site-b", "held back by"])
    expect(any(f"by the {what}" in report["reason"] for what in ("link", "target disk")),
           f"the reason: {report['reason']}")
    expect("stall_limit_s" in report["error"]["mend"], f"the mend does not name the setting: {report['error']}")
    before = guest.ask("stats")["acknowledged"]
    until(lambda: guest.ask("stats")["acknowledged"] > before + 100, "the guest's writes do not go on")
    bed.mend()
    wait_finished(bed, report["id"])
    expect_stayed(bed, guest)


def histograms(bed, guest):
    """How many disks of the guest QEMU at site-a counts the writes of, by how long they take."""
    answer = bed.site("site-a").run(["virsh", "qemu-monitor-command", guest.name, '{"execute": "query-blockstats"}'],
                                    "ask QEMU for its figures")
    return sum("wr_latency_histogram" in device["stats"] for device in json.loads(answer)["return"])


def gentle(bed):
    """write_slack_ms: the copy is slowed for the sake of the guest's writes, and QEMU counts no longer than that"""
    bed.line(rtt=20, rate=1000)
    guest = bed.guest(files=100, disk=160, dirty=0, dirty_set=4, iops=100)
    move = bed.move(guest, "site-a", "site-b", "--set", "write_slack_ms=2")
    view = until(lambda: (v := move.view())["disk"]["speed_limit_reason"] == "guest" and v,
                 lambda: f"the copy is not slowed: {move.view()['disk']}")
    expect(0 < view["disk"]["speed_limit_bytes_per_s"] <= 64 * MIB, f"the copy's limit: {view['disk']}")
    expect_equal(histograms(bed, guest), 1, "disks whose writes are counted")
    expect_equal(bed.ferry("site-a", "cancel", move.id).status, 0, "exit status of cancel")
    move.end()
    wait_finished(bed, move.id)
    until(lambda: histograms(bed, guest) == 0, "disks whose writes are still counted")
    expect_stayed(bed, guest)
    begun = bed.ferry("site-a", "move", guest.name, "--to", "site-b", "--set", "write_slack_ms=2", "--detach")

    def report():
        return bed.ferry("site-a", "show", begun.document()["id"]).document()

    until(lambda: report()["finished"], lambda: f"it does not end: {report()}", 4 * PATIENCE_S)
    expect_equal(report()["outcome"], "committed", "the outcome")
    expect(report()["disk"]["copy_slowed_ms"].get("guest", 0) > 0, f"the report does not say it: {report()['disk']}")
    wait_finished(bed, report()["id"])
    expect_moved(bed, guest)


WORKING = {"files": 60, "disk": 128, "dirty": 2, "dirty_set": 8, "iops": 100}


def verified(bed):
    """move --verify: two disks are compared while the guest writes, and the report says how much"""
    bed.line(rtt=20, rate=1000)
    for form in ("raw", "qcow2"):
        guest = bed.guest(**WORKING, disks=2, format=form)
        report = expect_committed(bed.ferry("site-a", "move", guest.name, "--to", "site-b", "--verify"))
        check = report["verify"]
        expect(check["checked_bytes"] >= 2 * 128 * MIB, f"{form}: not all of both disks was compared: {check}")
        expect_equal(check["unchecked_bytes"], 0, f"{form}: bytes that were not compared")
        expect("verify:" in bed.ferry("site-a", "show", report["id"], as_json=False).out, "ferry show is silent on it")
        wait_finished(bed, report["id"])
        expect_moved(bed, guest)


def silent_client(bed):
    """A client of the NBD socket that says nothing is dropped; the move beside it goes on"""
    bed.line(rtt=20, rate=1000)
    guest = bed.guest(**WORKING)
    move = bed.move(guest, "site-a", "site-b", "--hold")
    move.wait_held()
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(next(bed.site("site-a").path(f"{ferrylab.SOCKET_DIR}/{move.id}").glob("disk.*"))))
        client.settimeout(PATIENCE_S)
        greeting = client.recv(100)
        expect(greeting.startswith(b"NBDMAGIC"), f"the endpoint greets with {greeting!r}")
        expect_equal(client.recv(100), b"", "what a silent client hears next")
    expect_equal(bed.ferry("site-a", "switchover", move.id).status, 0, "exit status of switchover")
    report = expect_committed(move.end())
    wait_finished(bed, report["id"])
    expect_moved(bed, guest)


def damage(path, offset):
    """Other bytes on the target's disk, past everybody's caches."""
    fd = os.open(path, os.O_WRONLY | os.O_DIRECT)
    try:
        block = mmap.mmap(-1, 4096)
        block.write(os.urandom(4096))
        os.pwrite(fd, block, offset)
    finally:
        os.close(fd)


def damaged(bed):
    """move --verify to a disk that does not give back what was written: aborts before the decision"""
    bed.line(rtt=20, rate=100)
    guest = bed.guest(**WORKING)
    move = bed.move(guest, "site-a", "site-b", "--verify")
    until(lambda: move.view()["disk"]["done_bytes"] > 30 * MIB, lambda: f"it does not copy: {move.view()['disk']}")
    damage(wait_written(bed, "site-b", guest, 24), 20 * MIB)
    bed.line(rtt=20, rate=1000)
    report = expect_failed(move.end(), ["differs", "site-b"])
    expect(report["error"]["mend"], f"the report does not say what to do: {report['error']}")
    wait_finished(bed, report["id"])
    expect_stayed(bed, guest)


if __name__ == "__main__":
    sys.exit(ferrylab.run("storage", [overload, stall, gentle, verified, damaged, silent_client], CONF))
