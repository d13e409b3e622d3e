# SPDX-License-Identifier: Apache-2.0
"""One site: namespaces that look like a host of their own, with their own libvirtd.

A holder process keeps the mount, network, UTS and cgroup namespaces. Inside, /run is a fresh tmpfs (so
that no service of the machine is reached by accident) and libvirt's and ferry's folders are private
binds. Nothing of it is mounted outside, so it all vanishes with the last process inside.
"""

import os
import pathlib
import shutil
import stat
import subprocess
import uuid

from . import process
from .base import LabError, cache_dir, run, tail, wait_until
from .cgroup import SiteGroups

PRIVATE_FOLDERS = ("/etc/libvirt", "/var/lib/libvirt", "/var/log/libvirt", "/var/cache/libvirt",
                   "/etc/ferry", "/var/lib/ferry")
# What libvirt has found out about the QEMUs of a machine.
CAPABILITIES = pathlib.Path("/var/cache/libvirt/qemu/capabilities")

LIBVIRTD_CONF = """\
listen_tls = 0
listen_tcp = 1
listen_addr = "{address}"
auth_tcp = "none"
auth_unix_ro = "none"
auth_unix_rw = "none"
unix_sock_rw_perms = "0770"
host_uuid = "{host_uuid}"
log_outputs = "2:file:/var/log/libvirt/libvirtd.log"
"""

QEMU_CONF = """\
security_driver = "none"
namespaces = []
stdio_handler = "file"
cgroup_controllers = ["cpu", "cpuacct"]
"""

# Mounts of a site must not be seen outside. Where / is no mount of its own (a chroot on a plain folder),
# it becomes one first.
PRIVATE_SCRIPT = """
mount --make-rprivate / 2>/dev/null || {{
    mkdir -p {root} && mount --rbind / {root} && mount --make-rprivate {root} && cd {root} &&
        exec chroot . /bin/bash -c "$HOLDER"
}}
exec /bin/bash -c "$HOLDER"
"""

HOLDER_SCRIPT = """\
set -e
mount -t tmpfs -o mode=755 "{mark}" /run
mkdir -p /run/libvirt /run/ferry /run/lock
for folder in {folders}; do mount --bind "{root}$folder" "$folder"; done
mount --bind "{root}/etc/hosts" /etc/hosts
if [ -e "{root}/kvm" ]; then mount --bind "{root}/kvm" /dev/kvm; fi
hostname {name}
ip link set lo up
{cgroups}
echo ready
exec sleep infinity >/dev/null 2>&1
"""


def _keep(folder, known):
    """A copy of the folder for the labs to come; whole, whoever else makes one."""
    there = {f.name: f.stat().st_mtime_ns for f in folder.iterdir()}
    if known.exists() and there == {f.name: f.stat().st_mtime_ns for f in known.iterdir()}:
        return
    part, old = (known.with_name(f"{known.name}.{os.getpid()}.{word}") for word in ("new", "old"))
    known.parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(folder, part)
    try:
        if known.exists():
            os.replace(known, old)
        os.rename(part, known)
    except OSError:
        pass  # another lab was faster
    shutil.rmtree(part, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)


class Site:
    def __init__(self, lab_dir, lab_name, name, address):
        self.name = name
        self.address = address
        self.dir = pathlib.Path(lab_dir) / name
        self.logs = self.dir / "log"
        self.root = self.dir / "root"  # what the private binds show
        self.mark = f"ferry-lab:{self.dir}"
        self.groups = SiteGroups(lab_name, name)
        self.holder = process.Daemon(f"the holder of {name}", self.dir / "holder.pid",
                                     self.logs / "holder.log")
        self.libvirtd = process.Daemon(f"libvirtd of {name}", self.dir / "libvirtd.pid",
                                       self.logs / "libvirtd.log")

    # --- namespaces ---

    def create(self, hosts):
        for folder in PRIVATE_FOLDERS:
            (self.root / folder[1:]).mkdir(parents=True, exist_ok=True)
        self.logs.mkdir(exist_ok=True)
        for folder in ("var/lib/libvirt/images", "var/lib/libvirt/boot", "var/log/libvirt/qemu"):
            (self.root / folder).mkdir(mode=0o711)
        (self.root / "etc/hosts").write_text("127.0.0.1 localhost\n" + hosts)
        (self.root / "etc/libvirt/libvirtd.conf").write_text(
            LIBVIRTD_CONF.format(address=self.address, host_uuid=uuid.uuid4()))
        (self.root / "etc/libvirt/qemu.conf").write_text(QEMU_CONF)
        self._make_kvm_node()
        self.groups.make()
        script = HOLDER_SCRIPT.format(mark=self.mark, folders=" ".join(PRIVATE_FOLDERS), root=self.root,
                                      name=self.name, cgroups=self.groups.mount_script())
        with open(self.holder.log, "ab") as log:
            child = subprocess.Popen(
                ["unshare", "--mount", "--net", "--uts", "--cgroup", "--propagation", "unchanged",
                 "/bin/bash", "-c", PRIVATE_SCRIPT.format(root=self.dir / "chroot")],
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, start_new_session=True,
                env={**os.environ, "HOLDER": script}, preexec_fn=self.groups.join)
        self.holder.adopt(child.pid)
        if child.stdout.readline() != b"ready\n":
            raise LabError(f"cannot make the namespaces of {self.name}:\n{tail(self.holder.log)}",
                           "the lab needs root, unshare, mount and ip (tools/deps run lab)")

    def _make_kvm_node(self):
        """/dev/kvm as on a stock host, for the group kvm. libvirt probes QEMU anew at every step while QEMU
        (with its capabilities) and libvirt (without) disagree on whether it can be opened."""
        try:
            node = self.root / "kvm"
            os.mknod(node, 0o660 | stat.S_IFCHR, os.stat("/dev/kvm").st_rdev)
            os.chmod(node, 0o660)
            shutil.chown(node, "root", "kvm")
        except (FileNotFoundError, LookupError):
            pass  # no KVM on this machine

    def holder_pid(self):
        pid = self.holder.pid()
        if not pid:
            raise LabError(f"{self.name} is not up", "run 'tools/lab down', then 'tools/lab up'")
        return pid

    def path(self, path):
        """Where a path of the site lies for us."""
        return pathlib.Path(f"/proc/{self.holder_pid()}/root{path}")

    def netns(self):
        return f"/proc/{self.holder_pid()}/ns/net"

    def enter(self, argv):
        """The command line that runs argv inside, in the caller's folder."""
        return ["nsenter", "--target", str(self.holder_pid()), "--mount", "--net", "--uts", "--cgroup", "--root",
                f"--wdns={os.getcwd()}", *[str(a) for a in argv]]

    def environment(self, extra=None):
        return {**os.environ, "LIBVIRT_DEFAULT_URI": "qemu:///system", **(extra or {})}

    def run(self, argv, what, mend="", **options):
        return run(self.enter(argv), f"{what} at {self.name}", mend, env=self.environment(), **options)

    def configure_line(self, device, tcp_buffers_mib):
        lines = [f"echo 1 >/proc/sys/net/ipv6/conf/{device}/disable_ipv6",  # its own chatter is not traffic
                 f"ip address add {self.address}/24 dev {device}",
                 f"ip link set {device} txqueuelen 1000 up"]
        if tcp_buffers_mib:
            for key, middle in (("tcp_rmem", 131072), ("tcp_wmem", 65536)):
                lines.append(f"echo 4096 {middle} {tcp_buffers_mib << 20} >/proc/sys/net/ipv4/{key}")
        self.run(["/bin/sh", "-e", "-c", "\n".join(lines)], "configure the line")

    # --- libvirt ---

    def start_libvirtd(self):
        """It knows what this machine's QEMUs can do, like one that has been up for a while: four of them would be asked
        in the first move else."""
        known = cache_dir() / CAPABILITIES.name
        private = self.root / CAPABILITIES.relative_to("/")
        if known.exists() and not private.exists():
            shutil.copytree(known, private)
        self.libvirtd.start_reaped(self.enter(["libvirtd", "--listen"]), env=self.environment(),
                                   preexec=self.groups.join)
        wait_until(lambda: not self.libvirtd.pid() or self.can_connect(), 30)
        if not self.libvirtd.pid() or not self.can_connect():
            log = self.path("/var/log/libvirt/libvirtd.log")
            raise LabError(f"libvirtd of {self.name} does not come up:\n{tail(self.libvirtd.log)}\n"
                           f"{tail(log)}", "is libvirt-daemon-system installed (tools/deps run)?")
        connection = self.connect()
        try:
            connection.getCapabilities()  # asks QEMUs that are not known, or not as they are now
        finally:
            connection.close()
        _keep(private, known)

    def connect(self):
        """A libvirt connection from outside."""
        import libvirt  # here, so that commands that need none start fast
        libvirt.registerErrorHandler(lambda *_: None, None)
        socket = self.path("/run/libvirt/libvirt-sock")
        try:
            return libvirt.open(f"qemu+unix:///system?socket={socket}")
        except libvirt.libvirtError as e:
            raise LabError(f"cannot reach libvirtd of {self.name}: {e}",
                           f"see {self.root}/var/log/libvirt/libvirtd.log") from e

    def can_connect(self):
        try:
            self.connect().close()
        except LabError:
            return False
        return True

    def domains(self):
        """Name -> libvirt's word for its state."""
        import libvirt
        words = {libvirt.VIR_DOMAIN_RUNNING: "running", libvirt.VIR_DOMAIN_PAUSED: "paused",
                 libvirt.VIR_DOMAIN_SHUTOFF: "shut off", libvirt.VIR_DOMAIN_CRASHED: "crashed",
                 libvirt.VIR_DOMAIN_SHUTDOWN: "in shutdown"}
        connection = self.connect()
        try:
            return {d.name(): words.get(d.state()[0], "other") for d in connection.listAllDomains()}
        finally:
            connection.close()

    # --- the end ---

    def destroy(self):
        """Ends everything inside, domains first, whatever state it is in. QEMU outlives its libvirtd."""
        if self.libvirtd.pid() and self.holder.pid():
            script = 'virsh list --name | while read -r d; do [ -z "$d" ] || virsh destroy "$d"; done'
            subprocess.run(self.enter(["timeout", "20", "/bin/sh", "-c", script]), check=False,
                           stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL,
                           env=self.environment())
        self.libvirtd.stop()
        process.end_all(lambda: process.with_mount_source(self.mark))
        self.groups.remove()
