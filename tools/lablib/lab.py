# SPDX-License-Identifier: Apache-2.0
"""The lab as a whole: up, down, what it is."""

import hashlib
import json
import os
import pathlib
import shutil

from . import base
from .base import LabError
from .ferryd import Ferryd
from .line import DEVICE, Line
from .options import parse_conf
from .site import PRIVATE_FOLDERS, Site

SITES = {"site-a": "10.99.0.1", "site-b": "10.99.0.2"}
USERFAULTFD = pathlib.Path("/proc/sys/vm/unprivileged_userfaultfd")


class Lab:
    """Always constructible; require_up() says whether there is something behind it."""

    def __init__(self, folder=None):
        self.dir = pathlib.Path(folder) if folder else base.lab_dir()
        self.name = hashlib.sha256(str(self.dir).encode()).hexdigest()[:8]
        self.record_file = self.dir / "lab.json"
        self.sites = {name: Site(self.dir, self.name, name, address) for name, address in SITES.items()}
        self.ferryds = {name: Ferryd(site) for name, site in self.sites.items()}
        self.line = Line(self.dir)

    def site(self, name):
        if name not in self.sites:
            raise LabError(f"there is no site '{name}'", f"sites are {', '.join(self.sites)}")
        return self.sites[name]

    def other(self, name):
        return next(site for site in self.sites.values() if site.name != name)

    def record(self):
        return json.loads(self.record_file.read_text())

    def require_up(self):
        if not self.record_file.exists():
            raise LabError(f"no lab is up in {self.dir}", "run 'tools/lab up'")
        return self

    # --- up ---

    def up(self, settings, options):
        """settings: of the line; options: namespace of the command line."""
        self._check_machine()
        try:
            self.dir.mkdir(parents=True)
        except FileExistsError:
            raise LabError(f"a lab is up in {self.dir} already, or the rest of one",
                           "run 'tools/lab down', or set FERRY_LAB_DIR to have a second one") from None
        try:
            self._bring_up(settings, options)
        except BaseException:
            self.down()
            raise

    def _check_machine(self):
        if os.geteuid() != 0:
            raise LabError("the lab makes namespaces and devices: it needs root", "run it as root")
        path = str(self.dir)
        if path.startswith("/run/") or len(path) > 80 or len(path.split()) != 1:
            raise LabError(f"{path} cannot hold a lab", "choose a short path outside /run, without blanks")
        for program in ("libvirtd", "qemu-system-x86_64", "ip", "nsenter", "qemu-img"):
            if not shutil.which(program):
                raise LabError(f"{program} is not installed", "run 'tools/deps run lab'")

    def _bring_up(self, settings, options):
        record = {"made_folders": self._missing_folders(), "accel": options.accel,
                  "boot_id": pathlib.Path("/proc/sys/kernel/random/boot_id").read_text().strip()}
        if options.postcopy:
            record["userfaultfd"] = USERFAULTFD.read_text().strip()
        self.record_file.write_text(json.dumps(record))
        for folder in record["made_folders"]:
            os.makedirs(folder, exist_ok=True)
        if options.postcopy:
            USERFAULTFD.write_text("1")
        hosts = "".join(f"{s.address} {s.name}\n" for s in self.sites.values())
        for site in self.sites.values():
            site.create(hosts)
        self.line.start(*self.sites.values(), settings, not options.no_offload, options.seed)
        for site in self.sites.values():
            site.configure_line(DEVICE, options.tcp_buffers_mib)
        for site in self.sites.values():
            site.start_libvirtd()
        if options.ferryd:
            self._start_ferryds(parse_conf(options.conf))

    def _missing_folders(self):
        return [folder for folder in PRIVATE_FOLDERS if not os.path.isdir(folder)]

    def _start_ferryds(self, conf):
        if not Ferryd.is_built():
            print(f"lab: ferryd is not built in {base.build_dir()}: the sites have none "
                  "(build it and run 'tools/lab down' and 'tools/lab up')")
            return
        for ferryd in self.ferryds.values():
            ferryd.write_config(conf)
        fingerprints = {name: ferryd.identity() for name, ferryd in self.ferryds.items()}
        for name, ferryd in self.ferryds.items():
            peer = self.other(name)
            ferryd.write_config(conf, [(peer, fingerprints[peer.name])])
        for ferryd in self.ferryds.values():
            ferryd.start()

    # --- down ---

    def down(self):
        """Ends and removes everything, from any state. True when there was something."""
        if not self.dir.exists():
            return False
        try:
            record = self.record()
        except (OSError, ValueError):
            record = {}
        for ferryd in self.ferryds.values():
            ferryd.stop()
        for site in self.sites.values():
            site.destroy()
        self.line.stop()
        if "userfaultfd" in record:
            USERFAULTFD.write_text(record["userfaultfd"])
        shutil.rmtree(self.dir)
        self._remove_folders(record.get("made_folders", []))
        return True

    @staticmethod
    def _remove_folders(folders):
        """Mount points that the lab had to make; they stay while another lab uses them."""
        mounts = set()
        for entry in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open(f"/proc/{entry}/mountinfo") as lines:
                    mounts.update(line.split()[4] for line in lines)
            except OSError:
                continue
        for folder in folders:
            try:
                if folder not in mounts:
                    os.rmdir(folder)
            except OSError:
                pass  # something was put there since: not ours to remove

    # --- status ---

    def status(self):
        self.require_up()
        sites = {}
        for name, site in self.sites.items():
            libvirtd = site.libvirtd.pid()
            sites[name] = {"address": site.address, "holder": site.holder.pid(), "libvirtd": libvirtd,
                           "ferryd": self.ferryds[name].daemon.pid(),
                           "domains": site.domains() if libvirtd and site.holder.pid() else None,
                           "files": str(site.root), "logs": str(site.logs)}
        line = self.line.stats() if self.line.daemon.pid() else None
        return {"dir": str(self.dir), "sites": sites, "line": line}
