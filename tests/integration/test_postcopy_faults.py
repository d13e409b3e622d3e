#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Goal: either ferryd may be killed while pages of post-copy are outstanding, and the VM gets the rest of its memory;
between the switch and the decision, whatever ends the move (a word, the target's death), the source takes its guest
back; only where its own ferryd is killed just then does the VM stand still there, and that is said. At no time do two
copies run."""

import sys

import ferrylab
from ferrylab import expect, expect_equal, expect_stayed, expect_words, until, wait_finished
from postcopycases import CONF, LIKE, LINE, SLOW_MBIT, Switching
from watchers import NeverTwo


def killed(bed, role):
    s = Switching(bed, "--policy", "post-copy")
    victim = s.source if role == "source" else s.target
    with NeverTwo(bed, s.guest.name):
        s.move.wait_phase("memory")
        bed.line(rate=SLOW_MBIT)
        s.outstanding()
        until(s.answers, "the guest does not answer")
        bed.cut()  # nothing more comes until the killed one is back
        expect(s.view()["postcopy"]["outstanding"], f"the pages came too soon: {s.view()}")
        bed.kill(victim)
        bed.line(**LINE)
        bed.mend()
        bed.start(victim)
        report = s.switched()
    expect(report["postcopy"]["recoveries"] > 0, f"nothing was recovered: {report['postcopy']}")


def killed_source(bed):
    """The source's ferryd is killed while pages are outstanding: its successor feeds the rest"""
    killed(bed, "source")


def killed_target(bed):
    """The target's ferryd is killed while pages are outstanding: its successor takes the rest"""
    killed(bed, "target")


def undecided(bed, how):
    """Switched, loaded at the target, and not decided: the target stops there."""
    bed.line(**LINE)
    guest = bed.guest(**LIKE)
    source = next(iter(guest.states()))
    target = bed.other(source)
    old = ferrylab.old_disks(bed, target)
    bed.restart(target, failpoint=f"before-switched-journal:{how}")
    s = Switching(bed, "--policy", "post-copy")
    with NeverTwo(bed, guest.name):
        if how == "stop":
            bed.wait_stopped(target)
            expect_equal(guest.states().get(source), "paused", "the guest at the source")
            result = bed.ferry(source, "cancel", s.move.id)
            expect_equal(result.status, 0, f"exit status of cancel ({result})")
            until(lambda: guest.states().get(source) == "running", "the source does not take its guest back")
            bed.resume(target)
        else:
            bed.wait_dead(target)
            until(lambda: guest.states().get(source) == "running", "the source does not take its guest back")
            bed.start(target)
        s.move.end()
        views = wait_finished(bed, s.move.id)
    expect_equal({v["outcome"] for v in views.values()}, {"aborted"}, "the outcome")
    expect_stayed(bed, guest, source, old)


def undecided_cancelled(bed):
    """Cancelled between the switch and the decision: the source takes its guest back"""
    undecided(bed, "stop")


def undecided_killed(bed):
    """The target's ferryd is killed between the switch and the decision: the source takes its guest back"""
    undecided(bed, "kill")


def decided_unheard(bed):
    """The target's ferryd is killed before it hears COMMIT: it has never run, and the source takes its guest back"""
    bed.line(**LINE)
    guest = bed.guest(**LIKE)
    source = next(iter(guest.states()))
    target = bed.other(source)
    old = ferrylab.old_disks(bed, target)
    bed.restart(source, failpoint="after-commit-journal:stop")
    s = Switching(bed, "--policy", "post-copy")
    with NeverTwo(bed, guest.name):
        bed.wait_stopped(source)
        bed.kill(target)
        bed.resume(source)
        bed.start(target)
        until(lambda: guest.states().get(source) == "running",
              lambda: f"the source does not take its guest back: {s.view()}")
        s.move.end()
        views = wait_finished(bed, s.move.id)
    expect_equal({v["outcome"] for v in views.values()}, {"aborted"}, "the outcome")
    expect_stayed(bed, guest, source, old)


def undecided_source_killed(bed):
    """The source's ferryd is killed between the switch and the decision: the VM stands still there, and that is said"""
    bed.line(**LINE)
    guest = bed.guest(**LIKE)
    source = next(iter(guest.states()))
    bed.restart(source, failpoint="after-package:kill")
    s = Switching(bed, "--policy", "post-copy")
    with NeverTwo(bed, guest.name):
        bed.wait_dead(source)
        bed.start(source)
        s.move.end()
        views = wait_finished(bed, s.move.id)
    expect_equal({v["outcome"] for v in views.values()}, {"aborted"}, "the outcome")
    expect_words(views[source]["reason"], ["stands still", "virsh destroy"], "the reason")
    expect_equal(guest.states(), {source: "paused"}, "where it is")
    bed.virsh(source, "destroy", guest.name)
    bed.virsh(source, "start", guest.name)
    expect(ferrylab.booted_anew(guest, source), "it was not started anew")
    bed.made.pop(guest.name, None)


CASES = [killed_source, killed_target, undecided_cancelled, undecided_killed, decided_unheard, undecided_source_killed]

if __name__ == "__main__":
    sys.exit(ferrylab.run("postcopy-faults", CASES, CONF, postcopy=True))
