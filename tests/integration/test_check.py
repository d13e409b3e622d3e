#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Goal: `ferry check` names every prepared fault, with the site and what to do, exits with 3, and changes nothing; a
move is refused for the same reason. Where nothing is in the way it says what a move will take."""

import contextlib
import pathlib
import re
import sys

import ferrylab
from ferrylab import IMAGES, expect, expect_equal, expect_moved, expect_words, small_images, wait_finished

LIKE = {"files": 40, "disk": 128}
BRIDGE = "br-lab"


def lines(found, verdict):
    return [line for line in found["lines"] if line["verdict"] == verdict]


def check(bed, guest, to="site-b"):
    return bed.ferry("site-a", "check", guest.name, "--to", to)


def named(bed, guest, name, site, words, to="site-b"):
    """The fault is a failing line of that name and site, with a mend; and the reason of a refused move."""
    result = check(bed, guest, to)
    expect_equal(result.status, 3, f"exit status of the check ({result})")
    found = [line for line in lines(result.document(), "fail") if line["name"] == name and line["site"] == site]
    expect(found, f"no failing line '{name}' of '{site}': {result.document()['lines']}")
    expect_words(found[0]["text"], words, f"the line '{name}'")
    expect(found[0]["mend"], f"the line '{name}' does not say what to do")
    move = bed.ferry("site-a", "move", guest.name, "--to", to)
    expect_equal(move.status, 3, f"exit status of the move ({move})")
    expect_words(move.document()["reason"], words, "the reason of the move")


def without(word):
    return lambda text: text.replace(f" {word}", "", 1) if f" {word}" in text else text.replace(f"{word} ", "", 1)


# --- nothing in the way ---


def all_is_well(bed):
    """A VM that can move: every line passes, what it will take is said, and nothing has changed"""
    guest = bed.guest(**LIKE)
    before = bed.virsh("site-a", "dumpxml", guest.name), bed.images("site-b"), bed.domains("site-b")
    result = check(bed, guest)
    found = result.document()
    expect_equal(result.status, 0, f"exit status ({result})")
    expect_equal(lines(found, "fail") + lines(found, "warn"), [], "lines that do not pass")
    names = {line["name"] for line in found["lines"]}
    for name in ("vm", "disks", "devices", "permission", "machine", "cpu", "networks", "storage", "space", "clock",
                 "witness", "link", "load", "convergence", "prediction", "way back", "versions", "autostart", "files",
                 "processors", "memory"):
        expect(name in names, f"nothing is said of {name}: {sorted(names)}")
    expect_equal(found["prediction"]["verdict"], "converges", "the verdict")
    expect(found["prediction"]["total_ms"] > 0 and found["prediction"]["bytes"] > 40e6, f"{found['prediction']}")
    after = bed.virsh("site-a", "dumpxml", guest.name), bed.images("site-b"), bed.domains("site-b")
    expect_equal(after, before, "the VM and the target after the check")
    expect_equal(bed.moves("site-a"), [], "moves that a check left behind")
    expect_equal(bed.ferry("site-a", "check", "nobody", "--to", "site-b").status, 3, "status for no VM")
    expect_equal(bed.ferry("site-a", "check", guest.name).status, 2, "status without --to")


# --- the source ---


def paused(bed):
    """The VM is paused"""
    guest = bed.guest(**LIKE)
    bed.virsh("site-a", "suspend", guest.name)
    try:
        named(bed, guest, "vm", "", ["paused"])
        words = bed.ferry("site-a", "check", guest.name, "--to", "site-b", as_json=False)
        expect_words(words.out, ["would not move", "fail", "paused", "-> resume it", "pass"], "the check for people")
    finally:
        bed.virsh("site-a", "resume", guest.name)


def block_job(bed):
    """A block job runs on one of its disks"""
    guest = bed.guest(**LIKE)
    bed.virsh("site-a", "blockcopy", guest.name, "vda", f"{IMAGES}/copy.raw", "--transient-job", "--bandwidth", "1")
    try:
        named(bed, guest, "jobs", "", ["job"])
    finally:
        bed.virsh("site-a", "blockjob", guest.name, "vda", "--abort")
        bed.site("site-a").path(f"{IMAGES}/copy.raw").unlink(missing_ok=True)


def not_from_here(bed):
    """This site may not send there"""
    with bed.configured("site-a", without("move-from-here")):
        named(bed, bed.guest(**LIKE), "permission", "", ["may not be moved"])


def nobody(bed):
    """There is no such peer"""
    named(bed, bed.guest(**LIKE), "peer", "", ["no peer", "nowhere"], to="nowhere")


# --- the link ---


def target_down(bed):
    """The target's ferryd is down"""
    guest = bed.guest(**LIKE)
    bed.lab.ferryds["site-b"].stop()
    bed.altered.add("site-b")
    bed.restart("site-a")  # a session from before would wait for its peer
    named(bed, guest, "peer", "", ["refused"])


def wrong_key(bed):
    """The target has another key than the configured one"""
    def falsify(text):
        head, fingerprint = text.split("fingerprint = sha256:")
        return head + "fingerprint = sha256:" + ("1" if fingerprint[0] != "1" else "2") + fingerprint[1:]

    guest = bed.guest(**LIKE)
    with bed.configured("site-a", falsify):
        bed.restart("site-a")
        named(bed, guest, "peer", "", ["certificate", "expected"])


# --- the target ---


def not_taken(bed):
    """The target does not take VMs from here"""
    with bed.configured("site-b", without("move-here")):
        named(bed, bed.guest(**LIKE), "permission", "site-b", ["does not take"])


def namesake(bed):
    """The target has a VM of that name"""
    guest = bed.guest(**LIKE)
    xml = bed.site("site-b").path("/run/ferry/namesake.xml")
    xml.write_text(f"<domain type='qemu'><name>{guest.name}</name><memory>1024</memory>"
                   "<os><type arch='x86_64'>hvm</type></os></domain>")
    bed.virsh("site-b", "define", "/run/ferry/namesake.xml")
    try:
        named(bed, guest, "name", "site-b", ["exists already"])
    finally:
        bed.virsh("site-b", "undefine", guest.name)


def file_in_the_way(bed):
    """The target has a file where a disk belongs"""
    guest = bed.guest(**LIKE)
    path = bed.site("site-b").path(guest.record()["disks"][0])
    path.write_text("somebody's\n")
    try:
        named(bed, guest, "storage", "site-b", ["exists already"])
        expect_equal(path.read_text(), "somebody's\n", "the file in the way")
    finally:
        path.unlink()


def no_space(bed):
    """The target has too little space"""
    with small_images(bed, "site-b", 100):
        named(bed, bed.guest(**LIKE), "space", "site-b", ["MiB", "free"])


def folder_not_allowed(bed):
    """The target's configuration does not name the folder"""
    guest = bed.guest(**LIKE)
    path = bed.site("site-b").path(ferrylab.CONFIG)
    before = path.read_text()
    path.write_text(before.replace(f"directories = {IMAGES}", "directories = /srv"))
    try:
        bed.restart("site-b")
        named(bed, guest, "storage", "site-b", ["may not create"])
    finally:
        path.write_text(before)
        bed.restart("site-b")


def no_libvirt(bed):
    """The target's libvirtd is down"""
    guest = bed.guest(**LIKE)
    bed.site("site-b").libvirtd.kill()
    try:
        named(bed, guest, "libvirt", "site-b", ["libvirt"])
    finally:
        bed.start_libvirtd_again("site-b")


# --- what changes the guest for good: last ---


def network(bed):
    """A network is missing at the target; with its name there in the configuration the VM moves to it"""
    guest = bed.guest(**LIKE)
    bed.alter(guest)
    for site, name in (("site-a", BRIDGE), ("site-b", "br-there")):
        bed.site(site).run(["ip", "link", "add", name, "type", "bridge"], "make a bridge")
    xml = bed.site("site-a").path("/run/ferry/interface.xml")
    xml.write_text(f"<interface type='bridge'><source bridge='{BRIDGE}'/><model type='virtio'/></interface>")
    bed.virsh("site-a", "attach-device", guest.name, "/run/ferry/interface.xml", "--live", "--config")
    named(bed, guest, "networks", "site-b", [BRIDGE])
    with bed.configured("site-a", lambda text: text.rstrip("\n") + f"\nnetworks = {BRIDGE}:br-there\n"):
        expect_equal(check(bed, guest).status, 0, "exit status of the check with the network's name there")
        move = bed.move(guest).end()
        expect_equal(move.status, 0, f"exit status of the move ({move})")
        wait_finished(bed, move.document()["id"])
    expect_moved(bed, guest)
    for which in ((), ("--inactive",)):
        definition = bed.virsh("site-b", "dumpxml", guest.name, *which)
        expect("br-there" in definition and BRIDGE not in definition, f"its definition there: {definition}")
    expect(move.document()["prediction"]["known"], "a move predicts nothing, soon after a check")


def file_missing(bed):
    """A file that QEMU opens beside the disks is missing at the target: the kernel that the guest boots"""
    guest = bed.guest(**LIKE)
    kernel = re.search("<kernel>(.*)</kernel>", bed.virsh("site-a", "dumpxml", guest.name)).group(1)
    folder = pathlib.Path(kernel).parent
    bed.site("site-b").run(["mount", "-t", "tmpfs", "tmpfs", folder], "hide the kernel")
    try:
        named(bed, guest, "files", "site-b", [kernel, "kernel"])
    finally:
        bed.site("site-b").run(["umount", folder], "show the kernel")
    expect_equal(check(bed, guest).status, 0, "exit status when it is there")


def two_faults_at_once(bed):
    """A snapshot and its backing file: both are named"""
    guest = bed.guest(**{**LIKE, "iops": 10})
    bed.alter(guest)
    bed.virsh("site-a", "snapshot-create-as", guest.name, "one", "--disk-only", "--no-metadata")
    named(bed, guest, "disks", "", ["backing file"])
    bed.virsh("site-a", "snapshot-create-as", guest.name, "two", "--disk-only")
    found = {line["name"] for line in lines(check(bed, guest).document(), "fail")}
    expect_equal(found, {"disks", "snapshots"}, "failing lines")
    with contextlib.suppress(ferrylab.LabError):
        bed.virsh("site-a", "snapshot-delete", guest.name, "two", "--metadata")


if __name__ == "__main__":
    sys.exit(ferrylab.run("check", [all_is_well, paused, block_job, not_from_here, nobody, target_down, wrong_key, not_taken,
                                    namesake, file_in_the_way, no_space, folder_not_allowed, no_libvirt,
                                    two_faults_at_once, network, file_missing]))
