#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Goal: what the target holds of a disk from earlier does not cross the line again. A VM that comes back finds its old
disks, raw and qcow2, an operator's choice is used, and an old copy that is in use, damaged, or of another kind costs
nothing but the line; the disks are right in every case."""

import os
import random
import sys

import ferrylab
from ferrylab import IMAGES, expect, expect_committed, expect_equal, expect_moved, until, wait_finished

MIB = 1 << 20
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
    for form in ("raw", "qcow2"):
        guest = bed.guest(**WORKING, format=form)
        first = move(bed, guest, "site-a", "site-b")
        expect_equal(first["seed_bytes"], 0, f"{form}: bytes from a seed in the first move")
        expect(old_disk(bed, "site-a", guest).exists(), f"{form}: no old disk was kept")
        back = move(bed, guest, "site-b", "site-a")
        expect(back["seed_bytes"] > 0.8 * first["bytes"], f"{form}: little came from the seed: {back}, first {first}")
        expect(back["wire_bytes"] < 0.2 * first["wire_bytes"], f"{form}: much was sent: {back}, first {first}")
        expect(not old_disk(bed, "site-a", guest).exists(), f"{form}: the used seed is still there")
        expect(old_disk(bed, "site-b", guest).exists(), f"{form}: no old disk at site-b")
        guest.stop()


if __name__ == "__main__":
    sys.exit(ferrylab.run("seed", [there_and_back]))
