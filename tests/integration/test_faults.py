#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Goal: whatever fails, in whatever phase of a move, at no time do two copies of the VM run; in the end exactly
one does (or the VM was killed, and is off or booted anew at one site), the witness in it misses nothing, both
sites agree on the end, and nothing is left over at either.

The matrix: {killed, stalled for 20 s} x {ferryd, QEMU, libvirtd of either site}, {line cut, cut one way,
connections reset} and a cancel, in each phase; the target's disk full or failing, either journal's disk full, the
guest ended, two moves of one VM. By default a sample runs, always the same (FERRY_FAULT_SEED=N chooses another);
--all runs everything and prints the table of docs/reliability.md; words choose the cases whose name contains them
all."""

import contextlib
import functools
import os
import random
import sys

import faultcases
import ferrylab
from faultcases import GATES, LINKS, VICTIMS, Case
from ferrylab import expect, expect_equal, expect_nothing_at, until, wait_finished
from watchers import NeverTwoWhateverDies

CONF = {"link.outage_limit_s": 5, "link.stripe_timeout_s": 2}
SAMPLE, SAMPLE_STALLS = 17, 3  # about four minutes
# Its sample meets every phase, and 13 of the 16 kinds of fault.
DEFAULT_SEED = 452
JOURNAL = "/var/lib/ferry"


def disk_full(bed, _):
    """The target's file system fills up during the copy."""
    bed.guest(**faultcases.LIKE)  # an earlier case may have left it where the images are about to be hidden
    with ferrylab.small_images(bed, "site-b", 120):
        case = Case(bed, "copying")
        with NeverTwoWhateverDies(bed, case.guest.name):
            case.begin()
            filler = bed.site("site-b").path(f"{ferrylab.IMAGES}/filler")
            with open(filler, "wb") as file, contextlib.suppress(OSError):
                while True:
                    file.write(bytes(1 << 20))
                    file.flush()
            until(lambda: case.move.view()["outcome"] == "aborted", "the full disk does not end the move")
            filler.unlink(missing_ok=True)
            return case.finish()


def disk_fails(bed, _):
    """The target's disk answers with EIO from some moment of the copy on."""
    bed.guest(**faultcases.LIKE)
    with ferrylab.brittle_images(bed, "site-b", 300) as break_it:
        case = Case(bed, "copying")
        with NeverTwoWhateverDies(bed, case.guest.name):
            case.begin()
            break_it()
            until(lambda: case.move.view()["outcome"] == "aborted", "the broken disk does not end the move")
            return case.finish()


def journal_full(role, bed, _):
    """No space for the record that decides: that ferryd stops, and recovers once there is space again."""
    site = "site-a" if role == "source" else "site-b"
    bed.lab.ferryds[site].stop()
    with ferrylab.small_folder(bed, site, JOURNAL, 1):
        bed.start(site)
        case = Case(bed, "mirroring")
        with NeverTwoWhateverDies(bed, case.guest.name):
            case.begin()
            filler = bed.site(site).path(f"{JOURNAL}/filler")
            with open(filler, "wb", buffering=0) as file, contextlib.suppress(OSError):
                while True:
                    file.write(bytes(512))
            case.open_gate()
            bed.wait_dead(site)
            expect("promises that are not durable" in bed.ferryd_log(site), f"ferryd of {site} does not say why")
            filler.unlink()
            bed.start(site)
            return case.finish()


def guest_ends(phase, bed, _):
    """The guest is off by somebody else's doing."""
    case = Case(bed, phase)
    with NeverTwoWhateverDies(bed, case.guest.name):
        case.begin()
        bed.alter(case.guest)
        bed.virsh(case.source, "destroy", case.guest.name)
        case.open_gate()
        bed.line(rate=faultcases.FAST_MBIT)
        expect_equal(case.move.end().status, 1, "exit status of the move")
        wait_finished(bed, case.move.id)
        expect_nothing_at(bed, case.target, case.guest, case.old)
        expect_equal(bed.domains(case.source).get(case.guest.name), "shut off", "the domain at the source")
        return "aborted, VM off"


def two_moves(bed, _):
    """A second move of the same VM is refused, from either end, and does not disturb the first."""
    case = Case(bed, "mirroring")
    with NeverTwoWhateverDies(bed, case.guest.name):
        case.begin()
        second = bed.ferry(case.source, "move", case.guest.name, "--to", case.target)
        expect_equal(second.status, 3, f"exit status of the second move ({second})")
        back = bed.ferry(case.target, "move", case.guest.name, "--to", case.source)
        expect_equal(back.status, 3, f"exit status of a move of the half-made copy ({back})")
        case.open_gate()
        expect_equal(case.finish(), "committed", "the first move")
        return "committed"


def in_phase(fault, bed, phase):
    return faultcases.run(bed, phase, fault)


def matrix():
    """Name -> (function of bed and phase, phase)."""
    cases = {}
    for phase in GATES:
        for victim in VICTIMS:
            if victim == "target QEMU" and phase == "preparing":
                continue  # there is none yet
            cases[f"{victim} killed, {phase}"] = (functools.partial(in_phase, lambda c, v=victim: c.kill(v)), phase)
            cases[f"{victim} stalled, {phase}"] = (functools.partial(in_phase, lambda c, v=victim: c.stall(v)), phase)
        for how in LINKS:
            cases[f"link {how}, {phase}"] = (functools.partial(in_phase, lambda c, h=how: c.disturb(h)), phase)
        cases[f"cancel, {phase}"] = (functools.partial(in_phase, lambda c: c.cancel()), phase)
    cases["target disk full, copying"] = (disk_full, "copying")
    cases["target disk failing, copying"] = (disk_fails, "copying")
    for role in ("source", "target"):
        cases[f"{role} journal disk full, mirroring"] = (functools.partial(journal_full, role), "mirroring")
    for phase in ("copying", "mirroring", "memory"):
        cases[f"guest ends, {phase}"] = (functools.partial(guest_ends, phase), phase)
    cases["two moves, mirroring"] = (two_moves, "mirroring")
    return cases


def sample(cases, seed):
    chosen = random.Random(seed)
    stalls = [name for name in cases if "stalled" in name]
    others = [name for name in cases if "stalled" not in name]
    return chosen.sample(others, SAMPLE - SAMPLE_STALLS) + chosen.sample(stalls, SAMPLE_STALLS)


def choose(cases, words):
    if "--all" in words:
        return list(cases)
    if words:
        return [name for name in cases if all(word in name for word in words)]
    seed = int(os.environ.get("FERRY_FAULT_SEED", DEFAULT_SEED))
    print(f"FERRY_FAULT_SEED={seed} runs this sample again")
    return sample(cases, seed)


def print_table(cases, results):
    columns = list(GATES)
    rows = {}
    for name, result in results.items():
        what, _, phase = name.rpartition(", ")
        rows.setdefault(what, {})[phase] = result
    print(f"\n| fault | {' | '.join(columns)} |\n|---|{'---|' * len(columns)}")
    for what, found in rows.items():
        print(f"| {what} | {' | '.join(found.get(phase, '') for phase in columns)} |")
    bad = [name for name, result in results.items() if result.startswith("FAIL")]
    print(f"\n{len(results)} of {len(cases)} cases, {len(bad)} violations")


def main():
    cases = matrix()
    chosen = choose(cases, sys.argv[1:])
    results = {}

    def one(name, bed):
        function, phase = cases[name]
        results[name] = "FAIL"
        results[name] = function(bed, phase)
        print(f"    {results[name]}")

    functions = []
    for name in chosen:
        function = functools.partial(one, name)
        function.__doc__ = function.__name__ = name
        functions.append(function)
    status = ferrylab.run_all("faults", functions, CONF,
                              ferrylab.TEST_LIMIT_S if len(chosen) <= 2 * SAMPLE else 4 * 3600)
    print_table(cases, results)
    return status


if __name__ == "__main__":
    sys.exit(main())
