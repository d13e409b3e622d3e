#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Goal: a move switches to post-copy by hand, after one pass, after a time and at its time limit, and the guest comes
out whole; one that converges before ends as any other. While pages are outstanding that is said, and a cut of the
line for 30 s is survived. At no time do two copies run. With --all the line is cut ten times."""

import sys
import time

import ferrylab
from ferrylab import expect, expect_equal, expect_moved, expect_rehearsed, expect_words, until, wait_finished
from modecases import substituted
from postcopycases import CONF, LINE, SLOW_MBIT, Switching, allow
from watchers import NeverTwo

CUT_S = 30


def after_first_pass(bed):
    """The policy post-copy: one pass, then the rest is pulled; each page crosses at most twice"""
    s = Switching(bed, "--policy", "post-copy")
    with NeverTwo(bed, s.guest.name):
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
        phases = report["phases_ms"]
        expect(phases["stopped"] - phases["memory"] >= 1900, f"too soon: {phases}")


def converges(bed):
    """A move that could switch and converges ends as any other: paused at first, then by COMMIT"""
    allow()
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


def verified(bed):
    """With --verify the disks are compared before the switch"""
    s = Switching(bed, "--policy", "post-copy", "--verify")
    with NeverTwo(bed, s.guest.name):
        report = s.switched()
    expect(report["verify"]["checked_bytes"] > 0, f"nothing was compared: {report['verify']}")
    phases = report["phases_ms"]
    expect(phases["mirroring"] <= phases["stopped"] < phases["resumed"], f"out of order: {phases}")


def drilled(bed):
    """A drill never switches, whatever the policy: a clone must have all of its memory"""
    allow()
    bed.line(**LINE)
    guest = bed.guest(**ferrylab.SMALL_GUEST)
    source = next(iter(guest.states()))
    report = bed.ferry(source, "drill", guest.name, "--to", bed.other(source), "--policy", "post-copy").document()
    expect_equal((report["outcome"], report.get("postcopy")), ("drilled", None), "the drill")
    expect_equal(substituted(report)["post_copy"], ("after-first-pass", "never"), "the substitution")
    expect_rehearsed(bed, guest, source)


def cut(bed):
    """The line is cut for 30 s while pages are outstanding, longer than a session may be: it waits, then it goes on"""
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


CASES = [after_first_pass, by_hand, after_time, converges, verified, drilled, cut]

if __name__ == "__main__":
    if sys.argv[1:2] == ["--all"]:
        sys.exit(ferrylab.run_all("postcopy", [*CASES, *[cut] * 9], CONF, 3600, postcopy=True))
    sys.exit(ferrylab.run("postcopy", CASES, CONF, postcopy=True))
