# SPDX-License-Identifier: Apache-2.0
"""What the tests of policies' modes share: sites that trust each other with memory, a move that commits, its report."""

import json

import ferrylab
from ferrylab import expect, expect_equal, expect_moved, wait_finished
from watchers import NeverTwo

# Rounds for a few seconds.
BUSY = {"memory": 256, "files": 8, "disk": 64, "dirty_set": 64, "iops": 20, "dirty": 20}


def qmp(bed, site, name, command):
    return json.loads(bed.virsh(site, "qemu-monitor-command", name, json.dumps({"execute": command})))["return"]


def capabilities(bed, name):
    return {c["capability"] for c in qmp(bed, "site-a", name, "query-migrate-capabilities") if c["state"]}


def trusting(bed, *sites):
    """Configurations in which memory may go without encryption to and from these sites' peers."""
    for site in sites:
        path = bed.site(site).path(ferrylab.CONFIG)
        path.write_text(path.read_text().replace("allow = move-here", "allow = direct-memory move-here"))
        bed.reload(site)


def distrusting(bed, *sites):
    for site in sites:
        path = bed.site(site).path(ferrylab.CONFIG)
        path.write_text(path.read_text().replace("direct-memory ", ""))
        bed.reload(site)


def moved(bed, guest, *words, at_memory=None):
    """The report of a move that commits, with the guest whole at the target and never in two places."""
    with NeverTwo(bed, guest.name):
        move = bed.move(guest, "site-a", "site-b", *words)
        if at_memory:
            move.wait_phase("memory")
            at_memory(move)
        result = move.end()
    expect_equal(result.status, 0, f"exit status of move {words} ({result})")
    report = result.document()
    wait_finished(bed, report["id"])
    expect_moved(bed, guest)
    return report


def settings(report):
    return {key: s["value"] for key, s in report["policy"]["settings"].items()}


def substituted(report):
    for s in report["policy"]["substitutions"]:
        expect(s["why"], f"a substitution without a reason: {s}")
    return {s["setting"]: (s["wanted"], s["taken"]) for s in report["policy"]["substitutions"]}
