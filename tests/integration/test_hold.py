#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Goal: a held move waits one step before its switchover, with its disks mirrored and the guest at work, for as
long as it is told to; it says so, outlives a cut of the line, can be cancelled, and goes on by `ferry switchover`
or by the clock."""

import datetime
import sys

import ferrylab
from ferrylab import (expect, expect_equal, expect_moved, expect_stayed, expect_words, until, wait_finished)

CONF = {"link.outage_limit_s": 12, "link.stripe_timeout_s": 2, **ferrylab.SHORT_LOG}
LIKE = ferrylab.SMALL_GUEST


def view(bed, move_id):
    return bed.api("site-a", "GET", f"/v1/moves/{move_id}")[1]


def writes(guest):
    return guest.ask("stats")["acknowledged"]


def held(bed, at=None):
    """A guest and the id of its move, held."""
    guest = bed.guest(**LIKE)
    if at:
        started = bed.ferry("site-a", "move", guest.name, "--to", "site-b", "--at", at, "--detach")
    else:
        started = bed.ferry("site-a", "move", guest.name, "--to", "site-b", "--hold", "--detach")
    expect_equal(started.status, 0, f"exit status of move ({started})")
    move_id = started.document()["id"]
    until(lambda: view(bed, move_id)["held"], lambda: f"the move is never held: {view(bed, move_id)}")
    return guest, move_id


def still_held(bed, guest, move_id):
    """Held, said so, with a guest that works and disks that follow it."""
    for command in ("list", "show"):
        shown = bed.ferry("site-a", command, *([move_id] if command == "show" else []), as_json=False).out
        expect_words(shown, [move_id, "held"], command)
    before, wrote = view(bed, move_id), writes(guest)
    expect_equal((before["phase"], before["outcome"]), ("mirroring", "running"), "phase and outcome of a held move")
    until(lambda: writes(guest) > wrote + 20, "the guest does not write on")
    until(lambda: view(bed, move_id)["disk"]["wire_bytes"] > before["disk"]["wire_bytes"], "its writes do not cross")
    after = view(bed, move_id)
    expect(after["held"] and after["memory"]["bytes"] == before["memory"]["bytes"], f"memory moves: {after['memory']}")
    expect_equal(guest.states().get("site-a"), "running", "the guest at the source")


def switched_over(bed, guest, move_id):
    views = wait_finished(bed, move_id)
    expect_equal({v["outcome"] for v in views.values()}, {"committed"}, "the outcome")
    expect_moved(bed, guest)


def by_word(bed):
    """Held until `ferry switchover`, over a cut of the line"""
    guest, move_id = held(bed)
    still_held(bed, guest, move_id)
    bed.cut()
    until(lambda: view(bed, move_id)["link"]["outages"] > 0, "the cut is no outage")
    expect(view(bed, move_id)["held"], "the cut ended the hold")
    bed.mend()
    still_held(bed, guest, move_id)
    result = bed.ferry("site-b", "switchover", move_id)
    expect_equal(result.status, 1, f"exit status of switchover at the target ({result})")
    expect_words(result.err, ["source"], "the message at the target")
    result = bed.ferry("site-a", "switchover", move_id)
    expect_equal(result.status, 0, f"exit status of switchover ({result})")
    switched_over(bed, guest, move_id)
    result = bed.ferry("site-a", "switchover", move_id)
    expect_equal(result.status, 1, f"exit status of switchover after the end ({result})")
    expect_words(result.err, ["ended"], "the message after the end")


def cancelled(bed):
    """Cancelled while held: the VM stays, nothing is left"""
    guest, move_id = held(bed)
    result = bed.ferry("site-a", "cancel", move_id)
    expect_equal(result.status, 0, f"exit status of cancel ({result})")
    views = wait_finished(bed, move_id)
    expect_equal({v["outcome"] for v in views.values()}, {"aborted"}, "the outcome")
    expect_words(views["site-a"]["reason"], ["cancelled"], "the reason")
    expect_stayed(bed, guest)


def cut_off(bed):
    """Held, and the line stays cut beyond the limit: aborted, the VM stays"""
    guest, move_id = held(bed)
    bed.cut()
    until(lambda: view(bed, move_id)["outcome"] == "aborted", "the cut does not end the move")
    expect_equal(guest.states().get("site-a"), "running", "the guest at the source")
    bed.mend()
    wait_finished(bed, move_id)
    expect_stayed(bed, guest)


def not_yet(bed):
    """Told to switch over while the disks are still copied: it does not hold"""
    guest = bed.guest(**LIKE)
    bed.line(rate=20)
    move_id = bed.ferry("site-a", "move", guest.name, "--to", "site-b", "--hold", "--detach").document()["id"]
    until(lambda: view(bed, move_id)["phase"] == "copying", lambda: f"the move does not copy: {view(bed, move_id)}")
    expect_equal(bed.ferry("site-a", "switchover", move_id).status, 0, "exit status of an early switchover")
    bed.line(rate=1000)
    switched_over(bed, guest, move_id)


def not_held(bed):
    """Times that are none are refused, and a move that does not hold has nothing to be released from"""
    guest = bed.guest(**LIKE)
    for time in ("25:00", "2:30", "12:60", "noon", "12:30x", ""):
        result = bed.ferry("site-a", "move", guest.name, "--to", "site-b", "--at", time)
        expect_equal(result.status, 2, f"exit status of --at {time!r} ({result})")
    bed.line(rate=20)
    move = bed.move(guest)
    move.wait_phase("copying")
    result = bed.ferry("site-a", "switchover", move.id)
    expect_equal(result.status, 1, f"exit status of switchover without a hold ({result})")
    bed.ferry("site-a", "cancel", move.id)
    move.end()
    wait_finished(bed, move.id)
    expect_stayed(bed, guest)


def by_clock(bed):
    """Held until the minute that --at names"""
    bed.guest(**LIKE)  # its boot is not counted
    now = datetime.datetime.now()
    at = now + datetime.timedelta(minutes=1 if now.second < 20 else 2)
    guest, move_id = held(bed, f"{at:%H:%M}")
    expect_words(bed.ferry("site-a", "show", move_id, as_json=False).out, [f"until {at:%H:%M}"], "show")
    expect(datetime.datetime.now() < at.replace(second=0), "this machine is too slow to see the hold")
    until(lambda: not view(bed, move_id)["held"], "the hold never ends", 130)
    expect(datetime.datetime.now() >= at.replace(second=0, microsecond=0), "it went on before its time")
    switched_over(bed, guest, move_id)


if __name__ == "__main__":
    sys.exit(ferrylab.run("hold", [by_word, cancelled, cut_off, not_yet, not_held, by_clock], CONF))
