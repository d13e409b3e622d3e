# SPDX-License-Identifier: Apache-2.0
"""reap.py PID_FILE COMMAND...: runs a command and takes in every orphan it leaves, until none is left.

libvirtd's children (QEMU) are daemons: when they end they wait for their parent of last resort. Where that
is an init which looks only every few seconds, libvirtd waits for it at each step of a migration. Here the
parent of last resort is this process, which looks at once.
"""

import ctypes
import os
import pathlib
import sys

PR_SET_CHILD_SUBREAPER = 36


def main():
    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
    from lablib.process import record

    pid_file, command = sys.argv[1], sys.argv[2:]
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        sys.exit(f"reap: {os.strerror(ctypes.get_errno())}")
    child = os.fork()
    if child == 0:
        os.execvp(command[0], command)
    record(pid_file, child)
    while True:
        try:
            os.wait()
        except ChildProcessError:
            return


if __name__ == "__main__":
    main()
