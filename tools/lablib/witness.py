# SPDX-License-Identifier: Apache-2.0
"""Speaks to the witness inside a guest, through the virtio port of whichever site runs it."""

import json
import socket
import time

from .base import LabError


def channel_path(name):
    return f"/var/lib/libvirt/qemu/{name}-witness.sock"


def heartbeat_path(name):
    return f"/var/log/libvirt/qemu/{name}-heartbeat.log"


def console_path(name):
    return f"/var/log/libvirt/qemu/{name}-console.log"


def _answer(connection, number):
    """The answer with our number; an older request's answer may come before it."""
    for line in connection.makefile():
        try:
            answer = json.loads(line)
        except ValueError:
            continue  # the rest of a line somebody else did not read to its end
        if answer.get("id") == number:
            return answer
    raise OSError("the connection ended")


def ask(site, name, command, timeout_s=10):
    """One command to the witness of guest `name` that runs at `site`; its answer as a dict."""
    number = time.monotonic_ns()
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(timeout_s)
            connection.connect(str(site.path(channel_path(name))))
            connection.sendall(f"\n{number} {command}\n".encode())
            answer = _answer(connection, number)
    except OSError as e:
        raise LabError(f"the witness of {name} at {site.name} does not answer '{command}': {e}",
                       f"its console: {site.root}{console_path(name)}") from e
    if "error" in answer:
        raise LabError(f"the witness of {name} fails at '{command}': {answer['error']}")
    return answer


def last_heartbeat(site, name):
    """(beat, acknowledged writes) of the last whole line seen outside at this site, or None."""
    try:
        with open(site.path(heartbeat_path(name)), "rb") as log:
            log.seek(0, 2)
            log.seek(max(0, log.tell() - 256))
            lines = log.read().split(b"\n")[:-1]
        beat, acknowledged = lines[-1].split()
        return int(beat), int(acknowledged)
    except (OSError, ValueError, IndexError):
        return None
