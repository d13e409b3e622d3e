#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Goal: each way of moving that a policy can choose moves a guest whole: ferry's codec, XBZRLE with a cache that can
be changed meanwhile, auto-converge, no help at all, every shipped policy; and where a site wants memory encrypted, what
needs it otherwise is left out, said, and the move goes on."""

import sys

import ferrylab
from ferrylab import expect, expect_equal, expect_moved, expect_words, until, wait_finished
from modecases import BUSY, capabilities, distrusting, moved, qmp, settings, substituted, trusting

LIKE = ferrylab.SMALL_GUEST
LINE = {"rtt": 20, "rate": 200}


def xbzrle(bed):
    """XBZRLE: QEMU compresses, ferry's codec does not, and the cache can be changed while memory is sent"""
    bed.line(**LINE)
    guest = bed.guest(**BUSY)
    result = bed.ferry("site-a", "move", guest.name, "--to", "site-b", "--set", "compression=xbzrle", "--set",
                       "time_limit_s=600", "--detach")
    expect_equal(result.status, 0, f"exit status of move ({result})")
    move_id = result.document()["id"]

    def view():
        return bed.api("site-a", "GET", f"/v1/moves/{move_id}")[1]

    until(lambda: view()["phase"] not in ("preparing", "copying", "mirroring"), "no memory is sent")
    expect("xbzrle" in capabilities(bed, guest.name), "QEMU does not use XBZRLE")
    expect_equal(qmp(bed, "site-a", guest.name, "query-migrate-parameters")["xbzrle-cache-size"], 64 << 20, "the cache")
    result = bed.ferry("site-a", "set", move_id, "xbzrle_cache=128M")
    expect_equal(result.status, 0, f"exit status of set ({result})")
    until(lambda: view()["outcome"] != "running" or
          qmp(bed, "site-a", guest.name, "query-migrate-parameters")["xbzrle-cache-size"] == 128 << 20,
          "the cache keeps its size")
    report = wait_finished(bed, move_id)["site-a"]
    expect_equal((report["outcome"], settings(report)["compression"], settings(report)["xbzrle_cache"]),
                 ("committed", "xbzrle", "128M"), "the report")
    expect("codec" not in report["memory"], f"ferry's codec is at work, too: {report['memory']}")
    expect_moved(bed, guest)


def auto_converge(bed):
    """Auto-converge with its steps: QEMU is told them, and ferry does not stun"""
    bed.line(**LINE)
    guest = bed.guest(**BUSY)

    def look(move):
        if "auto-converge" not in capabilities(bed, guest.name) and move.view()["outcome"] == "running":
            raise ferrylab.Failed("QEMU does not auto-converge")
        parameters = qmp(bed, "site-a", guest.name, "query-migrate-parameters")
        expect_equal((parameters["cpu-throttle-initial"], parameters["cpu-throttle-increment"]), (33, 7), "its steps")

    report = moved(bed, guest, "--set", "converge=auto-converge", "--set", "auto_converge_initial=33", "--set",
                   "auto_converge_increment=7", at_memory=look)
    expect_equal((report["stun"]["max_percent"], settings(report)["converge"]), (0, "auto-converge"), "the report")


def no_help(bed):
    """Neither codec nor stun"""
    guest = bed.guest(**LIKE)
    report = moved(bed, guest, "--set", "converge=none", "--set", "compression=none")
    expect("codec" not in report["memory"] and report["stun"]["max_percent"] == 0, f"the report: {report}")
    expect_equal(report["policy"]["substitutions"], [], "substitutions")


def each_policy(bed):
    """Every shipped policy moves a guest"""
    for policy in [p["name"] for p in bed.ferry("site-a", "policies").document()["policies"]]:
        guest = bed.guest(**LIKE)
        report = moved(bed, guest, "--policy", policy)
        expect_equal(report["policy"]["name"], policy, "the report's policy")


def encrypted(bed):
    """Direct memory that one site does not allow: all of it goes through the link, and that is said"""
    guest = bed.guest(**LIKE)
    wanted = {"memory_path": ("direct", "tunnel"), "zero_copy": ("yes", "no"), "parallel": ("auto", "off")}
    try:
        for trusts in ((), ("site-a",), ("site-b",)):
            trusting(bed, *trusts)
            guest = bed.guest(**LIKE)
            report = moved(bed, guest, "--policy", "very-large")
            distrusting(bed, *trusts)
            expect_equal(substituted(report), wanted, f"what was taken when {trusts or 'nobody'} trusts")
            expect(report["memory"]["wire_bytes"] > 1 << 20, f"its memory did not cross the link: {report['memory']}")
    finally:
        distrusting(bed, "site-a", "site-b")
    shown = bed.ferry("site-a", "show", report["id"], as_json=False).out
    expect_words(shown, ["memory_path tunnel instead of direct", "zero_copy no instead of yes"], "show")
    expect_words(bed.ferryd_log("site-a"), ["memory_path tunnel instead of direct"], "the log")


if __name__ == "__main__":
    sys.exit(ferrylab.run("modes", [xbzrle, auto_converge, no_help, each_policy, encrypted]))
