#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Goal: a running VM moves between two sites, memory and disks together, and nothing is lost: over short and
long lines, with one disk or two, raw or qcow2, working or idle; what libvirt knew of it goes with it, and the
old site keeps its disks aside and nothing else. What cannot move is refused before anything is begun, with
exit status 3 and a message that names the reason."""

import contextlib
import json
import os
import pathlib
import subprocess
import sys

import ferrylab
from ferrylab import (IMAGES, expect, expect_committed, expect_disks_only, expect_equal, expect_moved,
                      expect_nothing_at, expect_stayed, expect_well, expect_words, until, wait_finished)

REPORT = {"disk": ("bytes", "wire_bytes", "copied_ms"), "memory": ("bytes", "wire_bytes", "iterations"),
          "link": ("rtt_ms", "wire_bytes", "outages"), "stun": ("max_percent", "total_ms"),
          "guest_write_latency_us": ("p50", "p99", "max")}
MIB = 1 << 20


def check_report(bed, report, guest, rtt_ms, idle):
    """Every member of the final report, with a value that can be."""
    for key in ("id", "domain", "from", "to", "outcome", "reason", "total_ms", "downtime_ms", *REPORT):
        expect(key in report, f"the report has no member {key}: {report}")
    for key, members in REPORT.items():
        for member in members:
            value = report[key].get(member)
            expect(isinstance(value, (int, float)) and value >= 0, f"report: {key}.{member} is {value!r}")
    record = guest.record()
    expect_equal((report["domain"], report["uuid"], report["from"], report["to"], report["reason"]),
                 (guest.name, record["uuid"], "site-a", "site-b", ""), "report: who, from, to, reason")
    expect(0 < report["downtime_ms"] <= report["total_ms"],
           f"report: downtime {report['downtime_ms']} ms of {report['total_ms']} ms")
    parts = report["downtime_parts_ms"]
    expect_equal(list(parts), ["stop", "tail", "flush", "load", "reply", "commit", "resume"], "the downtime's parts")
    expect(abs(sum(parts.values()) - report["downtime_ms"]) < 2 and min(parts.values()) >= 0,
           f"report: the parts {parts} are not the downtime of {report['downtime_ms']} ms")
    disk, memory, link = report["disk"], report["memory"], report["link"]
    expect(disk["bytes"] >= 59 * MIB, f"report: disk.bytes {disk['bytes']} is less than the files on the disk")
    expect(disk["wire_bytes"] > MIB and memory["wire_bytes"] > MIB and memory["bytes"] > 20 * MIB,
           f"report: too few bytes: {disk}, {memory}")
    operations = memory["codec"]["operations"]
    expect_equal(sum(o["bytes"] for o in operations.values()), memory["bytes"],
                 f"report: the bytes of all operations together: {operations}")
    expect(memory["wire_bytes"] < memory["bytes"], f"report: the codec saved nothing: {memory}")
    expect(memory["iterations"] >= 1, f"report: memory.iterations {memory['iterations']}")
    # The link compresses the disks' bytes on its way; the codec's are compressed already.
    expect(link["wire_bytes"] >= memory["wire_bytes"],
           f"report: the link carried {link['wire_bytes']}, less than the memory: {memory}")
    expect_equal(link["outages"], 0, "report: link.outages")
    expect(link["rtt_ms"] >= 0.9 * rtt_ms, f"report: link.rtt_ms {link['rtt_ms']} on a line of {rtt_ms} ms")
    latency = report["guest_write_latency_us"]
    expect(latency["p50"] <= latency["p99"] <= latency["max"], f"report: latencies are not in order: {latency}")
    expect(idle or latency["count"] > 0, f"report: no guest writes were seen: {latency}")


def moves(bed, rtt=0.2, idle=False, **values):
    bed.line(rtt=rtt)
    guest = bed.guest(**values)
    report = expect_committed(bed.move(guest).end())
    views = wait_finished(bed, report["id"])
    check_report(bed, report, guest, rtt, idle)
    expect_moved(bed, guest)
    expect_equal(set(views), {"site-a", "site-b"}, "sites that remember the move")
    shown = bed.ferry("site-a", "show", report["id"]).document()
    check_report(bed, shown, guest, rtt, idle)
    expect_equal((shown["phase"], shown["finished"]), ("done", True), "show after the end")
    return guest


def short_line(bed):
    """A move over 0.2 ms"""
    moves(bed)


def long_line(bed):
    """A move over 100 ms"""
    moves(bed, rtt=100)


def longest_line(bed):
    """A move over 214 ms"""
    moves(bed, rtt=214)


def opened_ahead(bed):
    """What libvirt calls first of the other libvirtd costs no round trip: nine it would be"""
    bed.line(rtt=1000)
    report = expect_committed(bed.move(bed.guest(files=0)).end())
    wait_finished(bed, report["id"])
    trips = report["phases_ms"]["copying"] / report["link"]["rtt_ms"]
    # Five, and what the new QEMU takes, a second on a machine with nothing else to do; else they would be fourteen.
    expect(trips < 12, f"preparing took {trips:.1f} round trips: {report['phases_ms']}")


def two_disks(bed):
    """A VM with two disks"""
    moves(bed, disks=2)


def qcow2_and_autostart(bed):
    """A qcow2 disk, an empty CD-ROM drive, autostart on: all arrive"""
    guest = bed.guest(format="qcow2")
    bed.alter(guest)
    bed.virsh("site-a", "autostart", guest.name)
    # The drive belongs to the definition: it is there after the VM's next start.
    bed.virsh("site-a", "destroy", guest.name)
    with device(bed, "<disk type='file' device='cdrom'><target dev='hdc' bus='ide'/><readonly/></disk>") as xml:
        bed.virsh("site-a", "attach-device", guest.name, xml, "--config")
    bed.virsh("site-a", "start", guest.name)
    answer = until(lambda: beating(guest), "the guest does not boot again", 60)
    guest.record_file.write_text(json.dumps({**guest.record(), "boot_id": answer["boot_id"]}))
    report = expect_committed(bed.move(guest).end())
    wait_finished(bed, report["id"])
    expect_moved(bed, guest)
    xml = bed.virsh("site-b", "dumpxml", guest.name)
    expect("device='cdrom'" in xml, "the empty CD-ROM drive did not come along")
    image = bed.site("site-b").path(guest.record()["disks"][0])
    info = json.loads(subprocess.run(["qemu-img", "info", "-U", "--output=json", image], check=True,
                                     stdout=subprocess.PIPE).stdout)
    expect_equal((info["format"], info["virtual-size"]), ("qcow2", guest.record()["disk_mib"] << 20),
                 "format and size at the target")
    persistent = bed.virsh("site-b", "dominfo", guest.name)
    expect("Persistent:     yes" in persistent, "the VM is not defined at the target")
    until(lambda: "Autostart:      enable" in bed.virsh("site-b", "dominfo", guest.name),
          "autostart was on at the source and is off at the target", 10)


def beating(guest):
    with contextlib.suppress(ferrylab.LabError):
        return guest.ask("stats", 1)
    return None


def after_stock(bed):
    """A VM whose move by stock libvirt was called off while memory was sent"""
    guest = bed.guest(files=20, disk=64, fill=40)
    site, target = bed.site("site-a"), bed.site("site-b")
    for path in guest.record()["disks"]:
        target.run(["qemu-img", "create", "-q", path, f"{guest.record()['disk_mib']}M"], "create the target's disk")
    bed.line(rate=60)
    stock = subprocess.Popen(
        site.enter(["virsh", "migrate", "--live", "--p2p", "--copy-storage-all", "--copy-storage-synchronous-writes",
                    guest.name, f"qemu+tcp://{target.address}/system"]),
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
    try:
        until(lambda: "Memory remaining" in bed.virsh("site-a", "domjobinfo", guest.name), "no memory is sent")
        bed.virsh("site-a", "domjobabort", guest.name)
        expect(stock.wait(60) != 0, "the move by virsh was not called off")
    finally:
        stock.kill()
        stock.wait()
    for path in guest.record()["disks"]:
        target.path(path).unlink()
    bed.line(rate=1000)
    until(lambda: guest.states().get("site-a") == "running", "libvirt does not let the VM go on after its move")
    report = expect_committed(bed.move(guest).end())
    wait_finished(bed, report["id"])
    expect_moved(bed, guest)


def idle_vm(bed):
    """An idle VM"""
    moves(bed, idle=True, dirty=0, iops=0)


# --- refusals ---


@contextlib.contextmanager
def device(bed, xml):
    path = bed.lab.dir / "device.xml"
    path.write_text(xml)
    try:
        yield path
    finally:
        path.unlink()


@contextlib.contextmanager
def attached(bed, guest, xml):
    with device(bed, xml) as path:
        bed.virsh("site-a", "attach-device", guest.name, path, "--live")
        try:
            yield
        finally:
            bed.virsh("site-a", "detach-device", guest.name, path, "--live")
            until(lambda: "vdz" not in bed.virsh("site-a", "domblklist", guest.name), "the device stays attached")


@contextlib.contextmanager
def file_at(bed, site, path, size=MIB):
    real = bed.site(site).path(path)
    with open(real, "xb") as image:
        image.truncate(size)
    try:
        yield
    finally:
        os.unlink(bed.site(site).path(path))


def expect_refused(bed, guest, words):
    before = (bed.images("site-a"), bed.images("site-b"), bed.domains("site-a"), bed.domains("site-b"))
    result = bed.move(guest).end()
    expect_equal(result.status, 3, f"exit status of what must be refused ({result})")
    report = result.document()
    expect_equal((report["outcome"], report["refused"]), ("aborted", True), "outcome and refusal")
    expect_words(report["reason"], words, "the refusal")
    expect(report["error"]["mend"], f"the refusal does not say what to do: {report['error']}")
    wait_finished(bed, report["id"])
    after = (bed.images("site-a"), bed.images("site-b"), bed.domains("site-a"), bed.domains("site-b"))
    expect_equal(after, before, "files and domains after a refusal")
    expect_equal((bed.socket_folders("site-a"), bed.socket_folders("site-b")), (set(), set()), "socket folders")


EXTRA = """<disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='{path}'/>
<target dev='vdz' bus='virtio'/>{more}</disk>"""


def refused_disks(bed):
    """Refused: a read-only disk, a shareable disk, a disk outside the target's directories, existing files"""
    guest = bed.guest(disk=64, files=0)
    extra = f"{IMAGES}/extra.raw"
    with file_at(bed, "site-a", extra):
        with attached(bed, guest, EXTRA.format(path=extra, more="<readonly/>")):
            expect_refused(bed, guest, ["vdz", "read-only", "detach"])
        with attached(bed, guest, EXTRA.format(path=extra, more="<shareable/>")):
            expect_refused(bed, guest, ["vdz", "shareable", "detach"])
    elsewhere = "/var/lib/libvirt/boot/elsewhere.raw"
    with file_at(bed, "site-a", elsewhere), attached(bed, guest, EXTRA.format(path=elsewhere, more="")):
        expect_refused(bed, guest, ["site-b", "/var/lib/libvirt/boot", "directories"])
    nowhere = "/var/lib/libvirt/elsewhere"
    bed.site("site-a").path(nowhere).mkdir(mode=0o711)
    lost = f"{nowhere}/lost.raw"
    with file_at(bed, "site-a", lost), attached(bed, guest, EXTRA.format(path=lost, more="")):
        expect_refused(bed, guest, ["site-b", nowhere, "No such file"])
    with file_at(bed, "site-b", guest.record()["disks"][0], 5 * MIB):
        expect_refused(bed, guest, ["site-b", guest.record()["disks"][0], "exists already"])
        size = bed.site("site-b").path(guest.record()["disks"][0]).stat().st_size
        expect_equal(size, 5 * MIB, "size of the file that was there before")
    expect_stayed(bed, guest)


def refused_medium(bed):
    """Refused: a CD-ROM drive with a medium in it"""
    guest = bed.guest(disk=64, files=0)
    bed.alter(guest)
    bed.virsh("site-a", "destroy", guest.name)
    medium = f"{IMAGES}/medium.iso"
    with file_at(bed, "site-a", medium):
        with device(bed, f"<disk type='file' device='cdrom'><source file='{medium}'/><target dev='hdc' bus='ide'/>"
                         "<readonly/></disk>") as xml:
            bed.virsh("site-a", "attach-device", guest.name, xml, "--config")
        bed.virsh("site-a", "start", guest.name)
        expect_refused(bed, guest, ["hdc", "medium", "eject"])


def refused_states(bed):
    """Refused: a VM that is paused, or off, or unknown; a name or UUID that exists at the target"""
    guest = bed.guest(disk=64, files=0)
    bed.virsh("site-a", "suspend", guest.name)
    expect_refused(bed, guest, ["paused", "resume"])
    bed.virsh("site-a", "resume", guest.name)
    other = pathlib.Path(bed.lab.dir / "other.xml")
    for uuid in ("3e0fb7a5-4f8c-4a9d-9f3e-000000000001", guest.record()["uuid"]):
        name = guest.name if uuid != guest.record()["uuid"] else "namesake"
        other.write_text(f"<domain type='qemu'><name>{name}</name><uuid>{uuid}</uuid><memory>65536</memory>"
                         "<os><type arch='x86_64'>hvm</type></os></domain>")
        bed.virsh("site-b", "define", other)
        expect_refused(bed, guest, ["site-b", guest.name, "exists"])
        expect(name in bed.domains("site-b"), "the VM of that name at the target is gone")
        bed.virsh("site-b", "undefine", name)
    expect_stayed(bed, guest)
    bed.alter(guest)
    bed.virsh("site-a", "destroy", guest.name)
    expect_refused(bed, guest, ["vm", "not running", "start"])
    result = bed.ferry("site-a", "move", "nobody", "--to", "site-b")
    expect_equal(result.status, 3, f"exit status for a VM that does not exist ({result})")
    expect_words(result.document()["reason"], ["nobody"], "the refusal")


def refused_permissions(bed):
    """Refused: either side does not allow it; the peer is unknown; a target without an address"""
    guest = bed.guest(disk=64, files=0)
    allow = "allow = move-here move-from-here drill"
    with bed.configured("site-a", lambda text: text.replace(allow, "allow = move-here drill")):
        expect_refused(bed, guest, ["site-b", "move-from-here", "allow"])
    with bed.configured("site-b", lambda text: text.replace(allow, "allow = move-from-here drill")):
        expect_refused(bed, guest, ["site-b", "site-a", "move-here", "allow"])
    with bed.configured("site-a", lambda text: text.replace("address = ", "# address = ")):
        expect_refused(bed, guest, ["site-b", "address"])
    result = bed.ferry("site-a", "move", guest.name, "--to", "site-z")
    expect_equal(result.status, 3, f"exit status for an unknown peer ({result})")
    expect_words(result.document()["reason"], ["site-z", "[peer]"], "the refusal")
    expect_stayed(bed, guest)


def journals(bed):
    """The journals of both sites hold no unfinished move"""
    guest = bed.guest(disk=64, files=0)
    report = expect_committed(bed.move(guest).end())
    wait_finished(bed, report["id"])
    expect_well(guest, "site-b")
    expect_nothing_at(bed, "site-a", guest, ["vm.raw"])
    expect_disks_only(bed, "site-b", guest)
    for site, role, state in (("site-a", 0, "committed"), ("site-b", 1, "resumed")):
        bed.lab.ferryds[site].stop()
        records = bed.journal(site)
        expect((report["id"], role, state, 1) in records, f"the journal of {site} says {records}")
        expect(all(r[3] for r in records), f"unfinished moves in the journal of {site}: {records}")


if __name__ == "__main__":
    sys.exit(ferrylab.run("moves", [opened_ahead, longest_line, long_line, short_line, two_disks, qcow2_and_autostart,
                                    after_stock, idle_vm, refused_disks, refused_permissions, refused_states, refused_medium,
                                    journals]))
