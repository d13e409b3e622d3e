# SPDX-License-Identifier: Apache-2.0
"""What every module of the lab needs: its errors, where things lie, and running commands."""

import os
import pathlib
import signal
import subprocess
import sys
import time

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
# For what is a matter of moments, on a machine that has other work, too. A ferryd gives itself 10 s to stop in order.
MOMENT_LIMIT_S = 30


class LabError(Exception):
    """What failed and, on the next line, what to do about it."""

    def __init__(self, what, mend=""):
        super().__init__(f"{what}\n  {mend}" if mend else what)


def lab_dir():
    return pathlib.Path(os.environ.get("FERRY_LAB_DIR", "/var/tmp/ferry-lab")).absolute()


def cache_dir():
    return pathlib.Path(os.environ.get("FERRY_LAB_CACHE", "/var/cache/ferry-lab")).absolute()


def build_dir():
    return pathlib.Path(os.environ.get("FERRY_BUILD", REPOSITORY / "build" / "dev")).absolute()


def built(program):
    """The path of a program of ours, e.g. tools/wan/wan."""
    path = build_dir() / program
    if not path.exists():
        raise LabError(f"{path} is not built",
                       "run 'cmake --preset dev && cmake --build --preset dev', or set FERRY_BUILD")
    return path


def run(argv, what, mend="", **options):
    """Runs a command to its end and returns its output; its words are the reason when it fails."""
    done = subprocess.run([str(a) for a in argv], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          text=True, check=False, **options)
    if done.returncode != 0:
        why = (done.stderr.strip() or done.stdout.strip() or f"exit status {done.returncode}")
        raise LabError(f"cannot {what}: {why}", mend)
    return done.stdout


def end_cleanly_on_signals():
    """SIGTERM unwinds the stack as Ctrl-C does, so that what was brought up is taken down."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))


def wait_until(condition, timeout_s, interval_s=0.02):
    """The first true value of condition(), or None after the time."""
    deadline = time.monotonic() + timeout_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() >= deadline:
            return None
        time.sleep(interval_s)


def tail(path, lines=8):
    """The end of a log for an error message, indented."""
    try:
        text = pathlib.Path(path).read_text(errors="replace")
    except OSError:
        return "  (no log)"
    return "\n".join("  | " + line for line in text.splitlines()[-lines:]) or "  (empty log)"
