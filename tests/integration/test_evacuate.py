#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Goal: an evacuation says its plan, moves the VMs of a host several at a time, takes none meanwhile, says why those
stay that no site takes, can be stopped and resumed, and loses nothing."""

import subprocess
import sys

import ferrylab
from ferrylab import (IMAGES, PATIENCE_S, Result, built, expect, expect_equal, expect_well, expect_words, small_images,
                      until)

LIKE = {"memory": 128, "files": 40, "disk": 64, "dirty": 0, "dirty_set": 8, "iops": 5}
NAMES = [f"vm{n}" for n in range(1, 7)]
# Three of the VMs and what the target keeps free; not four.
ROOM_MIB = 215


def start(bed, *words):
    return subprocess.Popen(bed.site("site-a").enter([built("tools/ferry/ferry"), "--json", "evacuate", *words]),
                            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def end(child):
    out, err = child.communicate(timeout=3 * PATIENCE_S)
    return Result(child.returncode, out, err)


def view(bed):
    return bed.api("site-a", "GET", "/v1/evacuation")[1]


def limit(bed, rate):
    """What crosses to site-b, in all: by 1M nothing ends."""
    result = bed.ferry("site-a", "bwlimit", "site-b", rate)
    expect_equal(result.status, 0, f"exit status of bwlimit {rate} ({result})")


def moved(bed):
    return [vm["domain"] for vm in view(bed).get("vms", ()) if vm["state"] == "moved"]


def plan(bed):
    """The plan alone: every VM with its predicted time, and nothing moves"""
    for name in NAMES:
        bed.guest(name, **LIKE)
    result = bed.ferry("site-a", "evacuate", "--to", "site-b", "--jobs", "3", "--first", "vm2", "--dry-run")
    found = result.document()
    expect_equal((result.status, found["state"]), (0, "planned"), f"exit status and state ({result})")
    expect_equal(sorted(vm["domain"] for vm in found["vms"]), NAMES, "the VMs of the plan")
    expect(all(vm["predicted_ms"] > 0 for vm in found["vms"]) and found["eta_s"] > 0, f"no predicted times: {found}")
    expect_equal((bed.moves("site-a"), bed.domains("site-b")), ([], {}), "what a plan has moved")
    expect_equal(found["vms"][0]["domain"], "vm2", "what goes first")
    words = bed.ferry("site-a", "evacuate", "--show", as_json=False)
    expect_words(words.out, ["The plan, 3 at a time", "vm6"], "the plan for people")
    expect(bed.ferry("site-a", "evacuate", "--to", "nowhere").status != 0, "an evacuation to nowhere")
    expect_equal(bed.ferry("site-a", "evacuate").status, 2, "exit status without --to")


def full_target(bed):
    """The target is full after three of six: three remain and it says why; then there is room, and it is resumed"""
    guests = [bed.guest(name, **LIKE) for name in NAMES]
    for name in NAMES:
        bed.made[name] = None
    with small_images(bed, "site-b", ROOM_MIB):
        child = start(bed, "--to", "site-b", "--jobs", "2", "--first", "vm4")
        until(lambda: "vm4" in moved(bed), lambda: f"it does not move: {view(bed)}")
        expect_equal(view(bed)["vms"][0]["domain"], "vm4", "what goes first")
        result = end(child)
        report = result.document()
        expect_equal((result.status, report["state"], report["moved"], report["stay"]), (1, "done", 3, 3),
                     f"the end ({report})")
        for vm in report["vms"]:
            at = "site-b" if vm["state"] == "moved" else "site-a"
            expect_equal(ferrylab.Guest(bed.lab, vm["domain"]).states(), {at: "running"}, f"where {vm['domain']} runs")
            if vm["state"] == "stays":
                expect_words(vm["reason"], ["site-b", "MiB", "free"], "why it stays")

        bed.site("site-b").run(["mount", "-o", "remount,size=600m", IMAGES], "make room")
        limit(bed, "1M")
        child = start(bed, "--resume")
        until(lambda: view(bed)["state"] == "running", lambda: f"it does not go on: {view(bed)}")
        taken = bed.ferry("site-a", "evacuate", "--stop", "--detach")
        expect("waiting" in taken.document(), f"the stop is not taken ({taken})")
        limit(bed, "timetable")
        result = end(child)
        stopped = result.document()
        expect_equal((result.status, stopped["state"], stopped["waiting"] > 0), (1, "stopped", True),
                     f"after --stop ({stopped})")
        expect_equal(bed.ferry("site-a", "evacuate", "--show").document()["state"], "stopped", "the state shown")
        result = bed.ferry("site-a", "evacuate", "--resume")
        expect_equal((result.status, result.document()["moved"]), (0, 6), f"the end ({result})")
        for guest in guests:
            expect_well(guest, "site-b")
            guest.stop()


def interrupted(bed):
    """It takes no VM meanwhile; ferryd is killed in the middle: it says so, and goes on with what is left when it is told to"""
    guests = [bed.guest(name, **LIKE) for name in NAMES[:3]]
    bed.guest("other", "site-b", **LIKE)
    limit(bed, "1M")
    child = start(bed, "--to", "site-b", "--jobs", "1")
    until(lambda: view(bed).get("state") == "running", lambda: f"it does not begin: {view(bed)}")
    back = bed.ferry("site-b", "move", "other", "--to", "site-a")
    expect_equal(back.status, 3, f"exit status of a move to a host that is evacuated ({back})")
    expect_words(back.document()["reason"], ["evacuated"], "the reason")
    limit(bed, "50M")  # lifted so far that the others take their time
    until(lambda: view(bed).get("state") == "running" and moved(bed), lambda: f"nothing moves: {view(bed)}")
    bed.kill("site-a")
    end(child)
    bed.start("site-a")
    until(lambda: all(move["finished"] for move in bed.moves("site-a")), "the move under way does not end")
    found = bed.ferry("site-a", "evacuate", "--show")
    expect_equal((found.status, found.document()["state"], found.document()["interrupted"]), (1, "stopped", True),
                 f"after the restart ({found})")
    words = bed.ferry("site-a", "evacuate", "--show", as_json=False)
    expect_words(words.out, ["A restart of ferryd interrupted it", "--resume"], "the words for it")
    busy = bed.ferry("site-a", "evacuate", "--to", "site-b")
    expect(busy.status != 0, "a second evacuation beside one that was interrupted")
    result = bed.ferry("site-a", "evacuate", "--resume")
    expect_equal((result.status, result.document()["state"], result.document()["stay"]), (0, "done", 0), f"{result}")
    for guest in guests:
        expect_well(guest, "site-b")
    bed.kill("site-a")
    bed.start("site-a")
    expect(bed.ferry("site-a", "evacuate", "--show").status != 0, "an evacuation that has ended is remembered")


if __name__ == "__main__":
    sys.exit(ferrylab.run("evacuate", [plan, full_target, interrupted]))
