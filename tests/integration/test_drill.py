#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Goal: a drill rehearses a whole move and changes nothing. Its clone is complete as of the stop, under another name,
marked, without a network, while the VM runs on at the source; afterwards it is gone with all that was made for it.
Whichever ferryd dies at whatever point, the VM runs on at the source, whole, and no clone is left."""

import contextlib
import os
import pathlib
import sys

import ferrylab
from ferrylab import (domain_names, expect, expect_equal, expect_failed, expect_rehearsed, expect_words, until,
                      wait_finished, witness)

CONF = {"link.outage_limit_s": 3, "link.stripe_timeout_s": 2}
LIKE = {"files": 24, "disk": 64, "dirty": 4, "dirty_set": 16, "iops": 50}
FOLDER = "/etc/ferry/drill.d"
BRIDGE = "br-lab"
# Says that it is there, and waits until the test has looked at the clone.
WAIT = """#!/bin/sh
env | grep ^FERRY_DRILL
touch /run/ferry/here
while [ ! -e /run/ferry/go ]; do sleep 0.1; done
echo "nice $(nice)"
exit $(cat /run/ferry/go)
"""


class Drill(ferrylab.Move):
    """A `ferry --json drill` under way."""

    def __init__(self, bed, guest, *words):
        super().__init__(bed, guest.name, "site-a", "site-b", *words, command="drill")


def run_at(bed, name):
    return bed.site("site-b").path(f"/run/ferry/{name}")


def command(bed, name, text):
    folder = bed.site("site-b").path(FOLDER)
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(text)
    (folder / name).chmod(0o755)
    for each in ("here", "go"):
        run_at(bed, each).unlink(missing_ok=True)


def clone_of(guest, drill):
    return f"{guest.name}.drill-{drill.id}"


def expect_drilled(bed, guest, result, status=0, verdict="passed", old=()):
    expect_equal(result.status, status, f"exit status of the drill ({result})")
    report = result.document()
    expect_equal((report["outcome"], report["drill"]["verdict"]), ("drilled", verdict), "outcome and verdict")
    wait_finished(bed, report["id"])
    expect_rehearsed(bed, guest, old=old)
    return report


def nice_of_threads(pid):
    """By thread's name; the loop's is the process's own."""
    stats = [path.read_text() for path in pathlib.Path(f"/proc/{pid}/task").glob("*/stat")]
    return {stat[stat.index("(") + 1:stat.rindex(")")] if int(stat.split()[0]) != pid else "loop":
            int(stat.rpartition(")")[2].split()[16]) for stat in stats}


def whole(bed):
    """A drill under load: the clone is complete and isolated, the VM untouched, and nothing is left"""
    guest = bed.guest(**LIKE)
    bed.alter(guest)
    for site in ("site-a", "site-b"):
        bed.site(site).run(["ip", "link", "add", BRIDGE, "type", "bridge"], "make a bridge")
    bed.site("site-a").path("/run/ferry/interface.xml").write_text(
        f"<interface type='bridge'><source bridge='{BRIDGE}'/><model type='virtio'/></interface>")
    bed.virsh("site-a", "attach-device", guest.name, "/run/ferry/interface.xml", "--live")
    command(bed, "wait", WAIT)
    before = bed.virsh("site-a", "dumpxml", guest.name, "--inactive")
    drill = Drill(bed, guest, "--run", "wait")
    until(run_at(bed, "here").exists, lambda: f"the command never ran: {drill.view()}")
    clone = clone_of(guest, drill)
    expect_equal((bed.domains("site-a"), bed.domains("site-b")), ({guest.name: "running"}, {clone: "running"}), "VMs")
    xml = bed.virsh("site-b", "dumpxml", clone)
    expect_words(xml, ["urn:ferry:drill:1", f'move="{drill.id}"', f'of="{guest.name}"', "<link state='down'/>"],
                 "the clone's definition")
    expect(not bed.virsh("site-b", "list", "--all", "--name", "--persistent").strip(), "the clone is defined")
    acknowledged = guest.ask("stats")["acknowledged"]
    found = witness.ask(bed.site("site-b"), guest.name, "verify", 60)
    bad = {key: found[key] for key in ("lost_writes", "bad_blocks", "write_errors", "bad_pages") if found[key]}
    expect_equal(bad, {}, "what is wrong with the clone")
    expect_equal(found["boot_id"], guest.record()["boot_id"], "the clone's boot: memory and all")
    until(lambda: guest.ask("stats")["acknowledged"] > acknowledged, "the VM does not go on beside its clone")
    nice = nice_of_threads(bed.ferryd_pid("site-b"))
    expect_equal((nice["loop"], nice["ferry-files"]), (-10, os.nice(0)), f"who comes first ({nice})")
    run_at(bed, "go").write_text("0")
    report = expect_drilled(bed, guest, drill.end())
    expect_words(report["drill"]["output"], [f"nice {os.nice(0)}"], "the command's priority")
    expect(report["downtime_ms"] >= 0, f"how long the VM stood still is not said: {report['downtime_ms']}")
    expect_words(report["drill"]["output"], [f"FERRY_DRILL_CLONE={clone}", f"FERRY_DRILL_ID={drill.id}"], "the output")
    expect_equal(bed.virsh("site-a", "dumpxml", guest.name, "--inactive"), before, "the VM's definition")


def verdicts(bed):
    """Without a command it is enough that the clone runs; one that fails is the verdict; a disk can be kept"""
    guest = bed.guest(**LIKE)
    command(bed, "look", "#!/bin/sh\necho no good\nexit 7\n")
    result = bed.ferry("site-a", "drill", guest.name, "--to", "site-b", "--run", "look", "--keep-disk")
    report = expect_drilled(bed, guest, result, 1, "failed",
                            {pathlib.Path(path).name for path in guest.record()["disks"]})
    expect_equal(report["drill"]["exit_status"], 7, "the command's exit status")
    expect_words(report["drill"]["output"], ["no good"], "the output")
    for path in bed.site("site-b").path(ferrylab.IMAGES).glob("*.ferry-old"):
        path.unlink()
    expect_drilled(bed, guest, Drill(bed, guest).end())


def refused(bed):
    """No permission, no such command, or one that others could change: refused before anything begins"""
    guest = bed.guest(**LIKE)
    command(bed, "loose", "#!/bin/sh\n")
    bed.site("site-b").path(f"{FOLDER}/loose").chmod(0o777)
    for words, said in ((("--run", "nothing"), ["no command"]), (("--run", "loose"), ["others than root"]),
                        (("--run", "../../bin/true"), None)):
        result = Drill(bed, guest, *words).child
        out, err = result.communicate(timeout=30)
        expect(result.returncode in (2, 3), f"exit status {result.returncode} with {words}: {out} {err}")
        if said:
            expect_words(out, said, "the reason")
    for site in ("site-a", "site-b"):
        with bed.configured(site, lambda text: text.replace(" drill", "")):
            expect_failed(Drill(bed, guest).end(), ["drill", "may not" if site == "site-a" else "does not take"], 3)
    expect_rehearsed(bed, guest)


@contextlib.contextmanager
def drilling(bed):
    """A guest and its drill, whose command waits."""
    guest = bed.guest(**LIKE)
    command(bed, "wait", WAIT)
    drill = Drill(bed, guest, "--run", "wait")
    until(run_at(bed, "here").exists, lambda: f"the command never ran: {drill.view()}")
    yield guest, drill
    wait_finished(bed, drill.id)
    expect_rehearsed(bed, guest)
    left = bed.site("site-b").run(["sh", "-c", "pgrep -f /etc/ferry/[d]rill.d/ || true"], "look for commands").split()
    expect_equal(left, [], "commands that go on")


def cancelled(bed):
    """Cancelled while the clone runs"""
    with drilling(bed) as (guest, drill):
        expect_equal(bed.ferry("site-a", "cancel", drill.id).status, 0, "exit status of the cancel")
        expect_failed(drill.end(), ["cancelled"])


def line_lost(bed):
    """The line is gone for longer than the limit while the clone runs; neither site can commit it by its operator's word"""
    with drilling(bed) as (guest, drill):
        for site in ("site-a", "site-b"):
            for where in ("source", "target"):
                expect_equal(bed.ferry(site, "resolve", drill.id, "--run-at", where).status, 1, "exit status of resolve")
        bed.cut()
        until(lambda: not domain_names(bed, "site-b"), "the clone outlives the line")
        bed.mend()
        expect_failed(drill.end(), ["link"])


def killed(site, failpoint):
    def case(bed):
        guest = bed.guest(**LIKE)
        bed.restart(site, f"{failpoint}:kill")
        drill = Drill(bed, guest)
        move_id = drill.id
        bed.wait_dead(site)
        bed.start(site)
        drill.child.communicate(timeout=ferrylab.PATIENCE_S)
        views = wait_finished(bed, move_id)
        expect("committed" not in {v["outcome"] for v in views.values()}, f"{views}")
        expect_rehearsed(bed, guest)

    case.__name__ = f"killed_{failpoint.replace('-', '_')}_{site[-1]}"
    case.__doc__ = f"ferryd of {site} is killed at {failpoint}"
    return case


KILLS = [killed("site-a", "before-drill-end"), killed("site-a", "before-drill"), killed("site-a", "after-drilled"),
         killed("site-b", "after-prepared-journal"), killed("site-b", "after-clone"), killed("site-b", "before-drilled")]


if __name__ == "__main__":
    sys.exit(ferrylab.run("drill", [verdicts, refused, cancelled, line_lost, *KILLS, whole], CONF))
