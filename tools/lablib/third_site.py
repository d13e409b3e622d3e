# SPDX-License-Identifier: Apache-2.0
"""A third site beside the lab's two, in a network namespace of its own: an etcd cluster of three members, which
ferry calls its witness (not the guest's, lablib/witness.py). Each site has a way of its own to it, which can be cut
without touching the line between the two, or one way only."""

import base64
import json
import shutil
import subprocess

from . import process
from .base import MOMENT_LIMIT_S, LabError, run, wait_until

ADDRESS = "10.98.0.1"
NETS = {"site-a": "10.98.1", "site-b": "10.98.2"}
MEMBERS = 3
CONFIG_FOLDER = "/etc/ferry"
# Twice the usual: a member that waits for the machine is not taken for dead, and a dead one is replaced soon enough.
PATIENCE = ("--heartbeat-interval", "200", "--election-timeout", "2000")


def client_port(n):
    return 2379 + 10 * n


class ThirdSite:
    def __init__(self, lab):
        self.lab = lab
        self.dir = lab.dir / "third-site"
        self.holder = process.Daemon("the holder of the third site", self.dir / "holder.pid", self.dir / "holder.log")
        self.members = [process.Daemon(f"etcd {n}", self.dir / f"etcd-{n}.pid", self.dir / f"etcd-{n}.log")
                        for n in range(MEMBERS)]

    @staticmethod
    def settings():
        """For both ferryds."""
        return {"witness.endpoints": " ".join(f"https://{ADDRESS}:{client_port(n)}" for n in range(MEMBERS)),
                "witness.ca": f"{CONFIG_FOLDER}/witness-ca.pem", "witness.certificate": f"{CONFIG_FOLDER}/witness.pem",
                "witness.key": f"{CONFIG_FOLDER}/witness-key.pem"}

    # --- up and down ---

    def __enter__(self):
        for program in ("etcd", "etcdctl", "openssl"):
            if not shutil.which(program):
                raise LabError(f"{program} is not installed", "run 'tools/deps test'")
        self.dir.mkdir()
        try:
            self._make_network()
            self._make_certificates()
            for n in range(MEMBERS):
                self.start(n)
            if not wait_until(lambda: self._ask("nothing"), MOMENT_LIMIT_S, 0.2):
                raise LabError("the etcd cluster does not come up", f"see {self.dir}/etcd-*.log")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for member in self.members:
            member.kill()
        if self.holder.pid():  # the kernel clears a namespace away some time after its last process
            for name in NETS:
                subprocess.run(self._enter(["ip", "link", "delete", name]), stderr=subprocess.DEVNULL, check=False)
        self.holder.kill()
        shutil.rmtree(self.dir, ignore_errors=True)

    def _make_network(self):
        self.holder.start(["unshare", "--net", "sleep", "infinity"])
        if not wait_until(self._has_own_network, 10):
            raise LabError("the third site has no network namespace")
        self._ip("link", "set", "lo", "up")
        self._ip("address", "add", f"{ADDRESS}/32", "dev", "lo")
        for name, net in NETS.items():
            site = self.lab.site(name)
            self._ip("link", "add", name, "type", "veth", "peer", "name", "third", "netns", str(site.holder_pid()))
            self._ip("address", "add", f"{net}.1/24", "dev", name)
            self._ip("link", "set", name, "up")
            for words in (["address", "add", f"{net}.2/24", "dev", "third"], ["link", "set", "third", "up"],
                          ["route", "add", ADDRESS, "via", f"{net}.1"]):
                site.run(["ip", *words], "make the way to the third site")

    def _has_own_network(self):
        """nsenter before unshare has done its work would be in the machine's own."""
        pid = self.holder.pid()
        names = [subprocess.run(["readlink", f"/proc/{p}/ns/net"], stdout=subprocess.PIPE, check=False).stdout
                 for p in (pid, "self")]
        return names[0] and names[0] != names[1]

    def _enter(self, argv):
        return ["nsenter", "--target", str(self.holder.pid()), "--net", *[str(a) for a in argv]]

    def _ip(self, *words):
        run(self._enter(["ip", *words]), "set up the third site's network")

    def _make_certificates(self):
        """One key for all. Its certificate serves both ends: etcd's gateway is a client of its own member."""
        key, ca = self.dir / "key.pem", self.dir / "ca.pem"
        run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days",
             "2", "-keyout", key, "-out", ca, "-subj", "/CN=witness", "-addext",
             f"subjectAltName=IP:{ADDRESS},IP:127.0.0.1", "-addext", "extendedKeyUsage=serverAuth,clientAuth"],
            "make the witness's certificate")
        for name in NETS:
            for path, here in (("witness-ca.pem", ca), ("witness.pem", ca), ("witness-key.pem", key)):
                shutil.copyfile(here, self.lab.site(name).path(f"{CONFIG_FOLDER}/{path}"))

    # --- members ---

    def start(self, n):
        url = f"https://{ADDRESS}:{client_port(n)}"
        peers = {m: f"http://127.0.0.1:{client_port(m) + 1}" for m in range(MEMBERS)}
        self.members[n].start(self._enter([
            "etcd", "--name", f"m{n}", *PATIENCE, "--data-dir", self.dir / f"data-{n}", "--listen-client-urls", url,
            "--advertise-client-urls", url, "--listen-peer-urls", peers[n], "--initial-advertise-peer-urls", peers[n],
            "--initial-cluster", ",".join(f"m{m}={peer}" for m, peer in peers.items()), "--cert-file",
            self.dir / "ca.pem", "--key-file", self.dir / "key.pem", "--client-cert-auth", "--trusted-ca-file",
            self.dir / "ca.pem"]))

    def kill(self, n):
        self.members[n].kill()

    def _ask(self, key):
        """[the value of a key], "" when there is none; None when the cluster does not answer."""
        ports = [client_port(n) for n in range(MEMBERS) if self.members[n].pid()]
        done = subprocess.run(
            self._enter(["etcdctl", "--endpoints", ",".join(f"https://{ADDRESS}:{port}" for port in ports), "--cacert",
                         self.dir / "ca.pem", "--cert", self.dir / "ca.pem", "--key", self.dir / "key.pem",
                         "--command-timeout", "3s", "get", key, "-w", "json"]),
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=False, timeout=20,
            env={"ETCDCTL_API": "3", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"})
        if done.returncode != 0:
            return None
        pairs = json.loads(done.stdout).get("kvs", [])
        return [base64.b64decode(pairs[0]["value"]).decode() if pairs else ""]

    def right(self, move_id):
        """The right to run, as the witness has it: "" when it has none, None when it never answers."""
        answer = wait_until(lambda: self._ask(f"/ferry/right/{move_id}"), MOMENT_LIMIT_S, 0.2)
        return answer[0] if answer else None

    # --- the ways to it ---

    def cut(self, *sites):
        for name in sites:
            self._ip("link", "set", name, "down")

    def mend(self, *sites):
        for name in sites:
            self._ip("link", "set", name, "up")

    def swallow_answers(self, name):
        """What the site asks arrives, over connections that stand; what comes back does not."""
        self._ip("route", "add", "blackhole", f"{NETS[name]}.2/32")

    def deliver_answers(self, name):
        self._ip("route", "delete", "blackhole", f"{NETS[name]}.2/32")
