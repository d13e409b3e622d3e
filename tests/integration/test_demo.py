#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Goal: the README's first command does what it says: tools/demo builds, moves a live VM between two sites, lets
the VM itself say that nothing was lost, and leaves nothing running and nothing behind."""

import os
import pathlib
import subprocess
import sys
import tempfile

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "tools"))
from lablib import process  # noqa: E402
from lablib.lab import Lab  # noqa: E402


def main():
    folder = pathlib.Path(tempfile.gettempdir()) / f"ferry-demo-{os.getpid()}"
    lab = Lab(folder)
    # A release build of its own kind, but not of the caller's: the demonstration chooses it itself.
    env = {key: value for key, value in os.environ.items() if key != "FERRY_BUILD"}
    try:
        done = subprocess.run(["tools/demo"], cwd=REPOSITORY, env={**env, "FERRY_LAB_DIR": str(folder)},
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                              check=False, timeout=540)
        left = [pid for site in lab.sites.values() for pid in process.with_mount_source(site.mark)]
        faults = [f"exit status {done.returncode}"] if done.returncode else []
        faults += [f"'{words}' is not said" for words in ("committed from site-a to site-b", "nothing is lost")
                   if words not in done.stdout]
        faults += [f"processes {left} are left"] if left else []
        faults += [f"{folder} is left"] if folder.exists() else []
    finally:
        lab.down()
    if faults:
        print(f"{done.stdout}\nFAIL: {'; '.join(faults)}")
        return 1
    print("ok: the demonstration shows what it promises")
    return 0


if __name__ == "__main__":
    sys.exit(main())
