# SPDX-License-Identifier: Apache-2.0
"""Who looks, beside what a test does, whether what must never be is: two running copies of one VM."""

import contextlib
import threading
import time

from ferrylab import expect
from lablib import witness
from lablib.base import LabError

END_LIMIT_S = 60
# A watcher that looks less often than this saw too little. A busy host makes looks slow, a libvirtd that a test stops
# lets one wait for it.
LOOK_LIMIT_S = 10


class Watcher:
    """look() again and again until the end, and once after it; found: what was seen that must not be."""

    def __init__(self, pause_s, least_looks=0):
        self.pause_s, self.least_looks = pause_s, least_looks
        self.found = []
        self.looks = 0
        self.ended = threading.Event()
        self.saw_the_end = False
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.started = time.monotonic()

    def look(self):
        raise NotImplementedError

    def run(self):
        over = False
        while not over:
            over = self.ended.wait(self.pause_s)
            self.look()
            self.looks += 1
        self.saw_the_end = True

    def close(self):
        pass

    def __enter__(self):
        self.started = time.monotonic()
        self.thread.start()
        return self

    def __exit__(self, kind, *_):
        needed = max(self.least_looks, (time.monotonic() - self.started) / LOOK_LIMIT_S)
        self.ended.set()
        self.thread.join(END_LIMIT_S)
        self.close()
        if kind is None:
            expect(self.saw_the_end and self.looks > needed,
                   f"nobody watched {'all the time' if self.saw_the_end else 'to the end'}: {self.looks} looks")
            expect(not self.found, f"two copies ran: {sorted(set(self.found))}, {len(self.found)} looks")


class NeverTwo(Watcher):
    """By the word of the two libvirtds, densely."""

    def __init__(self, bed, name):
        super().__init__(0.01, least_looks=10)
        self.connections = [site.connect() for site in bed.lab.sites.values()]
        self.name = name

    def runs(self, connection):
        import libvirt  # as in lablib
        try:
            return connection.lookupByName(self.name).state()[0] == libvirt.VIR_DOMAIN_RUNNING
        except libvirt.libvirtError:
            return False

    def look(self):
        first, second = self.connections
        # Asked one after the other: the first once more, so that a handover in between is none.
        if self.runs(first) and self.runs(second) and self.runs(first):
            self.found.append("both libvirtds say that it runs")

    def close(self):
        for connection in self.connections:
            connection.close()


def running_by_libvirt(bed, name):
    """The sites whose libvirtd says that it runs; one that cannot be asked says nothing."""
    import libvirt
    found = []
    for site in bed.lab.sites.values():
        with contextlib.suppress(LabError, libvirt.libvirtError):  # it is down, or the domain went just then
            if site.domains().get(name) == "running":
                found.append(site.name)
    return found


class NeverTwoWhateverDies(Watcher):
    """By the heartbeats that reach the two sites' files, which no libvirtd can keep from being seen, and by what the
    libvirtds say, which may be killed and started again."""

    def __init__(self, bed, name):
        super().__init__(0.05)
        self.bed, self.name = bed, name
        self.files = [site.path(witness.heartbeat_path(name)) for site in bed.lab.sites.values()]
        self.before, self.both = self.sizes(), 0

    def sizes(self):
        found = []
        for path in self.files:
            try:
                found.append(path.stat().st_size)
            except OSError:
                found.append(0)
        return found

    def look(self):
        after = self.sizes()
        # A handover grows one file and then the other; two copies grow both, again and again.
        self.both = self.both + 1 if all(a > b for a, b in zip(after, self.before)) else 0
        if self.both >= 3:
            self.found.append("heartbeats come from both sites")
        self.before = after
        if len(running_by_libvirt(self.bed, self.name)) == 2 and len(running_by_libvirt(self.bed, self.name)) == 2:
            self.found.append("both libvirtds say that it runs")
