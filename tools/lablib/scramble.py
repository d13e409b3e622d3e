# SPDX-License-Identifier: Apache-2.0
"""Moves after which the disks are compared byte by byte, at the one moment at which that means something: the source
has stopped, the target has promised and not resumed. A failpoint stops the target's ferryd there. Until the memory is
sent the last disk of the guest is written at random, by seed: writes that overlap, of any sector, zeroes, trims,
through QEMU (which such a write would kill once the guest has stopped); until the guest stops, it writes its own."""

import contextlib
import json
import os
import pathlib
import random
import signal
import subprocess
import threading

import libvirt
import libvirt_qemu

from .base import LabError, built, wait_until
from .guest import REGION_MIB

FAILPOINT = {"FERRY_FAILPOINT": "after-committed-journal:stop"}
SECTOR = 512
WAIT_S = 60


class Scrambler(threading.Thread):
    """Writes until the memory is sent; `count` operations were done."""

    def __init__(self, guest, site, seed):
        super().__init__(daemon=True)
        record = guest.record()
        self.name = guest.name
        self.connection = site.connect()
        self.domain = self.connection.lookupByName(guest.name)
        self.device = f"/machine/peripheral/virtio-disk{len(record['disks']) - 1}/virtio-backend"
        self.size = record["disk_mib"] << 20
        self.chance = random.Random(seed)
        self.ended, self.count = threading.Event(), 0
        self.log = open(guest.lab.ferryds[site.name].daemon.log, encoding="utf-8", errors="replace")
        self.log.seek(0, os.SEEK_END)

    def _command(self):
        most = self.chance.choice((8, 64, 512, 2048))
        length = SECTOR * self.chance.randint(1, most)
        first = REGION_MIB << 20
        # half of them close together, so that they overlap
        span = self.size - first - length if self.chance.random() < 0.5 else 1 << 20
        at = first + SECTOR * self.chance.randrange(span // SECTOR)
        what = self.chance.random()
        if what < 0.6:
            return f"write -q -P {self.chance.randint(1, 255)} {at} {length}"
        return f"{'write -q -z' if what < 0.75 else 'write -q -z -u' if what < 0.85 else 'discard -q'} {at} {length}"

    def run(self):
        with contextlib.closing(self.connection), self.log:
            while not self.ended.is_set() and "-> memory" not in self.log.read():
                try:
                    libvirt_qemu.qemuMonitorCommand(self.domain, f'qemu-io -d {self.device} "{self._command()}"',
                                                    libvirt_qemu.VIR_DOMAIN_QEMU_MONITOR_COMMAND_HMP)
                except libvirt.libvirtError:
                    return
                self.count += 1
                self.ended.wait(self.chance.random() / 50)

    def stop(self):
        self.ended.set()
        self.join()


def prepare(guest):
    """Both ferryds stop where the disks can be compared; the last disk is nobody's but the scrambler's."""
    record = guest.record()
    record["hashes"][-1] = None
    guest.record_file.write_text(json.dumps(record))
    for ferryd in guest.lab.ferryds.values():
        ferryd.stop()
        ferryd.start(FAILPOINT)


def _is_stopped(pid):
    return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def _equal(left, right, path):
    return subprocess.run(["cmp", "-s", left.path(path), right.path(path)], check=False).returncode == 0


def move(guest, seed):
    """One move to the other site under the scrambler: (disks are equal, operations, ferry's report)."""
    source = guest.only_site()
    target = guest.lab.other(source.name)
    pid = guest.lab.ferryds[target.name].daemon.pid()
    scrambler = Scrambler(guest, source, seed)
    scrambler.start()
    argv = [built("tools/ferry/ferry"), "--json", "move", guest.name, "--to", target.name]
    child = subprocess.Popen(source.enter(argv),
                             stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        wait_until(lambda: _is_stopped(pid) or child.poll() is not None, WAIT_S)
        if not _is_stopped(pid):
            raise LabError(f"the move with seed {seed} did not come to the switchover: {child.communicate()}",
                           "is this a build with failpoints (build/dev)?")
        equal = all(_equal(source, target, path) for path in guest.record()["disks"])
    finally:
        scrambler.stop()
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)
        out, err = child.communicate(timeout=WAIT_S)
    if child.returncode != 0:
        raise LabError(f"the move with seed {seed} failed: {out} {err}")
    report = json.loads(out)
    _wait_gone(guest, source)
    return equal, scrambler.count, report


def _wait_gone(guest, source):
    """The source is through with it: the next move may come back."""
    paths = [source.path(path) for path in guest.record()["disks"]]
    if not wait_until(lambda: not any(path.exists() for path in paths) and guest.name not in source.domains(), WAIT_S):
        raise LabError(f"{source.name} keeps {guest.name} after its move")
