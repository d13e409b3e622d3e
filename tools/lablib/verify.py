# SPDX-License-Identifier: Apache-2.0
"""Is anything lost? Asks the guest, and believes it only as far as the outside agrees.

The witness checks its memory and reads every acknowledged block back. From outside come: how many copies
run (libvirt's word, and whose heartbeat advances), the highest acknowledgement ever seen on a heartbeat
(a guest put back in time would know less), the identity of the boot, and the hashes of the disks as made.
"""

import time

from . import witness
from .base import MOMENT_LIMIT_S, wait_until

VERIFY_TIMEOUT_S = 120


def beating(guest, expected=()):
    """Names of the sites where the heartbeat advances while one looks: until it has at all that are expected to have
    one (a guest that has just been resumed may be slow to get the processor), and a moment at least."""
    def beats():
        return {s.name: witness.last_heartbeat(s, guest.name) for s in guest.lab.sites.values()}

    def advanced():
        after = beats()
        return [name for name in after if after[name] and after[name] != before[name]]

    before = beats()
    time.sleep(0.2)
    wait_until(lambda: set(expected) <= set(advanced()), MOMENT_LIMIT_S)
    return advanced()


def _promised(guest):
    """The highest number of acknowledged writes ever shown outside."""
    seen = [witness.last_heartbeat(s, guest.name) for s in guest.lab.sites.values()]
    return max((beat[1] for beat in seen if beat), default=0)


def _bad_chunks(guest, record):
    """Chunks of the disks, outside the witness's region, that are not as they were made."""
    bad = []
    for disk, wanted in enumerate(record["hashes"]):
        if wanted is None:
            continue  # somebody else writes it
        found = guest.ask(f"hash {disk}", VERIFY_TIMEOUT_S)["chunks"]
        bad += [{"disk": disk, "chunk": n} for n, pair in enumerate(zip(wanted, found)) if pair[0] != pair[1]]
        if len(found) != len(wanted):
            bad.append({"disk": disk, "chunk": "size differs"})
    return bad


def verify(guest):
    """A dict of findings; its "ok" is the verdict, its "problems" the reasons in words."""
    record = guest.record()
    running = [site.name for site in guest.running_at()]
    beats_at = beating(guest, running)
    result = {"guest": guest.name, "site": running[0] if len(running) == 1 else None,
              "copies": len(running), "running": running, "beating": beats_at, "problems": []}
    problems = result["problems"]
    if len(running) != 1:
        problems.append(f"{len(running)} copies run")
    if beats_at != running:
        problems.append(f"heartbeats come from {beats_at or 'nowhere'}, libvirt says {running or 'nowhere'}")
    if len(running) == 1:
        promised = _promised(guest)
        found = guest.ask("verify", VERIFY_TIMEOUT_S)
        bad_chunks = _bad_chunks(guest, record)
        result.update({
            "acknowledged": found["acknowledged"], "promised": promised,
            "blocks": found["blocks"], "lost_writes": found["lost_writes"],
            "bad_blocks": found["bad_blocks"], "write_errors": found["write_errors"],
            "pages": found["pages"], "bad_pages": found["bad_pages"], "bad_chunks": bad_chunks,
            "rebooted": found["boot_id"] != record["boot_id"], "uptime_s": found["uptime_s"]})
        for key, words in (("lost_writes", "acknowledged writes lost"), ("bad_blocks", "blocks damaged"),
                           ("write_errors", "writes refused by the disk"), ("bad_pages", "memory pages damaged")):
            if result[key]:
                problems.append(f"{result[key]} {words}")
        first = found.get("first")
        if first:
            result["first"] = first
            problems.append(f"block {first['block']} of disk {first['disk']} holds "
                            f"{'write' if first['whole'] else 'something that says it is write'} {first['found']}, "
                            f"{first['acknowledged']} was acknowledged")
        if bad_chunks:
            problems.append(f"{len(bad_chunks)} chunks of 16 MiB outside the witness's region changed")
        if found["acknowledged"] < promised:
            problems.append(f"it knows of {found['acknowledged']} writes but {promised} were acknowledged")
        if result["rebooted"]:
            problems.append("it rebooted")
    result["ok"] = not problems
    return result
