# SPDX-License-Identifier: Apache-2.0
"""What the line carried and how busy this machine's processors were, every fifth of a second."""

import threading
import time
from dataclasses import dataclass

EVERY_S = 0.2


@dataclass
class Sample:
    time: float  # monotonic
    line_bytes: int  # from site-a to site-b, ever
    cpu_busy: int  # ticks, ever
    cpu_total: int


def _cpu():
    with open("/proc/stat") as stat:
        ticks = [int(word) for word in stat.readline().split()[1:9]]
    return sum(ticks) - ticks[3] - ticks[4], sum(ticks)


class Sampler(threading.Thread):
    """Of the line's bytes from site-a to site-b, unless said otherwise."""

    def __init__(self, line, directions=("a_to_b",)):
        super().__init__(daemon=True)
        self.line, self.directions, self.samples, self.ended = line, directions, [], threading.Event()

    def run(self):
        while not self.ended.wait(EVERY_S):
            stats = self.line.stats()
            carried = sum(stats[way]["bytes"] for way in self.directions)
            self.samples.append(Sample(time.monotonic(), carried, *_cpu()))

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.ended.set()
        self.join()

    def between(self, start, end):
        """(bytes, seconds, share of the processors' time) of the line between two moments."""
        inside = [s for s in self.samples if start <= s.time <= end]
        if len(inside) < 2:
            return 0, 0.0, 0.0
        first, last = inside[0], inside[-1]
        ticks = last.cpu_total - first.cpu_total
        return (last.line_bytes - first.line_bytes, last.time - first.time,
                (last.cpu_busy - first.cpu_busy) / ticks if ticks else 0.0)
