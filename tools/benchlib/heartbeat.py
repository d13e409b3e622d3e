# SPDX-License-Identifier: Apache-2.0
"""A guest's heartbeat as seen from outside, with the time each beat arrived.

The witness writes a beat every 10 ms to a serial port; QEMU at the site that runs it appends it to a file
there. A thread looks at the files of both sites every millisecond. What is seen this way owes nothing to
the guest's own clock, which stands still while the guest does.
"""

import os
import threading
import time
from dataclasses import dataclass

from lablib import witness

POLL_S = 0.001


@dataclass
class Beat:
    time: float  # of arrival, monotonic
    site: str
    number: int
    acknowledged: int  # writes, at that time


class _Tail:
    """The lines that come to one file from now on; the file may be made or replaced meanwhile."""

    def __init__(self, path):
        self.path = path
        self.fd = None
        self.rest = b""
        self._open(at_end=True)

    def _open(self, at_end=False):
        try:
            self.fd = os.open(self.path, os.O_RDONLY)
        except FileNotFoundError:
            return
        self.inode = os.fstat(self.fd).st_ino
        if at_end:
            os.lseek(self.fd, 0, os.SEEK_END)

    def lines(self):
        if self.fd is None:
            self._open()
            if self.fd is None:
                return []
        data = os.read(self.fd, 65536)
        if not data:
            self._follow()
            return []
        *lines, self.rest = (self.rest + data).split(b"\n")
        return lines

    def _follow(self):
        """A new QEMU may truncate the file or make another."""
        try:
            now = os.stat(self.path)
        except FileNotFoundError:
            now = None
        if now is None or now.st_ino != self.inode:
            self.close()
            self.rest = b""
        elif now.st_size < os.lseek(self.fd, 0, os.SEEK_CUR):
            os.lseek(self.fd, 0, os.SEEK_SET)
            self.rest = b""

    def close(self):
        if self.fd is not None:
            os.close(self.fd)
        self.fd = None


class Watch(threading.Thread):
    """Collects beats between start() and stop()."""

    def __init__(self, lab, name):
        super().__init__(daemon=True)
        self.beats = []
        self.tails = {site.name: _Tail(site.path(witness.heartbeat_path(name)))
                      for site in lab.sites.values()}
        self.ended = threading.Event()

    def run(self):
        while not self.ended.is_set():
            for site, tail in self.tails.items():
                lines = tail.lines()
                now = time.monotonic()
                for line in lines:
                    words = line.split()
                    if len(words) == 2 and all(w.isdigit() for w in words):
                        self.beats.append(Beat(now, site, int(words[0]), int(words[1])))
            time.sleep(POLL_S)

    def stop(self):
        self.ended.set()
        self.join()
        for tail in self.tails.values():
            tail.close()
        return self.beats

    def seen_at(self, site):
        return any(beat.site == site for beat in list(self.beats))


def downtime_ms(beats, source):
    """From the last beat at the site that is left to the first at the other one."""
    first = min(beat.time for beat in beats if beat.site != source)
    return 1000 * (first - max(beat.time for beat in beats if beat.site == source))


def longest_gap_ms(beats, start):
    """The longest time without a beat from either site since `start`."""
    times = [beat.time for beat in beats if beat.time >= start - 0.1]
    return max((b - a for a, b in zip(times, times[1:])), default=0) * 1000


def write_rate(beats, site, start):
    """Acknowledged writes per second at a site from `start` to the last beat there."""
    there = [beat for beat in beats if beat.site == site and beat.time >= start]
    if len(there) < 2:
        return 0.0
    first, last = there[0], there[-1]
    return (last.acknowledged - first.acknowledged) / (last.time - first.time)
