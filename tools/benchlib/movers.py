# SPDX-License-Identifier: Apache-2.0
"""The ways to move a guest: ferry, and stock libvirt in its modes."""

import json
import subprocess

from lablib.base import LabError, built

# Flags on top of `virsh migrate --live --p2p --persistent --undefinesource --copy-storage-all`.
SYNC = ["--copy-storage-synchronous-writes"]
VIRSH_MODES = {
    "virsh-sync": SYNC,
    "virsh-background": [],
    "virsh-multifd": [*SYNC, "--parallel", "--parallel-connections", "4"],
    "virsh-xbzrle": [*SYNC, "--compressed", "--comp-methods", "xbzrle", "--auto-converge"],
    "virsh-auto-converge": [*SYNC, "--auto-converge"],
    "virsh-postcopy": ["--postcopy", "--postcopy-after-precopy"],
    "virsh-hybrid": [*SYNC, "--postcopy", "--postcopy-after-precopy"],
}


# ferry as it is shipped, and in other modes. Gentle: held by no more than what converges, for as long as it takes.
FERRY_MODES = {
    "ferry": [],
    "ferry-gentle": ["--set", "resend_percent=10000"],
    "ferry-postcopy": ["--policy", "post-copy"],
    **{f"ferry-{name}": ["--policy", name]
       for name in ("minimal-downtime", "suspend-if-needed", "lan-direct", "very-large")},
}


class NotFinished(Exception):
    """The move did not end in its time and was called off; the guest is where it was."""


def _run(site, argv, time_limit_s, give_up):
    """Runs a mover's command inside the source site. Its output, or NotFinished."""
    process = subprocess.Popen(site.enter(argv), env=site.environment(), text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL)
    try:
        out, err = process.communicate(timeout=time_limit_s)
    except subprocess.TimeoutExpired:
        give_up()
        try:
            process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
        raise NotFinished(f"not finished in {time_limit_s:g} s") from None
    except BaseException:
        process.kill()
        process.communicate()
        raise
    return process.returncode, out, err


class VirshMove:
    """virsh migrate, peer to peer, over TCP between the two libvirtds."""

    def __init__(self, mode):
        self.name = mode
        self.flags = VIRSH_MODES[mode]

    def prepare(self, guest, target):
        """Stock libvirt wants the target's disks to exist."""
        record = guest.record()
        for path in record["disks"]:
            target.path(path).unlink(missing_ok=True)
            target.run(["qemu-img", "create", "-q", "-f", record["format"], path, f"{record['disk_mib']}M"],
                       "create the target's disk")

    def move(self, guest, source, target, time_limit_s):
        status, out, err = _run(
            source, ["virsh", "migrate", "--live", "--p2p", "--persistent", "--undefinesource",
                     "--copy-storage-all", *self.flags, guest.name, f"qemu+tcp://{target.address}/system"],
            time_limit_s, lambda: source.run(["virsh", "domjobabort", guest.name], "abort the migration"))
        if status != 0:
            raise LabError(f"virsh migrate failed: {(err or out).strip()}")
        words = target.run(["virsh", "domjobinfo", guest.name, "--completed", "--rawstats"],
                           "ask for the migration's figures")
        return {"memory": {"wire_bytes": _memory_bytes(words)}}

    def clean(self, guest, left):
        """What a finished move leaves at the site it left."""
        for path in guest.record()["disks"]:
            left.path(path).unlink(missing_ok=True)


def _memory_bytes(words):
    """QEMU's count of the bytes it sent for RAM."""
    for line in words.splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "Memory processed":
            return int(value.split()[0])
        if key.strip() == "memory_processed":
            return int(value)
    return None


class FerryMove:
    def __init__(self, mode="ferry"):
        self.name = mode
        self.words = FERRY_MODES[mode]

    def prepare(self, guest, target):
        """Its target creates what it needs; what an earlier stock move left is not its business."""
        for path in guest.record()["disks"]:
            target.path(path).unlink(missing_ok=True)

    def move(self, guest, source, target, time_limit_s):
        ferry = built("tools/ferry/ferry")
        status, out, err = _run(
            source, [ferry, "--json", "move", guest.name, "--to", target.name, *self.words], time_limit_s,
            lambda: _cancel(source, ferry))
        try:
            report = json.loads(out)
        except ValueError:
            report = {}
        if status != 0:
            why = report.get("reason") or err.strip() or out.strip()
            raise LabError(f"ferry move failed (exit status {status}): {why}")
        return report

    def clean(self, guest, left):
        for path in guest.record()["disks"]:
            left.path(path).unlink(missing_ok=True)


def _cancel(source, ferry):
    moves = json.loads(source.run([ferry, "--json", "list"], "list the moves"))
    for move in moves.get("moves", []) if isinstance(moves, dict) else moves:
        if move.get("outcome") == "running":
            source.run([ferry, "cancel", move["id"]], "cancel the move")


def mover(mode):
    return FerryMove(mode) if mode in FERRY_MODES else VirshMove(mode)
