# SPDX-License-Identifier: Apache-2.0
"""The emulated line between the sites: starts tools/wan and speaks to it."""

import json
import pathlib
import socket

from . import process
from .base import MOMENT_LIMIT_S, LabError, built, tail, wait_until

DEVICE = "wan0"
SETTINGS = ("rtt", "rate", "queue", "loss")


class Line:
    def __init__(self, lab_dir):
        self.socket = pathlib.Path(lab_dir) / "wan.sock"
        self.daemon = process.Daemon("the line emulator", pathlib.Path(lab_dir) / "wan.pid",
                                     pathlib.Path(lab_dir) / "wan.log")

    def start(self, site_a, site_b, settings, offload=True, seed=1):
        words = [f"{key}={value}" for key, value in settings.items() if value is not None]
        self.daemon.start([built("tools/wan/wan"), "--a", site_a.netns(),
                           "--b", site_b.netns(), "--control", self.socket, "--device", DEVICE,
                           "--seed", seed, *([] if offload else ["--no-offload"]), *words])
        if not wait_until(lambda: self.socket.exists() or not self.daemon.pid(), MOMENT_LIMIT_S) \
                or not self.daemon.pid():
            raise LabError(f"the line does not come up:\n{tail(self.daemon.log)}",
                           "is /dev/net/tun there, and are the settings sane?")

    def command(self, words):
        """One command, its JSON answer."""
        try:
            with socket.socket(socket.AF_UNIX) as s:
                s.settimeout(MOMENT_LIMIT_S)
                s.connect(str(self.socket))
                s.sendall(words.encode() + b"\n")
                answer = json.loads(s.makefile().readline() or "{}")
        except OSError as e:
            raise LabError(f"the line emulator does not answer: {e}",
                           "run 'tools/lab down', then 'tools/lab up'") from e
        if "error" in answer:
            raise LabError(f"the line refuses '{words}': {answer['error']}")
        return answer

    def set(self, **settings):
        words = [f"{key}={value}" for key, value in settings.items() if value is not None]
        return self.command("set " + " ".join(words))

    def cut(self, direction=""):
        return self.command(f"cut {direction}".strip())

    def mend(self):
        return self.command("mend")

    def stats(self):
        return self.command("stats")

    def stop(self):
        self.daemon.stop()
