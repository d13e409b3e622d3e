# SPDX-License-Identifier: Apache-2.0
"""ferryd of a site: its configuration, its identity, its process."""

import re
import socket

from . import process
from .base import MOMENT_LIMIT_S, LabError, built, tail, wait_until

CONFIG = "/etc/ferry/ferry.conf"
CONTROL_SOCKET = "/run/ferry/ferry.sock"
PORT = 7077


class Ferryd:
    def __init__(self, site):
        self.site = site
        self.daemon = process.Daemon(f"ferryd of {site.name}", site.dir / "ferryd.pid",
                                     site.logs / "ferryd.log")

    @staticmethod
    def is_built():
        try:
            return bool(built("core/ferryd"))
        except LabError:
            return False

    def write_config(self, settings, peers=()):
        """settings: 'section.key' -> value, over the lab's own ('peer.allow': of every peer); peers: (Site, fingerprint)."""
        sections = {
            "site": {"name": self.site.name, "listen": f"{self.site.address}:{PORT}"},
            "libvirt": {"uri": "qemu:///system"},
            "storage": {"directories": "/var/lib/libvirt/images"},
        }
        for peer, fingerprint in peers:
            sections[f"peer {peer.name}"] = {"address": f"{peer.address}:{PORT}",
                                             "fingerprint": fingerprint,
                                             "allow": settings.get("peer.allow", "move-here move-from-here drill")}
        for name, value in settings.items():
            section, key = name.rsplit(".", 1)
            if section == "peer":
                continue
            sections.setdefault(section, {})[key] = value
        text = "\n".join(f"[{section}]\n" + "".join(f"{k} = {v}\n" for k, v in pairs.items())
                         for section, pairs in sections.items())
        self.site.path(CONFIG).write_text(text)

    def identity(self):
        """The fingerprint; the key is made on first use."""
        out = self.site.run([built("core/ferryd"), "--config", CONFIG, "--identity"],
                            "make ferryd's identity", "run it by hand: tools/lab exec SITE ferryd --identity")
        found = re.search(r"sha256:[0-9a-f]{64}", out)
        if not found:
            raise LabError(f"ferryd --identity at {self.site.name} printed no fingerprint: {out.strip()}")
        return found.group(0)

    def start(self, env=None):
        program = built("core/ferryd")
        child = self.daemon.start(self.site.enter([program, "--config", CONFIG]),
                                  env=self.site.environment(env), preexec=self.site.groups.join)
        if not wait_until(lambda: child.poll() is not None or self.answers(), MOMENT_LIMIT_S) \
                or child.poll() is not None:
            self.daemon.stop()
            raise LabError(f"ferryd of {self.site.name} does not come up:\n{tail(self.daemon.log)}",
                           f"the whole log: {self.daemon.log}")

    def answers(self):
        """Whether the control API answers HTTP."""
        try:
            with socket.socket(socket.AF_UNIX) as s:
                s.settimeout(2)
                s.connect(str(self.site.path(CONTROL_SOCKET)))
                s.sendall(b"GET / HTTP/1.1\r\nHost: ferry\r\nConnection: close\r\n\r\n")
                return s.recv(5) == b"HTTP/"
        except OSError:
            return False

    def stop(self):
        self.daemon.stop()

    def kill(self):
        self.daemon.kill()
