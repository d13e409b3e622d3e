#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Goal: one fault that stock libvirt answers with two running copies leaves exactly one with ferry. The fault:
libvirt's reply to FINISH3, the call that ends a migration at the target, never reaches the source. Stock
libvirt must end with two running copies here, or this test could not fail. With ferry the reply is lost in every
place it passes, several times over: at no time do two copies run, and once the fault is mended exactly one does,
whole, with both sites of one mind."""

import socket
import struct
import subprocess
import sys
import threading
import time

import ferrylab
from ferrylab import expect, expect_equal, expect_moved, expect_stayed, until, wait_finished
from watchers import NeverTwo

CONF = {"link.outage_limit_s": 1, "link.stripe_timeout_s": 2}
LIKE = ferrylab.SMALL_GUEST
REPETITIONS = 5
STOCK_REPETITIONS = 2

# Of libvirt's RPC: src/remote/remote_protocol.x, src/rpc/virnetprotocol.x.
REMOTE_PROGRAM = 0x20008086
FINISH3_PARAMS = 306
TYPE_REPLY = 1


class CuttingProxy:
    """Carries libvirt RPC between a UNIX socket at one site and libvirtd of the other, frame by frame, and
    ends both connections where the reply to FINISH3 would go back."""

    def __init__(self, site, path, target):
        self.path = site.path(path)
        self.target = str(target.path("/run/libvirt/libvirt-sock"))
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(self.path))
        self.listener.listen()
        self.cut = threading.Event()
        self.open = []

    def __enter__(self):
        threading.Thread(target=self.accept, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.listener.close()
        self.end()
        self.path.unlink(missing_ok=True)

    def end(self):
        for each in self.open:
            try:
                each.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # ended by itself

    def accept(self):
        while True:
            try:
                source, _ = self.listener.accept()
            except OSError:
                return
            target = socket.socket(socket.AF_UNIX)
            target.connect(self.target)
            self.open += [source, target]
            for one, other in ((source, target), (target, source)):
                threading.Thread(target=self.carry, args=(one, other), daemon=True).start()

    @staticmethod
    def read(connection, length):
        data = b""
        while len(data) < length:
            more = connection.recv(length - len(data))
            if not more:
                raise OSError("ended")
            data += more
        return data

    def carry(self, one, other):
        try:
            while True:
                header = self.read(one, 28)
                length, program, _, procedure, kind, _, _ = struct.unpack(">7I", header)
                body = self.read(one, length - 28)
                if (program, procedure, kind) == (REMOTE_PROGRAM, FINISH3_PARAMS, TYPE_REPLY):
                    self.cut.set()
                    break
                other.sendall(header + body)
        except OSError:
            pass
        self.end()


def running(bed, guest):
    return sorted(site.name for site in guest.running_at())


def stock(bed):
    """Stock libvirt ends with two running copies, on every repetition"""
    for _ in range(STOCK_REPETITIONS):
        guest = bed.guest(**LIKE)
        bed.alter(guest)
        source, target = bed.site("site-a"), bed.site("site-b")
        record = guest.record()
        target.run(["qemu-img", "create", "-q", "-f", "raw", record["disks"][0], f"{record['disk_mib']}M"],
                   "create the target's disk")
        with CuttingProxy(source, "/run/libvirt/stock.sock", target) as proxy:
            done = subprocess.run(
                source.enter(["virsh", "migrate", "--live", "--p2p", "--persistent", "--undefinesource",
                              "--copy-storage-all", "--copy-storage-synchronous-writes", guest.name,
                              "qemu+unix:///system?socket=/run/libvirt/stock.sock", "--migrateuri",
                              f"tcp://{target.address}"]),
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, timeout=120)
            expect(proxy.cut.is_set(), f"the reply to FINISH3 never came by: {done.stdout}")
        expect(done.returncode != 0, "virsh migrate says that it succeeded")
        until(lambda: running(bed, guest) == ["site-a", "site-b"],
              lambda: f"stock libvirt does not end with two running copies, but with {guest.states()}", 40)
        time.sleep(2)  # for good
        expect_equal(running(bed, guest), ["site-a", "site-b"], "sites where stock libvirt leaves a copy running")
        guest.stop()


def lost_on_the_line(bed):
    """Ferry: the line goes down when the reply is about to cross it: one copy, every time"""
    for _ in range(REPETITIONS):
        guest = bed.guest(**LIKE)
        bed.restart("site-b", "after-prepared-journal:stop")
        with NeverTwo(bed, guest.name):
            move = bed.move(guest)
            bed.wait_stopped("site-b")
            bed.cut()
            bed.resume("site-b")  # FINISH3 passes to the target's libvirtd; its reply meets a dead line
            until(lambda: running(bed, guest) == ["site-a"],
                  lambda: f"the source does not run on while the line is down: {guest.states()}")
            until(lambda: [m for m in bed.moves("site-b") if m["id"] == move.id and m["outcome"] == "in-doubt"],
                  "the target is not in doubt while the line is down")
            expect_equal(guest.states().get("site-b"), "paused", "the target's copy, in doubt")
            bed.mend()
            result = move.end()
            expect_equal(result.status, 1, f"exit status of the move ({result})")
            wait_finished(bed, move.id)
            expect_stayed(bed, guest)


def lost_with_ferryd(bed):
    """Ferry: the source's ferryd dies with the reply in its hands, the line, too: one copy, every time"""
    for _ in range(REPETITIONS):
        guest = bed.guest(**LIKE)
        bed.restart("site-a", "before-reply:stop")
        with NeverTwo(bed, guest.name):
            move = bed.move(guest)
            expect(move.id, "the move has no id")
            bed.wait_stopped("site-a")  # the decision is durable, the reply is not written
            bed.cut()
            bed.kill("site-a")  # libvirtd's RPC connection ends without the reply
            until(lambda: running(bed, guest) == ["site-a"],
                  lambda: f"the source does not run on: {guest.states()}")
            expect_equal(guest.states().get("site-b"), "paused", "the target's copy, without an answer")
            bed.start("site-a")
            bed.mend()
            move.end()
            wait_finished(bed, move.id)
            expect_stayed(bed, guest)


def lost_with_libvirtd(bed):
    """Ferry: the source's libvirtd is killed before it can read the reply: one copy in the end"""
    guest = bed.guest(**LIKE)
    bed.alter(guest)
    bed.restart("site-a", "before-reply:stop")
    with NeverTwo(bed, guest.name):
        move = bed.move(guest)
        expect(move.id, "the move has no id")
        bed.wait_stopped("site-a")
        site = bed.site("site-a")
        site.libvirtd.kill()
        bed.resume("site-a")
        bed.start_libvirtd_again("site-a")
        move.end()
        views = wait_finished(bed, move.id)
        if views["site-a"]["outcome"] == "committed":
            expect_moved(bed, guest)
        else:
            expect_stayed(bed, guest)


def commit_lost(bed):
    """Ferry: the reply arrives, the source is given up, and the word to go on is lost: the target runs, once"""
    guest = bed.guest(**LIKE)
    bed.restart("site-a", "after-reply:stop")
    with NeverTwo(bed, guest.name):
        move = bed.move(guest)
        expect(move.id, "the move has no id")
        bed.wait_stopped("site-a")
        bed.cut()
        bed.resume("site-a")
        until(lambda: [m for m in bed.moves("site-b") if m["id"] == move.id and m["outcome"] == "in-doubt"],
              "the target is not in doubt while the line is down")
        expect_equal(running(bed, guest), [], "sites where it runs without the word to go on")
        result = move.end()
        expect_equal(result.status, 4, f"exit status while in doubt ({result})")
        bed.mend()
        views = wait_finished(bed, move.id)
        expect_equal(views["site-a"]["outcome"], "committed", "the outcome")
        expect_moved(bed, guest)


if __name__ == "__main__":
    sys.exit(ferrylab.run("split-brain", [stock, lost_on_the_line, lost_with_ferryd, commit_lost,
                                          lost_with_libvirtd], CONF))
