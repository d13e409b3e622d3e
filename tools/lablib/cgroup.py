# SPDX-License-Identifier: Apache-2.0
"""A cgroup of its own for each site.

Both libvirtds would put their first domain into the same group /machine/qemu-1-NAME; with a cgroup
namespace rooted in the site's own group each sees a tree of its own, as on two hosts. Version 1 and 2;
where there are no cgroups at all, sites do without, as libvirt does.
"""

import os
import pathlib
import time

CONTROLLERS = ("cpu", "cpuacct")


def _mounts():
    """(type, mount point, options) of every cgroup hierarchy."""
    with open("/proc/self/mounts") as mounts:
        for line in mounts:
            _, point, kind, options = line.split()[:4]
            if kind in ("cgroup", "cgroup2"):
                yield kind, pathlib.Path(point), options.split(",")


class SiteGroups:
    def __init__(self, lab_name, site):
        self.below = pathlib.Path(f"ferry-lab-{lab_name}") / site
        self.v1 = {}  # mount point -> its controllers
        self.v2 = None
        for kind, point, options in _mounts():
            if kind == "cgroup" and set(options) & set(CONTROLLERS):
                self.v1[point] = [o for o in options if o in CONTROLLERS]
            elif kind == "cgroup2" and "cpu" in (point / "cgroup.controllers").read_text().split():
                self.v2 = point

    def _roots(self):
        return [*self.v1, *([self.v2] if self.v2 else [])]

    def make(self):
        for root in self._roots():
            (root / self.below).mkdir(parents=True, exist_ok=True)
        if self.v2:
            for group in (self.v2, self.v2 / self.below.parent):
                (group / "cgroup.subtree_control").write_text("+cpu")

    def join(self):
        """Puts the calling process in: before it enters the namespaces (a preexec function)."""
        for root in self._roots():
            group = root / self.below
            leaf = group / "host"  # of version 2: groups with children hold no processes
            (leaf if leaf.is_dir() else group).joinpath("cgroup.procs").write_text(str(os.getpid()))

    def mount_script(self):
        """Shell lines that show the site its own groups; run in its namespaces."""
        if not self._roots():
            return ""
        if self.v2:
            return ("mount -t cgroup2 cgroup2 /sys/fs/cgroup\n"
                    "mkdir -p /sys/fs/cgroup/host\n"
                    "echo $$ >/sys/fs/cgroup/host/cgroup.procs\n"
                    "echo +cpu >/sys/fs/cgroup/cgroup.subtree_control\n")
        lines = ["mount -t tmpfs -o mode=755 tmpfs /sys/fs/cgroup"]
        for controllers in self.v1.values():
            name = ",".join(controllers)
            lines.append(f"mkdir /sys/fs/cgroup/{name}")
            lines.append(f"mount -t cgroup -o {name} cgroup /sys/fs/cgroup/{name}")
        return "\n".join(lines) + "\n"

    def remove(self):
        """Removes the site's groups, deepest first, and the lab's when it was the last."""
        for root in self._roots():
            for folder, _, _ in os.walk(root / self.below, topdown=False):
                _remove_group(folder)
            try:
                (root / self.below.parent).rmdir()
            except OSError:
                pass  # the other site's group is in it


def _remove_group(folder, attempts=50):
    """A group can be busy for a moment after its last process has ended."""
    for _ in range(attempts):
        try:
            return os.rmdir(folder)
        except FileNotFoundError:
            return None
        except OSError:
            time.sleep(0.02)
    return None
