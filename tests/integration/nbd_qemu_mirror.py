#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Goal: QEMU's own mirror job, with synchronous writes and a writer beside the copy, through the local NBD
endpoint and a mirror log with a delay of 100 ms each way, ends with equal disks, and the writer does not
feel the delay: its writes are acknowledged locally.

usage: nbd_qemu_mirror.py PATH-OF-nbd_pair
"""
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time

SIZE = 256 << 20
DELAY_MS = 100


def make_disks(folder):
    with open(f"{folder}/source.img", "wb") as disk:
        disk.truncate(SIZE)
        for at, length in ((0, 1), (10, 20), (100, 1), (255, 1)):
            disk.seek(at << 20)
            disk.write(os.urandom(length << 20))
    with open(f"{folder}/target.img", "wb") as disk:
        disk.truncate(SIZE)


def wait_for_socket(path):
    for _ in range(200):
        if os.path.exists(path):
            return
        time.sleep(0.05)
    sys.exit(f"FAILED: {path} did not appear")


class Qemu:
    """A QEMU without a machine: only its block layer and its monitor."""

    def __init__(self):
        self.process = subprocess.Popen(
            ["qemu-system-x86_64", "-M", "none", "-nodefaults", "-nographic", "-qmp", "stdio"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.read()
        self.run("qmp_capabilities")

    def read(self):
        line = self.process.stdout.readline()
        if not line:
            sys.exit("FAILED: QEMU ended")
        return json.loads(line)

    def run(self, command, **arguments):
        self.process.stdin.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
        self.process.stdin.flush()
        while True:
            answer = self.read()
            if "error" in answer:
                sys.exit(f"FAILED: {command}: {answer['error']['desc']}")
            if "return" in answer:
                return answer["return"]

    def wait(self, event):
        while True:
            answer = self.read()
            if answer.get("event") == event:
                return answer["data"]


def start_mirror(qemu, folder):
    nbd = {"driver": "nbd", "server": {"type": "unix", "path": f"{folder}/mirror.sock"}, "export": "disk0"}
    qemu.run("blockdev-add", driver="raw", **{"node-name": "disk"},
             file={"driver": "file", "filename": f"{folder}/source.img"})
    qemu.run("blockdev-add", driver="raw", **{"node-name": "copy"}, file=nbd)
    # the writer beside the job comes in through an export, so that the job sees its writes
    qemu.run("nbd-server-start", addr={"type": "unix", "data": {"path": f"{folder}/disk.sock"}})
    qemu.run("block-export-add", type="nbd", id="e", writable=True, name="disk", **{"node-name": "disk"})
    qemu.run("blockdev-mirror", device="disk", target="copy", sync="full",
             **{"job-id": "mirror", "copy-mode": "write-blocking"})


def write_beside(folder, count, first):
    command = ["qemu-io", "-f", "raw", "-d", "unmap", f"nbd+unix:///disk?socket={folder}/disk.sock"]
    for i in range(count):
        at = 12345 * 512 + i * 4096
        command += ["-c", f"write -q -P {first + i % 200} {at} {8192 if i % 3 else 512}"]
    command += ["-c", "write -q -z 11M 2M", "-c", "write -q -z -u 12M 3M", "-c", "write -q -P 9 100M 3M"]
    begin = time.monotonic()
    subprocess.run(command, check=True)
    return time.monotonic() - begin


def main(pair_path, folder, running):
    make_disks(folder)
    server = subprocess.Popen(["qemu-nbd", f"--socket={folder}/target.sock", "--export-name=target",
                               "--format=raw", "--persistent", f"{folder}/target.img"])
    running.append(server)
    wait_for_socket(f"{folder}/target.sock")
    pair = subprocess.Popen([pair_path, f"{folder}/mirror.sock", "disk0", str(SIZE), f"{folder}/target.sock",
                             "target", str(DELAY_MS)])
    running.append(pair)
    wait_for_socket(f"{folder}/mirror.sock")
    qemu = Qemu()
    running.append(qemu.process)

    start_mirror(qemu, folder)
    during = write_beside(folder, 100, 1)
    qemu.wait("BLOCK_JOB_READY")
    after = write_beside(folder, 100, 40)
    qemu.run("block-job-cancel", device="mirror")  # for a READY mirror: complete without pivoting
    qemu.wait("BLOCK_JOB_COMPLETED")
    qemu.run("blockdev-del", **{"node-name": "copy"})
    qemu.run("quit")
    qemu.process.wait(30)
    pair.send_signal(signal.SIGTERM)
    if pair.wait(60) != 0:
        sys.exit("FAILED: the mirror did not end well")
    server.terminate()
    server.wait()

    print(f"103 serial writes took {during:.3f} s during the copy, {after:.3f} s after; "
          f"each over the link: {103 * 2 * DELAY_MS / 1000:.1f} s")
    if subprocess.run(["cmp", f"{folder}/source.img", f"{folder}/target.img"]).returncode != 0:
        sys.exit("FAILED: the disks differ")
    print("the disks are equal")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    scratch = tempfile.mkdtemp()
    processes = []
    try:
        main(sys.argv[1], scratch, processes)
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
                process.wait()
        shutil.rmtree(scratch)
