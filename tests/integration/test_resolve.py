#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Goal: a move in doubt stays paused, says so everywhere an operator looks, and ends by the operator's word alone:
`ferry resolve ID --run-at source|target`, given at the site that is left while the other one is gone. When that
one comes back it follows: at no time do two copies run, exactly one does in the end, and nothing is left over."""

import sys

import ferrylab
from ferrylab import (expect, expect_disks_only, expect_equal, expect_moved, expect_nothing_at, expect_stayed,
                      expect_well, expect_words, until, wait_finished)
from lablib.verify import beating  # found through ferrylab
from watchers import NeverTwo

CONF = {"link.outage_limit_s": 1, "link.stripe_timeout_s": 2}
LIKE = ferrylab.QUIET_GUEST


def running(guest):
    return sorted(site.name for site in guest.running_at())


def in_doubt(bed, site, move_id):
    """Waits for it, and sees that list, show, the metrics and the log say so, too."""
    until(lambda: [m for m in bed.moves(site) if m["id"] == move_id and m["outcome"] == "in-doubt"],
          lambda: f"{site} is not in doubt: {[(m['id'], m['phase'], m['outcome']) for m in bed.moves(site)]}")
    expect_words(bed.ferry(site, "list", as_json=False).out, [move_id, "in-doubt"], f"list at {site}")
    shown = bed.ferry(site, "show", move_id, as_json=False).out
    expect_words(shown, [move_id, "in-doubt", "do not start the VM by hand"], f"show at {site}")
    expect_words(bed.metrics(site), ['ferry_moves{outcome="in-doubt"} 1'], f"the metrics of {site}")
    expect_words(bed.ferryd_log(site), [move_id, "in-doubt" if site == "site-a" else "in doubt"], f"the log of {site}")


def doubtful(bed, failpoint):
    """A move whose source has stopped at that point of its decision, with the line cut."""
    guest = bed.guest(**LIKE)
    bed.restart("site-a", f"{failpoint}:stop")
    move = bed.move(guest)
    expect(move.id, "the move has no id")
    bed.wait_stopped("site-a")
    bed.cut()
    return guest, move


def resolve(bed, site, move, at):
    result = bed.ferry(site, "resolve", move.id, "--run-at", "source" if at == "site-a" else "target")
    expect_equal(result.status, 0, f"exit status of resolve at {site} ({result})")
    expect_equal(result.document()["id"], move.id, "the move that resolve answers with")
    expect_words(result.err, ["by your word", "twice"], "the warning of resolve")


def resolve_again_is_refused(bed, site, move):
    for side in ("source", "target"):
        result = bed.ferry(site, "resolve", move.id, "--run-at", side)
        expect_equal(result.status, 1, f"exit status of resolve for a move that is over ({result})")
        expect_words(result.err, ["not in doubt"], "the message")


def target_says_source(bed):
    """At the target, the source gone and running on by itself: --run-at source removes the paused copy"""
    guest, move = doubtful(bed, "before-reply")
    with NeverTwo(bed, guest.name):
        bed.kill("site-a")  # without the reply libvirt lets the VM run on
        until(lambda: running(guest) == ["site-a"], lambda: f"the source does not run on: {guest.states()}")
        in_doubt(bed, "site-b", move.id)
        expect_equal(guest.states().get("site-b"), "paused", "the target's copy, in doubt")
        resolve(bed, "site-b", move, "site-a")
        until(lambda: [m["outcome"] for m in bed.moves("site-b") if m["id"] == move.id and m["finished"]] == ["aborted"],
              "the target does not end its half by the operator's word")
        expect_well(guest, "site-a")
        expect_nothing_at(bed, "site-b", guest)  # while the line is still cut
        bed.start("site-a")
        bed.mend()
        move.end()
        views = wait_finished(bed, move.id)
        expect_equal({v["outcome"] for v in views.values()}, {"aborted"}, "the outcome")
        resolve_again_is_refused(bed, "site-b", move)
        expect_stayed(bed, guest)


def target_says_target(bed):
    """At the target, the source gone for good: --run-at target runs the paused copy"""
    guest, move = doubtful(bed, "after-reply")  # libvirt has the reply: the old copy is given up
    with NeverTwo(bed, guest.name):
        bed.kill("site-a")
        until(lambda: guest.states().get("site-a") == "shut off", lambda: f"the old copy is not off: {guest.states()}")
        in_doubt(bed, "site-b", move.id)
        expect_equal(running(guest), [], "sites where it runs before the operator's word")
        resolve(bed, "site-b", move, "site-b")
        until(lambda: running(guest) == ["site-b"], lambda: f"it does not run at the target: {guest.states()}")
        expect_well(guest, "site-b")
        bed.start("site-a")
        bed.mend()
        move.end()
        views = wait_finished(bed, move.id)
        expect_equal({v["outcome"] for v in views.values()}, {"committed"}, "the outcome")
        resolve_again_is_refused(bed, "site-b", move)
        expect_moved(bed, guest)


def decided_alone(bed):
    """The source has decided, its copy is given up, and the target's ferryd dies before it hears of it."""
    guest, move = doubtful(bed, "after-reply")
    bed.kill("site-b")
    bed.resume("site-a")
    in_doubt(bed, "site-a", move.id)
    result = move.end()
    expect_equal(result.status, 4, f"exit status of a move in doubt ({result})")
    expect_equal(guest.states(), {"site-a": "shut off", "site-b": "paused"}, "the copies, in doubt")
    return guest, move


def source_says_target(bed):
    """At the source, the target not answering: --run-at target changes nothing, and holds when it is back"""
    guest, move = decided_alone(bed)
    with NeverTwo(bed, guest.name):
        resolve(bed, "site-a", move, "site-b")
        expect_equal(guest.states(), {"site-a": "shut off", "site-b": "paused"}, "the copies, after the word")
        bed.mend()
        bed.start("site-b")
        views = wait_finished(bed, move.id)
        expect_equal({v["outcome"] for v in views.values()}, {"committed"}, "the outcome")
        expect_moved(bed, guest)


def source_says_source(bed):
    """At the source, the target gone: --run-at source starts the VM from its disks; the target follows"""
    guest, move = decided_alone(bed)
    bed.alter(guest)  # it boots anew
    with NeverTwo(bed, guest.name):
        resolve(bed, "site-a", move, "site-a")
        until(lambda: running(guest) == ["site-a"], lambda: f"it does not run at the source: {guest.states()}")
        bed.mend()
        bed.start("site-b")
        views = wait_finished(bed, move.id)
        expect_equal({v["outcome"] for v in views.values()}, {"aborted"}, "the outcome")
        expect_nothing_at(bed, "site-b", guest)
        expect_disks_only(bed, "site-a", guest)
        expect_equal(running(guest), ["site-a"], "sites where it runs")
        until(lambda: beating(guest) == ["site-a"], lambda: f"heartbeats come from {beating(guest)}")


def both_run(bed):
    """Told wrongly that the source is off, the target runs it: both say so, and the operator's next word ends it"""
    guest, move = doubtful(bed, "before-reply")
    bed.alter(guest)
    bed.kill("site-a")
    until(lambda: running(guest) == ["site-a"], lambda: f"the source does not run on: {guest.states()}")
    in_doubt(bed, "site-b", move.id)
    resolve(bed, "site-b", move, "site-b")  # without looking
    until(lambda: len(running(guest)) == 2, lambda: f"the target does not obey: {guest.states()}")
    bed.start("site-a")
    bed.mend()
    in_doubt(bed, "site-a", move.id)
    expect_words(bed.ferry("site-a", "show", move.id).document()["reason"], ["runs here AND at site-b"], "the reason")
    resolve(bed, "site-a", move, "site-b")
    wait_finished(bed, move.id)
    expect_equal(running(guest), ["site-b"], "sites where it runs after the second word")
    expect_nothing_at(bed, "site-a", guest, {"vm.raw"})
    move.end()


if __name__ == "__main__":
    sys.exit(ferrylab.run("resolve", [target_says_source, target_says_target, source_says_target,
                                      source_says_source, both_run], CONF))
