# SPDX-License-Identifier: Apache-2.0
"""A guest's migration stream recorded into a file, and what the codec and plain zstd make of it."""

import json
import os
import subprocess

from lablib.base import LabError, built, run, wait_until


def _qmp(site, guest, execute, **arguments):
    command = json.dumps({"execute": execute, "arguments": arguments} if arguments else {"execute": execute})
    answer = json.loads(site.run(["virsh", "qemu-monitor-command", guest.name, command], f"ask QEMU to {execute}"))
    return answer["return"]


def record(guest, path, mbit):
    """Sends the guest's memory into the file at `path`, at the speed of a line of `mbit`. The guest stays
    stopped: it is of no use afterwards."""
    site = guest.only_site()
    socket = f"/run/libvirt/record-{guest.name}.sock"
    with open(path, "wb") as out:
        with subprocess.Popen(site.enter(["socat", "-u", f"UNIX-LISTEN:{socket},mode=777", "STDOUT"]), stdout=out,
                              stdin=subprocess.DEVNULL, env=site.environment()) as listener:
            try:
                if not wait_until(site.path(socket).exists, 5):
                    raise LabError("the recording's socket does not come up")
                _qmp(site, guest, "migrate-set-parameters", **{"max-bandwidth": int(mbit * 125000),
                                                               "downtime-limit": 300})
                _qmp(site, guest, "migrate-set-capabilities",
                     capabilities=[{"capability": "return-path", "state": False}])
                _qmp(site, guest, "migrate", uri=f"unix:{socket}")
                ends = ("completed", "failed", "cancelled")
                if not wait_until(lambda: _qmp(site, guest, "query-migrate")["status"] in ends, 120, 0.5):
                    raise LabError("the recording does not end", "its memory changes faster than that line carries")
                if _qmp(site, guest, "query-migrate")["status"] != "completed":
                    raise LabError("QEMU did not complete the recording")
            finally:
                if listener.poll() is None and os.path.getsize(path) == 0:
                    listener.terminate()
    return path


def bench(path):
    """ramdump's figures of a recorded stream."""
    return json.loads(run([built("tools/ramdump/ramdump"), "--bench", "--json", path], "measure the codec"))
