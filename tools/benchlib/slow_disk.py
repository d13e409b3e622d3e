# SPDX-License-Identifier: Apache-2.0
"""A site whose disk writes no faster than a rate: its libvirtd, and so the QEMUs that it starts, in a block IO
group of the kernel with a limit. For what passes the page cache by, as the lab's disks do."""

import contextlib
import os
import pathlib

from lablib.base import LabError
from lablib.guest import IMAGES

ROOT = pathlib.Path("/sys/fs/cgroup/blkio")


def _device_of(path):
    """The whole device under a file system."""
    number = os.stat(path).st_dev
    device = pathlib.Path(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}")
    if (device / "partition").exists():
        device = device.resolve().parent
    try:
        return (device / "dev").read_text().strip()
    except OSError:
        raise LabError(f"{path} lies on no block device of its own", "set FERRY_LAB_DIR to a folder on a disk") from None


@contextlib.contextmanager
def slow_disk(site, bytes_per_s):
    group = ROOT / f"ferry-bench-{os.getpid()}"
    try:
        group.mkdir()
        (group / "blkio.throttle.write_bps_device").write_text(f"{_device_of(site.path(IMAGES))} {bytes_per_s}")
    except OSError as e:
        raise LabError(f"cannot limit the disk of {site.name}: {e}",
                       "it needs the kernel's blkio controller, version 1") from e
    try:
        (group / "cgroup.procs").write_text(str(site.libvirtd.pid()))
        yield
    finally:
        for pid in (group / "cgroup.procs").read_text().split():
            with contextlib.suppress(OSError):
                (ROOT / "cgroup.procs").write_text(pid)
        group.rmdir()
