# SPDX-License-Identifier: Apache-2.0
"""tools/linkload at the two sites of a lab: starts it, reads its lines, ends it."""

import json
import pathlib
import subprocess
import tempfile

from lablib.base import MOMENT_LIMIT_S, LabError, built, wait_until

PORT = 7999
TCP_LISTEN = "0A"  # as /proc writes it


class Load:
    """A load from one site to another (or to itself, over loopback)."""

    def __init__(self, sender, receiver, address=None):
        self.sender, self.receiver = sender, receiver
        self.address = f"{address or receiver.address}:{PORT}"
        self.program = built("tools/linkload/linkload")
        self.folder = tempfile.TemporaryDirectory(prefix="ferry-linkload-")
        self.processes = []

    def __enter__(self):
        self.prints = {}
        for side in ("send", "receive"):
            folder = pathlib.Path(self.folder.name) / side
            folder.mkdir()
            self.prints[side] = subprocess.check_output([self.program, "identity", "--dir", folder], text=True).strip()
        return self

    def __exit__(self, *_):
        for process in self.processes:
            if process.poll() is None:
                process.terminate()
                try:
                    process.wait(10)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
        self.folder.cleanup()

    def _start(self, site, side, words, raw=False):
        folder = pathlib.Path(self.folder.name) / side
        peer = self.prints["receive" if side == "send" else "send"]
        place = ["--to", self.address] if side == "send" else ["--listen", self.address]
        process = subprocess.Popen(
            site.enter([self.program, f"raw-{side}" if raw else side, "--dir", folder, "--peer", peer, *place,
                        *map(str, words)]),
            text=True, stdin=subprocess.PIPE, stdout=open(folder / "out", "w", encoding="utf-8"),
            stderr=open(folder / "err", "w", encoding="utf-8"))
        self.processes.append(process)
        return process

    def start(self, send_words, receive_words=(), raw=False):
        """Both sides; returns the sender's process."""
        self.processes = []
        self._start(self.receiver, "receive", receive_words, raw)
        if not wait_until(self._listens, MOMENT_LIMIT_S):
            raise LabError("the load's receiver does not listen", self._words())
        return self._start(self.sender, "send", send_words, raw)

    def _listens(self):
        """Whether somebody does at the receiver's site: it says nothing before its first connection."""
        table = pathlib.Path(f"/proc/{self.receiver.holder_pid()}/net/tcp").read_text().splitlines()[1:]
        return any(line.split()[1].endswith(f":{PORT:04X}") and line.split()[3] == TCP_LISTEN for line in table)

    def lines(self, side):
        text = (pathlib.Path(self.folder.name) / side / "out").read_text()
        return [json.loads(line) for line in text.splitlines()]

    def finish(self, time_limit_s):
        """Waits for the sender, ends the receiver, returns the lines of both, and whether every byte was right."""
        receiver, sender = self.processes
        try:
            sender.wait(time_limit_s)
        except subprocess.TimeoutExpired:
            raise LabError("the load does not end", self._words()) from None
        try:
            receiver.wait(3)
        except subprocess.TimeoutExpired:
            receiver.terminate()
            receiver.wait(10)
        if sender.returncode != 0:
            raise LabError(f"the load failed: {self._words()}")
        return self.lines("send"), self.lines("receive")

    def _words(self):
        return " ".join((pathlib.Path(self.folder.name) / side / "err").read_text().strip()
                        for side in ("send", "receive"))


def rate_mbit(lines, start_s, end_s):
    """Payload per second between two times of the monotonic clock, from a receiver's lines."""
    inside = [line for line in lines if start_s <= line["time_s"] <= end_s]
    if len(inside) < 2:
        return 0.0
    first, last = inside[0], inside[-1]
    return (last["bytes"] - first["bytes"]) * 8 / 1e6 / (last["time_s"] - first["time_s"])


def windows_mbit(lines, start_s, end_s, span_s=1.0):
    """The rates of all windows of span_s that begin at a line between the two times."""
    rates = []
    for line in lines:
        if start_s <= line["time_s"] and line["time_s"] + span_s <= end_s:
            rates.append(rate_mbit(lines, line["time_s"], line["time_s"] + span_s))
    return rates
