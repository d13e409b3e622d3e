#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Goal: ten moves back and forth in a row (fifty with --all), under load, leave nothing behind: after each the witness
misses nothing; at the end neither ferryd nor either site holds more than after the first two (which fill caches and
pools): descriptors, threads, memory, files, socket folders, processes, zombies. libvirtd's and QEMU's own
descriptors are not looked at."""

import os
import pathlib
import re
import sys
import time

import ferrylab
from ferrylab import IMAGES, expect, expect_committed, expect_equal, expect_moved, until, wait_finished

MOVES = 50 if "--all" in sys.argv else 10
LIMIT_S = ferrylab.TEST_LIMIT_S if MOVES == 10 else 3600
# The allocator gives back what is free, so that the resident size tells what is held, not what once was.
ENVIRONMENT = {"GLIBC_TUNABLES": "glibc.malloc.mmap_threshold=65536:glibc.malloc.trim_threshold=65536:"
                                 "glibc.malloc.arena_max=1"}
WARM_UP = 2
RSS_GROWTH_KIB = 6 << 10
# Of these, what a site has must not depend on how many VMs have come and gone.
FOLDERS = ("/run/ferry", ferrylab.SOCKET_DIR, "/var/lib/ferry", IMAGES, "/etc/libvirt/qemu", "/run/libvirt/qemu",
           "/var/lib/libvirt/qemu")


def status(pid, key):
    text = pathlib.Path(f"/proc/{pid}/status").read_text()
    return int(re.search(rf"^{key}:\s+(\d+)", text, re.MULTILINE)[1])


def zombies(bed, site):
    """Ended children of the site's daemons that nobody has waited for."""
    parents = {bed.ferryd_pid(site), bed.site(site).libvirtd.pid()}
    found = []
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            fields = pathlib.Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if fields[0] == "Z" and int(fields[1]) in parents:
            found.append(int(entry))
    return found


def files(bed, site):
    """Every file below the folders, with numbers (of domains, of the journal's neighbours) left out."""
    found = set()
    for folder in FOLDERS:
        top = bed.site(site).path(folder)
        for path, _, names in os.walk(top):
            below = os.path.relpath(path, top)
            found |= {re.sub(r"\d+", "N", f"{folder}/{below}/{name}") for name in [*names, ""]}
    return found


def held(bed, site):
    pid = bed.ferryd_pid(site)
    fds = []
    for name in os.listdir(f"/proc/{pid}/fd"):
        try:
            fds.append(re.sub(r"\d+", "N", os.readlink(f"/proc/{pid}/fd/{name}")))
        except OSError:
            continue  # closed meanwhile
    return {"descriptors": sorted(fds), "threads": status(pid, "Threads"), "rss_kib": status(pid, "VmRSS"),
            "files": files(bed, site)}


def sessions(bed, site):
    """Established TCP connections of the site: an idle session is closed after a while."""
    table = pathlib.Path(f"/proc/{bed.ferryd_pid(site)}/net/tcp").read_text().splitlines()[1:]
    return [line.split()[1] for line in table if line.split()[3] == "01"]


def quiet(bed, site):
    """What a ferryd holds when nothing goes on any more, not even an idle session."""
    until(lambda: all(m["finished"] for m in bed.moves(site)) and not bed.socket_folders(site),
          lambda: f"{site} is not done: {bed.moves(site)}, {bed.socket_folders(site)}")
    until(lambda: not sessions(bed, site), lambda: f"connections of {site} stay open: {sessions(bed, site)}")
    time.sleep(1)  # for the API's own connection that asked, and threads that end
    return held(bed, site)


def round_of_two(bed, guest):
    for source, target in (("site-a", "site-b"), ("site-b", "site-a")):
        report = expect_committed(bed.move(guest, source, target).end())
        wait_finished(bed, report["id"])
        expect_moved(bed, guest, target)
        for site in ("site-a", "site-b"):
            until(lambda: not zombies(bed, site), lambda: f"zombies at {site}: {zombies(bed, site)}", 10)


def to_and_fro(bed):
    """Moves in a row, nothing lost, nothing leaked"""
    for site in ("site-a", "site-b"):
        bed.restart(site, env=ENVIRONMENT)
    guest = bed.guest(files=40, disk=96, dirty=8, dirty_set=16, iops=60)
    before = None
    for n in range(0, MOVES, 2):
        round_of_two(bed, guest)
        if n + 2 == WARM_UP:
            before = {site: quiet(bed, site) for site in ("site-a", "site-b")}
    for site, was in before.items():
        now = quiet(bed, site)
        grown = {}
        for name in set(now["descriptors"]):
            more = now["descriptors"].count(name) - was["descriptors"].count(name)
            if more > 0:
                grown[name] = more
        expect(len(now["descriptors"]) <= len(was["descriptors"]),
               f"ferryd of {site} had {len(was['descriptors'])} descriptors, has {len(now['descriptors'])}: {grown}")
        expect(now["threads"] <= was["threads"], f"ferryd of {site} had {was['threads']} threads, has {now['threads']}")
        print(f"    {site}: {len(now['descriptors'])} descriptors, {now['threads']} threads, RSS {was['rss_kib']} KiB "
              f"after {WARM_UP} moves, {now['rss_kib']} KiB after {MOVES}")
        expect(now["rss_kib"] <= was["rss_kib"] + RSS_GROWTH_KIB,
               f"ferryd of {site} grew from {was['rss_kib']} to {now['rss_kib']} KiB in {MOVES - WARM_UP} moves")
        expect_equal(sorted(now["files"] - was["files"]), [], f"new files at {site}")
        remembered = bed.moves(site)
        expect_equal(len(remembered), MOVES, f"moves remembered at {site}")
        expect(all(m["outcome"] == "committed" and m["finished"] for m in remembered),
               f"moves at {site}: {[(m['outcome'], m['finished']) for m in remembered]}")


if __name__ == "__main__":
    sys.exit(ferrylab.run_all("to-and-fro", [to_and_fro], None, LIMIT_S))
