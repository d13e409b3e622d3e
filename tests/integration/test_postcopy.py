#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Goal: post-copy, safe. A move switches by hand, after one pass, after a time, at its time limit, and the guest comes out
whole; one that converges before ends as any other. While pages are outstanding that is said, the line may be cut for 30 s,
either ferryd may be killed, and the VM survives; before the decision an abort brings it back to the source. At no time do
two copies run. With --all the line is cut ten times."""

import contextlib
import pathlib
import sys
import time

import ferrylab
from ferrylab import NeverTwo, expect, expect_equal, expect_moved, expect_stayed, expect_words, until, wait_finished

CONF = {"link.outage_limit_s": 120, "link.stripe_timeout_s": 2}
# What it dirties does not fit a slow line's downtime: it never converges, and its pages take some seconds.
LIKE = {"memory": 192, "files": 8, "disk": 64, "dirty_set": 48, "dirty": 30, "iops": 10}
LINE = {"rtt": 20, "rate": 200}
SLOW_MBIT = 25
CRAWL_MBIT = 6
CUT_S = 30
USERFAULTFD = pathlib.Path("/proc/sys/vm/unprivileged_userfaultfd")


class Switching:
    """A move that is to switch, and what it shows."""

    def __init__(self, bed, *words, like=None):
        self.bed = bed
        USERFAULTFD.write_text("1")  # another lab that ends puts back what it has found
        bed.line(**LINE)
        self.guest = bed.guest(**(like or LIKE))
        self.source = next(iter(self.guest.states()))
        self.target = bed.other(self.source)
        self.move = bed.move(self.guest, self.source, self.target, *words)

    def view(self, site=None):
        return self.bed.api(site or self.source, "GET", f"/v1/moves/{self.move.id}")[1]

    def outstanding(self):
        """Returns while it runs at the target and pages are at the source."""
        until(lambda: self.view()["phase"] == "post-copy" or self.view()["outcome"] != "running",
              lambda: f"it never switches: {self.view()}")
        view = self.view()
        expect(view.get("postcopy", {}).get("outstanding"), f"no pages are outstanding: {view}")
        return view

    def answers(self):
        with contextlib.suppress(ferrylab.LabError):
            return self.guest.ask("stats", 5)
        return None

    def ended(self):
        result = self.move.end()
        views = wait_finished(self.bed, self.move.id)
        expect_equal({v["outcome"] for v in views.values()}, {"committed"}, f"the outcome ({result})")
        expect_moved(self.bed, self.guest, self.target)
        return views[self.source]

    def switched(self):
        report = self.ended()
        expect(report["postcopy"]["switched"] and not report["postcopy"]["outstanding"], f"the report: {report}")
        expect_equal(report["postcopy"]["note"], "all pages arrived", "the report's word")
        return report


def after_first_pass(bed):
    """The policy post-copy: one pass, then the rest is pulled; each page crosses at most twice"""
    with contextlib.ExitStack() as stack:
        s = Switching(bed, "--policy", "post-copy")
        stack.enter_context(NeverTwo(bed, s.guest.name))
        report = s.switched()
    expect(report["memory"]["bytes"] < 2.2 * report["memory"]["total_bytes"], f"memory: {report['memory']}")


def by_hand(bed):
    """By hand: nothing happens by itself, then `ferry postcopy`; that pages are outstanding is said everywhere"""
    s = Switching(bed, "--set", "post_copy=by-hand", "--set", "converge=none")
    with NeverTwo(bed, s.guest.name):
        s.move.wait_phase("memory")
        until(lambda: s.view()["memory"]["iterations"] > 2, "memory is not sent in rounds")
        expect_equal(s.view()["postcopy"]["switched"], False, "before the word")
        bed.line(rate=SLOW_MBIT)
        result = bed.ferry(s.target, "postcopy", s.move.id)
        expect_equal(result.status, 1, f"exit status of postcopy at the target ({result})")
        result = bed.ferry(s.source, "postcopy", s.move.id)
        expect_equal(result.status, 0, f"exit status of postcopy ({result})")
        view = s.outstanding()
        expect_words(view["postcopy"]["note"], ["not atomic"], "the view")
        expect_words(bed.ferry(s.source, "show", s.move.id, as_json=False).out, ["not atomic"], "show")
        bed.line(**LINE)
        s.switched()
    result = bed.ferry(s.source, "postcopy", s.move.id)
    expect_equal(result.status, 1, f"exit status of postcopy after the end ({result})")


def after_time(bed):
    """After a time; and at a time limit whose answer it is"""
    for words in (("post_copy=after-time", "post_copy_after_s=2"), ("time_limit_s=2", "at_time_limit=post-copy")):
        s = Switching(bed, *[w for word in words for w in ("--set", word)], "--set", "converge=none")
        with NeverTwo(bed, s.guest.name):
            report = s.switched()
        expect(report["phases_ms"]["stopped"] - report["phases_ms"]["memory"] >= 1900, f"too soon: {report['phases_ms']}")


def converges(bed):
    """A move that could switch and converges ends as any other: paused at first, then by COMMIT"""
    USERFAULTFD.write_text("1")
    bed.line(**LINE)
    guest = bed.guest(**ferrylab.SMALL_GUEST)
    source = next(iter(guest.states()))
    target = bed.other(source)
    with NeverTwo(bed, guest.name):
        result = bed.ferry(source, "move", guest.name, "--to", target, "--set", "post_copy=by-hand", "--detach")
        expect_equal(result.status, 0, f"exit status of move ({result})")
        report = wait_finished(bed, result.document()["id"])[source]
    expect_equal((report["outcome"], report["postcopy"]["switched"], report["postcopy"]["atomic"]),
                 ("committed", False, True), "the report")
    expect_moved(bed, guest, target)


def cut(bed):
    """The line is cut for 30 s while pages are outstanding: it waits, then it goes on"""
    s = Switching(bed, "--policy", "post-copy")
    with NeverTwo(bed, s.guest.name):
        s.move.wait_phase("memory")
        bed.line(rate=SLOW_MBIT)
        s.outstanding()
        bed.cut()
        time.sleep(CUT_S)
        expect(s.view()["postcopy"]["outstanding"], "the pages came without a line")
        expect_equal(s.view()["outcome"], "running", "the outcome while the line is cut")
        bed.mend()
        bed.line(**LINE)
        s.switched()


def killed(bed, role):
    s = Switching(bed, "--policy", "post-copy")
    victim = s.source if role == "source" else s.target
    with NeverTwo(bed, s.guest.name):
        s.move.wait_phase("memory")
        bed.line(rate=SLOW_MBIT)
        s.outstanding()
        bed.line(rate=CRAWL_MBIT)
        until(s.answers, "the guest does not answer")
        expect(s.view()["postcopy"]["outstanding"], f"the pages came too soon: {s.view()}")
        bed.kill(victim)
        bed.line(**LINE)
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
    """The target's ferryd is killed before it hears COMMIT: it has never run, gives up, and the source takes its guest back"""
    bed.line(**LINE)
    guest = bed.guest(**LIKE)
    source = next(iter(guest.states()))
    target = bed.other(source)
    old = ferrylab.old_disks(bed, target)
    bed.restart(source, failpoint="before-commit:stop")
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


CASES = [after_first_pass, by_hand, after_time, converges, cut, killed_source, killed_target, undecided_cancelled, undecided_killed, decided_unheard,
         undecided_source_killed]

if __name__ == "__main__":
    if sys.argv[1:2] == ["--all"]:
        sys.exit(ferrylab.run_all("postcopy", [*CASES, *[cut] * 9], CONF, 3600, postcopy=True))
    sys.exit(ferrylab.run("postcopy", CASES, CONF, postcopy=True))
