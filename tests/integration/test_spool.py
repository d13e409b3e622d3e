#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Goal: a spool carries a guest's writes over an outage that memory alone would not: the guest does not wait, the
move completes, nothing is lost and nothing is left in the spool's folder. A spool without room only means that
there is none."""

import sys
import time

import ferrylab
from ferrylab import expect, expect_committed, expect_equal, expect_moved, small_folder, until, wait_finished

FOLDER = "/var/cache/libvirt"
CONF = {"storage.log_memory": "64M", "storage.stall_limit_s": "5", "storage.spool": FOLDER,
        "storage.spool_size": "1G"}
BUSY = {"files": 60, "disk": 192, "dirty": 1, "dirty_set": 4, "iops": 800}
CUT_S = 12


def outage(bed):
    """A cut longer than a write may wait, in the copy: the spool takes what the guest writes"""
    bed.line(rtt=20, rate=100)
    guest = bed.guest(**BUSY)
    move = bed.move(guest)
    move.wait_phase("copying")
    bed.cut()
    before = guest.ask("stats")["acknowledged"]
    time.sleep(CUT_S)
    acknowledged = guest.ask("stats")["acknowledged"] - before
    view = move.view()
    bed.mend()
    expect_equal(view["outcome"], "running", f"the move in the cut: {view['reason']}; {view['disk']}")
    expect(view["disk"]["spool_bytes"] > 0, f"nothing is on the spool: {view['disk']}")
    expect(acknowledged > 100, f"only {acknowledged} writes were acknowledged in the cut")
    report = expect_committed(move.end())
    expect(report["disk"]["spooled_bytes"] > 0, f"the report does not know of the spool: {report['disk']}")
    expect_equal(report["disk"]["spool_bytes"], 0, "bytes on the spool at the end")
    wait_finished(bed, report["id"])
    expect_moved(bed, guest)
    expect_equal(spools(bed), [], "files of the spool in its folder")


def spools(bed):
    return [path.name for path in bed.site("site-a").path(FOLDER).glob("ferry-spool*")]


def no_room(bed):
    """A spool whose folder is full: said once, and the move goes on without"""
    with small_folder(bed, "site-a", FOLDER, 1):
        bed.restart("site-a")
        bed.line(rtt=20, rate=20)
        guest = bed.guest(**{**BUSY, "disk": 128})
        move = bed.move(guest)
        until(lambda: "the spool cannot be written: No space left" in bed.ferryd_log("site-a"),
              lambda: f"the full spool is not noticed: {move.view()['disk']}")
        bed.line(rtt=20, rate=200)
        report = expect_committed(move.end())
        wait_finished(bed, report["id"])
        expect_moved(bed, guest)
        bed.lab.ferryds["site-a"].stop()


if __name__ == "__main__":
    sys.exit(ferrylab.run("spool", [outage, no_room], CONF))
