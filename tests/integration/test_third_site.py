#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Goal: with a witness at a third site (a real etcd cluster of three) a move in doubt ends by itself although the
two sites cannot see each other, wherever that is safe: what was not decided ends at the source, what was decided
runs at the target. Where it is not, and where nobody sees the witness, it stays paused as without one, and heals as
soon as a way is mended. A lost answer, a dead member, a cluster without a majority never make a second copy, and
never take the only one; and the key is gone in the end. A move that switches to post-copy is decided the same way."""

import sys
import time

import ferrylab
from ferrylab import (expect, expect_committed, expect_equal, expect_failed, expect_moved, expect_nothing_at,
                      expect_stayed, expect_well, expect_words, until, wait_finished)
from lablib.third_site import MEMBERS, ThirdSite  # found through ferrylab
from postcopycases import LINE, SLOW_MBIT, Switching
from watchers import NeverTwo

# So long an answer is waited for, each member having its share; a stopped guest waits longer.
ANSWER_S = 10
CONF = {"link.outage_limit_s": 2, "link.stripe_timeout_s": 4, "witness.timeout_ms": 1000 * ANSWER_S,
        "memory.switchover_deadline_s": 3 * ANSWER_S, **ThirdSite.settings()}
LIKE = ferrylab.QUIET_GUEST
BOTH = ("site-a", "site-b")


def view(bed, site, move):
    return next((m for m in bed.moves(site) if m["id"] == move.id), {})


def running(guest):
    return sorted(site.name for site in guest.running_at())


def expect_forgotten(third, move):
    until(lambda: third.right(move.id) == "", lambda: f"the key stays: {third.right(move.id)}")


def undecided(bed, third, seen_by):
    """The sites part when the target has promised and the source knows nothing of it."""
    guest = bed.guest(**LIKE)
    bed.restart("site-b", "after-prepared-journal:stop")
    move = bed.move(guest)
    expect(move.id, "the move has no id")
    bed.wait_stopped("site-b")
    expect_equal(third.right(move.id), "armed", "the right before the target's word")
    third.cut(*[site for site in BOTH if site not in seen_by])
    bed.cut()
    bed.resume("site-b")
    return guest, move


def decided(bed, third, seen_by):
    """The sites part when the old copy is given up and COMMIT has not been said."""
    guest = bed.guest(**LIKE)
    bed.restart("site-a", "after-reply:stop")
    move = bed.move(guest)
    expect(move.id, "the move has no id")
    bed.wait_stopped("site-a")
    expect_equal(third.right(move.id), "held", "the right while the source gives its copy up")
    third.cut(*[site for site in BOTH if site not in seen_by])
    bed.cut()
    return guest, move


def expect_in_doubt(bed, site, move):
    until(lambda: view(bed, site, move).get("outcome") == "in-doubt",
          lambda: f"{site} is not in doubt: {view(bed, site, move)}")


def aborts_by_itself(bed, guest, move):
    """While the line is still cut."""
    until(lambda: view(bed, "site-b", move).get("finished"),
          lambda: f"the target does not end it: {view(bed, 'site-b', move)}")
    expect_equal(view(bed, "site-b", move)["outcome"], "aborted", "the outcome at the target")
    until(lambda: running(guest) == ["site-a"], lambda: f"it does not run on: {guest.states()}")
    expect_well(guest, "site-a")
    expect_nothing_at(bed, "site-b", guest)


def runs_by_itself(bed, guest, move):
    """While the line is still cut."""
    until(lambda: running(guest) == ["site-b"], lambda: f"it does not run at the target: {guest.states()}")
    expect_well(guest, "site-b")
    until(lambda: view(bed, "site-b", move).get("finished"), "the target does not end it")
    expect_equal(view(bed, "site-b", move)["outcome"], "committed", "the outcome at the target")


def ends_when_mended(bed, third, guest, move, outcome):
    third.mend(*BOTH)
    bed.mend()
    move.end()
    views = wait_finished(bed, move.id)
    expect_equal({v["outcome"] for v in views.values()}, {outcome}, "the outcome")
    if outcome == "committed":
        expect_moved(bed, guest)
    else:
        expect_stayed(bed, guest)
    expect_forgotten(third, move)
    bed.alter(guest)
    guest.stop()


def a_switch_with_a_witness(bed):
    """Post-copy under a witness: the switch is the decision, and the key is gone when every page is there"""
    with ThirdSite(bed.lab) as third:
        s = Switching(bed, "--policy", "post-copy")
        with NeverTwo(bed, s.guest.name):
            bed.line(rate=SLOW_MBIT)  # it does not switch while it is asked
            s.move.wait_phase("memory")
            expect_equal(third.right(s.move.id), "armed", "the right during the move")
            bed.line(**LINE)
            s.switched()
            expect_forgotten(third, s.move)
        bed.alter(s.guest)
        s.guest.stop()


def a_move_with_a_witness(bed):
    """A move under a witness: agreed, shown, held while it is decided, forgotten afterwards"""
    with ThirdSite(bed.lab) as third:
        guest = bed.guest(**LIKE)
        move = bed.move(guest, "site-a", "site-b", "--hold")
        move.wait_held()
        expect_equal(third.right(move.id), "armed", "the right during the move")
        for site in BOTH:
            expect("witness" in view(bed, site, move), f"{site} does not show the witness: {view(bed, site, move)}")
        bed.ferry("site-a", "switchover", move.id)
        expect_committed(move.end())
        wait_finished(bed, move.id)
        expect_moved(bed, guest)
        expect_words(bed.metrics("site-a"),
                     ["ferry_witness_reachable 1", 'ferry_witness_questions_total{answered="yes"}'], "the metrics")
        expect_forgotten(third, move)
        bed.alter(guest)
        guest.stop()


def undecided_seen_by_both(bed):
    """Parted before the decision, both see the witness: it ends at the source"""
    with ThirdSite(bed.lab) as third:
        guest, move = undecided(bed, third, BOTH)
        with NeverTwo(bed, guest.name):
            aborts_by_itself(bed, guest, move)
            ends_when_mended(bed, third, guest, move, "aborted")


def undecided_seen_by_target(bed):
    """Parted before the decision, the target alone sees the witness: it takes the abort and cleans up"""
    with ThirdSite(bed.lab) as third:
        guest, move = undecided(bed, third, ["site-b"])
        with NeverTwo(bed, guest.name):
            aborts_by_itself(bed, guest, move)
            expect_equal(third.right(move.id), "kept", "the right")
            ends_when_mended(bed, third, guest, move, "aborted")


def undecided_seen_by_source(bed):
    """Parted before the decision, the source alone sees the witness: the target follows when it does"""
    with ThirdSite(bed.lab) as third:
        guest, move = undecided(bed, third, ["site-a"])
        with NeverTwo(bed, guest.name):
            until(lambda: third.right(move.id) == "kept", lambda: f"the right is {third.right(move.id)}")
            until(lambda: running(guest) == ["site-a"], lambda: f"it does not run on: {guest.states()}")
            expect_in_doubt(bed, "site-b", move)
            third.mend("site-b")
            aborts_by_itself(bed, guest, move)
            ends_when_mended(bed, third, guest, move, "aborted")


def undecided_seen_by_none(bed):
    """Parted before the decision, nobody sees the witness: in doubt, until the sites see each other"""
    with ThirdSite(bed.lab) as third:
        guest, move = undecided(bed, third, [])
        with NeverTwo(bed, guest.name):
            expect_in_doubt(bed, "site-b", move)
            until(lambda: running(guest) == ["site-a"], lambda: f"it does not run on: {guest.states()}")
            until(lambda: view(bed, "site-b", move)["witness"]["why_not"], "the target does not say why")
            expect_words(bed.ferry("site-b", "show", move.id, as_json=False).out, ["right", "does not answer"], "show")
            expect_equal(third.right(move.id), "armed", "the right")
            ends_when_mended(bed, third, guest, move, "aborted")


def decided_seen_by_both(bed):
    """Parted after the decision, both see the witness: it runs at the target, and the source knows"""
    with ThirdSite(bed.lab) as third:
        guest, move = decided(bed, third, BOTH)
        with NeverTwo(bed, guest.name):
            bed.resume("site-a")
            runs_by_itself(bed, guest, move)
            until(lambda: view(bed, "site-a", move).get("outcome") == "committed",
                  lambda: f"the source does not learn it: {view(bed, 'site-a', move)}")
            ends_when_mended(bed, third, guest, move, "committed")


def decided_and_killed(bed):
    """The source is killed after its decision, and comes back parted from the target: the witness tells"""
    with ThirdSite(bed.lab) as third:
        guest, move = decided(bed, third, BOTH)
        with NeverTwo(bed, guest.name):
            bed.kill("site-a")
            expect_in_doubt(bed, "site-b", move)
            expect_equal(third.right(move.id), "held", "the right of a source that is not there")
            expect_equal(running(guest), [], "sites where it runs meanwhile")
            bed.start("site-a")
            runs_by_itself(bed, guest, move)
            ends_when_mended(bed, third, guest, move, "committed")


def decided_seen_by_target(bed):
    """Parted after the decision, the target alone sees the witness: in doubt until the source sees it, too"""
    with ThirdSite(bed.lab) as third:
        guest, move = decided(bed, third, ["site-b"])
        with NeverTwo(bed, guest.name):
            bed.resume("site-a")
            expect_in_doubt(bed, "site-b", move)
            until(lambda: view(bed, "site-b", move)["witness"]["right"] == "held", "the target has not asked")
            expect_equal(running(guest), [], "sites where it runs")
            third.mend("site-a")
            runs_by_itself(bed, guest, move)
            ends_when_mended(bed, third, guest, move, "committed")


def decided_seen_by_source(bed):
    """Parted after the decision, the source alone sees the witness: it runs as soon as the target sees it, too"""
    with ThirdSite(bed.lab) as third:
        guest, move = decided(bed, third, ["site-a"])
        with NeverTwo(bed, guest.name):
            bed.resume("site-a")
            until(lambda: third.right(move.id) == "given", lambda: f"the right is {third.right(move.id)}")
            expect_in_doubt(bed, "site-b", move)
            third.mend("site-b")
            runs_by_itself(bed, guest, move)
            ends_when_mended(bed, third, guest, move, "committed")


def decided_seen_by_none(bed):
    """Parted after the decision, nobody sees the witness: in doubt, until the sites see each other"""
    with ThirdSite(bed.lab) as third:
        guest, move = decided(bed, third, [])
        with NeverTwo(bed, guest.name):
            bed.resume("site-a")
            for site in BOTH:
                expect_in_doubt(bed, site, move)
            expect_equal(running(guest), [], "sites where it runs")
            ends_when_mended(bed, third, guest, move, "committed")


def answer_lost(bed):
    """The answer that the source holds the right is lost: it reads again, and commits"""
    with ThirdSite(bed.lab) as third:
        guest = bed.guest(**LIKE)
        move = bed.move(guest, "site-a", "site-b", "--hold")
        move.wait_held()
        third.swallow_answers("site-a")
        bed.ferry("site-a", "switchover", move.id)
        until(lambda: third.right(move.id) == "held", lambda: f"the request did not arrive: {third.right(move.id)}")
        time.sleep(ANSWER_S / MEMBERS + 0.5)  # the member that has not answered had its share: another one is asked
        expect_equal(move.view()["witness"]["right"], "unknown", "what the source knows of it")
        third.deliver_answers("site-a")
        expect_committed(move.end())
        wait_finished(bed, move.id)
        expect_moved(bed, guest)
        expect_forgotten(third, move)
        bed.alter(guest)
        guest.stop()


def members_die(bed):
    """One dead member is not missed; without a majority a move under way goes no further, a new one goes without"""
    with ThirdSite(bed.lab) as third:
        guest = bed.guest(**LIKE)
        third.kill(0)
        expect_committed(bed.move(guest).end())
        until(lambda: all(m["finished"] for site in BOTH for m in bed.moves(site)), "the move is not finished")
        guest = bed.guest(**LIKE, at="site-a")
        with NeverTwo(bed, guest.name):
            move = bed.move(guest, "site-a", "site-b", "--hold")
            move.wait_held()
            expect_equal(third.right(move.id), "armed", "the right, by two members")
            third.kill(1)
            bed.ferry("site-a", "switchover", move.id)
            expect_failed(move.end(), ["witness", "does not answer"])
            wait_finished(bed, move.id)
            expect_stayed(bed, guest)
            expect_committed(bed.move(guest).end())
            expect_words(bed.ferryd_log("site-a"), ["goes without the witness"], "the log")
            third.start(0)
            third.start(1)
            expect_forgotten(third, move)
        bed.alter(guest)
        guest.stop()


if __name__ == "__main__":
    sys.exit(ferrylab.run("third", [
        a_move_with_a_witness, a_switch_with_a_witness, undecided_seen_by_both, undecided_seen_by_target,
        undecided_seen_by_source, undecided_seen_by_none, decided_seen_by_both, decided_and_killed, decided_seen_by_target,
        decided_seen_by_source, decided_seen_by_none, answer_lost, members_die], CONF, postcopy=True))
