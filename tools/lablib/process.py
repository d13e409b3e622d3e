# SPDX-License-Identifier: Apache-2.0
"""Long-running processes by pid file.

A record holds the pid and the time the process started, so that a pid that now belongs to somebody
else is never mistaken for ours, let alone killed.
"""

import os
import pathlib
import signal
import subprocess
import sys

from .base import MOMENT_LIMIT_S, LabError, wait_until

REAPER = pathlib.Path(__file__).with_name("reap.py")


def _stat(pid):
    """State and start time of a process, or None."""
    try:
        text = pathlib.Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = text[text.rindex(")") + 2:].split()
    return fields[0], fields[19]


def record(pid_file, pid):
    """Writes the record in one step, so that nobody reads half of one."""
    new = pathlib.Path(f"{pid_file}.new")
    new.write_text(f"{pid} {_stat(pid)[1]}\n")
    new.replace(pid_file)


def is_alive(pid, started=None):
    stat = _stat(pid)
    return bool(stat) and stat[0] not in "ZX" and started in (None, stat[1])


class Daemon:
    """One background process of the lab and its pid file."""

    def __init__(self, name, pid_file, log):
        self.name = name
        self.pid_file = pathlib.Path(pid_file)
        self.log = pathlib.Path(log)

    def pid(self):
        """The pid while the process lives, else None."""
        try:
            pid, started = self.pid_file.read_text().split()
        except (OSError, ValueError):
            return None
        return int(pid) if is_alive(int(pid), started) else None

    def start(self, argv, env=None, preexec=None):
        """Returns the Popen of the process."""
        if self.pid():
            raise LabError(f"{self.name} runs already (pid {self.pid()})")
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with open(self.log, "ab") as log:
            child = subprocess.Popen([str(a) for a in argv], stdin=subprocess.DEVNULL, stdout=log,
                                     stderr=log, start_new_session=True, env=env, preexec_fn=preexec)
        self.adopt(child.pid)
        return child

    def start_reaped(self, argv, env=None, preexec=None):
        """The same under a parent (reap.py) that also takes in the orphans the process leaves: QEMU,
        above all, whose end libvirtd must see at once, however lazy the machine's init is."""
        self.pid_file.unlink(missing_ok=True)
        reaper = Daemon(f"the parent of {self.name}", self.pid_file.with_suffix(".parent.pid"), self.log)
        child = reaper.start([sys.executable, REAPER, self.pid_file, *argv], env, preexec)
        wait_until(lambda: self.pid() or child.poll() is not None, 10)

    def adopt(self, pid):
        record(self.pid_file, pid)

    def signal(self, number):
        pid = self.pid()
        if pid:
            os.kill(pid, number)
        return pid

    def stop(self, timeout_s=MOMENT_LIMIT_S):
        """Asks it to end, insists after the time; does nothing when it does not run."""
        if self.signal(signal.SIGTERM) and not wait_until(lambda: not self.pid(), timeout_s):
            self.kill()
        self.pid_file.unlink(missing_ok=True)

    def kill(self):
        """Ends it without a word (SIGKILL), and waits until it is gone."""
        if self.signal(signal.SIGKILL) and not wait_until(lambda: not self.pid(), 10):
            raise LabError(f"{self.name} (pid {self.pid()}) does not die",
                           "it hangs in the kernel; look at /proc/PID/stack")
        self.pid_file.unlink(missing_ok=True)


def with_mount_source(mark):
    """Pids of all processes whose mount namespace holds a mount of this source: those of one site,
    whoever started them."""
    pids = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            mounts = pathlib.Path(f"/proc/{entry}/mountinfo").read_text(errors="replace")
        except OSError:
            continue
        if f" {mark} " in mounts and is_alive(int(entry)):
            pids.append(int(entry))
    return pids


def end_all(find, timeout_s=5):
    """Terminates, then kills, whatever find() still returns."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        for pid in find():
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                pass
        if wait_until(lambda: not find(), timeout_s, 0.05):
            return
    raise LabError(f"processes {find()} do not die", "they hang in the kernel; look at /proc/PID/stack")
