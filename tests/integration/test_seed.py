#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Goal: what the target holds of a disk from earlier does not cross the line again. A VM that comes back finds its old
disks, raw and qcow2, an operator's choice is used, and an old copy that is in use, damaged, or of another kind costs
nothing but the line; the disks are right in every case."""

import contextlib
import os
import pathlib
import random
import signal
import subprocess
import sys

import ferrylab
from ferrylab import expect, expect_committed, expect_equal, expect_moved, process, until, wait_finished

MIB = 1 << 20
FOLDER = "/var/lib/libvirt"
WORKING = {"files": 60, "disk": 128, "dirty": 1, "dirty_set": 4, "iops": 50}
LINE = {"rtt": 20, "rate": 1000}


def move(bed, guest, source, target):
    """A verified move: the disks are compared on the way, and the guest's witness afterwards."""
    result = bed.ferry(source, "move", guest.name, "--to", target, "--verify")
    report = expect_committed(result)
    wait_finished(bed, report["id"])
    expect_moved(bed, guest, target)
    return report["disk"]


def old_disk(bed, site, guest):
    return bed.site(site).path(guest.record()["disks"][0] + ".ferry-old")


def there_and_back(bed):
    """A VM that moves on and back is sent once: then each side has a copy, until the next is the VM's"""
    bed.line(**LINE)
    guest = bed.guest(**{**WORKING, "iops": 5}, format="qcow2")  # what it writes meanwhile is sent anew
    first = move(bed, guest, "site-a", "site-b")
    expect_equal(first["seed_bytes"], 0, "bytes from a seed in the first move")
    expect(old_disk(bed, "site-a", guest).exists(), "no old disk was kept")
    back = move(bed, guest, "site-b", "site-a")
    expect(back["seed_bytes"] > 0.8 * first["bytes"], f"little came from the seed: {back}, first {first}")
    expect(back["wire_bytes"] < 0.2 * first["wire_bytes"], f"much was sent: {back}, first {first}")
    past = max(bed.moves("site-b"), key=lambda m: m["started_ms"])["id"]
    shown = bed.ferry("site-b", "show", past, as_json=False).out
    expect("of it there already" in shown, f"ferry show is silent on the seed: {shown}")
    expect(not old_disk(bed, "site-a", guest).exists(), "the used seed is still there")
    expect(old_disk(bed, "site-b", guest).exists(), "no old disk at site-b")


def wanted(bed, source="site-a"):
    """A guest at @source whose old disk lies at the other site."""
    bed.line(**LINE)
    guest = bed.guest(**WORKING)
    if guest.states() == {"site-a": "running"}:
        move(bed, guest, "site-a", "site-b")
    if source == "site-a":
        move(bed, guest, "site-b", "site-a")
    expect(old_disk(bed, bed.other(source), guest).exists(), "no old disk was kept")
    return guest


def damaged(bed):
    """A seed that has changed in many places gives what it has, and the disk is right"""
    guest = wanted(bed, "site-b")
    chance = random.Random(7)
    with open(old_disk(bed, "site-a", guest), "r+b") as disk:
        for _ in range(300):
            disk.seek(chance.randrange(80 * MIB))
            disk.write(chance.randbytes(3000))
    disk = move(bed, guest, "site-b", "site-a")
    expect(disk["seed_bytes"] > 0.7 * disk["bytes"], f"little came from the seed: {disk}")
    text = bed.ferryd_log("site-a")
    expect("is not sent again" in text, "the target's log does not say that there is a seed")


def in_use(bed):
    """An old disk that somebody has open for writing is no seed: everything is sent, and the log says so"""
    guest = wanted(bed, "site-a")
    path = guest.record()["disks"][0] + ".ferry-old"
    holder = subprocess.Popen(bed.site("site-b").enter(["qemu-io", "-f", "raw", path]), stdin=subprocess.PIPE,
                              stdout=subprocess.DEVNULL)
    try:
        until(lambda: "qemu-io" in os.readlink(f"/proc/{holder.pid}/exe") and
              any(path in os.readlink(f"/proc/{holder.pid}/fd/{fd}") for fd in os.listdir(f"/proc/{holder.pid}/fd")),
              "the old disk is not open")
        disk = move(bed, guest, "site-a", "site-b")
    finally:
        holder.communicate()
    expect_equal(disk["seed_bytes"], 0, "bytes from a seed that is in use")
    expect(f"{path} is no seed: it is in use" in bed.ferryd_log("site-b"), "the target's log does not say it")


def chosen(bed):
    """[seeds] names a file for a disk; it stays"""
    guest = wanted(bed, "site-b")
    template = bed.site("site-a").path(f"{FOLDER}/template.raw")
    old_disk(bed, "site-a", guest).rename(template)
    with bed.configured("site-a", lambda text: f"{text}\n[seeds]\nv*/vda = {FOLDER}/template.raw\n"):
        disk = move(bed, guest, "site-b", "site-a")
    expect(disk["seed_bytes"] > 0.7 * disk["bytes"], f"little came from the named seed: {disk}")
    expect(template.exists(), "the named seed was removed")
    template.unlink()


def killed(bed):
    """The server that reads the seed is killed: the rest is sent"""
    guest = wanted(bed, "site-a")
    bed.line(rtt=100, rate=100)
    under_way = bed.move(guest, "site-a", "site-b", "--verify")

    def server():
        for pid in process.with_mount_source(bed.site("site-b").mark):
            with contextlib.suppress(OSError):
                words = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
                if words[0] == b"qemu-nbd" and words[-2].decode() == guest.record()["disks"][0] + ".ferry-old":
                    return pid
        return None

    pid = until(server, "nobody reads the seed")
    until(lambda: under_way.view()["disk"]["seed_bytes"] > 4 * MIB or under_way.view()["finished"], "it does not copy")
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    bed.line(**LINE)
    report = expect_committed(under_way.end())
    wait_finished(bed, report["id"])
    expect_moved(bed, guest)
    until(lambda: server() is None, "the server of the seed is still there")


if __name__ == "__main__":
    sys.exit(ferrylab.run("seed", [there_and_back, damaged, in_use, chosen, killed]))
