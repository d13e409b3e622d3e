# SPDX-License-Identifier: Apache-2.0
"""Guests of the lab: made, started, found, ended."""

import filecmp
import json
import os
import shutil
import subprocess
import uuid

from . import witness
from .base import REPOSITORY, LabError, cache_dir, run, tail, wait_until

IMAGES = "/var/lib/libvirt/images"
BOOT = "/var/lib/libvirt/boot"

# The witness writes to this much at the start of each disk.
REGION_MIB = 16
# Of a console, for an error message: a panic says its cause forty lines before its end.
CONSOLE_LINES = 60

CPU = {"tcg": ("qemu", "<cpu mode='custom' match='exact' check='none'>"
                       "<model fallback='forbid'>qemu64</model></cpu>"),
       "kvm": ("kvm", "<cpu mode='host-model' check='partial'/>")}

# QEMU before 9.0 forgets, where it collects a RAM block's dirty bits word by word, to tell TCG's TLB of it:
# stores after that go unnoticed and are lost in a migration, which over a long line ends most TCG guests.
# (Fixed upstream by "physmem: Fix migration dirty bitmap coherency with TCG memory access"; KVM never had it.)
# Only a block whose size is no multiple of 256 KiB is collected page by page, which is right. libvirt rounds
# sizes to 1 MiB, so the block comes from here.
TCG_MEMORY = """\
  <qemu:commandline>
    <qemu:arg value='-object'/>
    <qemu:arg value='memory-backend-ram,id=lab.ram,size={kib}K'/>
    <qemu:arg value='-machine'/>
    <qemu:arg value='memory-backend=lab.ram'/>
    <qemu:arg value='-m'/>
    <qemu:arg value='size={kib}K'/>
  </qemu:commandline>
"""

DOMAIN = """\
<domain type='{kind}' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
  <name>{name}</name>
  <uuid>{uuid}</uuid>
  <memory unit='MiB'>{memory}</memory>
  <vcpu>{vcpus}</vcpu>
  <os>
    <type arch='x86_64' machine='pc'>hvm</type>
    <kernel>{boot}/vmlinuz</kernel>
    <initrd>{boot}/initramfs.img</initrd>
    <cmdline>{cmdline}</cmdline>
  </os>
  <features><acpi/><apic/></features>
  {cpu}
  <on_poweroff>destroy</on_poweroff>
  <on_reboot>destroy</on_reboot>
  <on_crash>destroy</on_crash>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
{disks}
    <controller type='usb' model='none'/>
    <serial type='file'><source path='{console}' append='on'/><target port='0'/></serial>
    <serial type='file'><source path='{heartbeat}'/><target port='1'/></serial>
    <channel type='unix'>
      <source mode='bind' path='{channel}'/>
      <target type='virtio' name='org.ferry.witness'/>
    </channel>
    <memballoon model='none'/>
  </devices>
{memory_quirk}</domain>
"""

DISK = """\
    <disk type='file' device='disk'>
      <driver name='qemu' type='{format}' cache='none' discard='unmap'/>
      <source file='{path}'/>
      <target dev='{device}' bus='virtio'/>
    </disk>"""


class Guest:
    """A guest by name; what it was made of is recorded beside the lab's state."""

    def __init__(self, lab, name):
        self.lab = lab.require_up()
        self.name = name
        self.record_file = lab.dir / "guests" / f"{name}.json"

    def record(self):
        try:
            return json.loads(self.record_file.read_text())
        except OSError:
            raise LabError(f"there is no guest '{self.name}'", "see 'tools/lab guest list'") from None

    def states(self):
        """Site name -> state of this guest's domain, where there is one."""
        found = {}
        for site in self.lab.sites.values():
            state = site.domains().get(self.name)
            if state:
                found[site.name] = state
        return found

    def running_at(self):
        """The sites where a copy runs."""
        return [self.lab.sites[name] for name, state in self.states().items() if state == "running"]

    def only_site(self):
        sites = self.running_at()
        if len(sites) != 1:
            where = " and ".join(s.name for s in sites) or "no site"
            raise LabError(f"guest {self.name} runs at {where}, not at exactly one site",
                           f"states: {self.states() or 'not defined anywhere'}")
        return sites[0]

    def ask(self, command, timeout_s=10):
        return witness.ask(self.only_site(), self.name, command, timeout_s)

    # --- start ---

    def start(self, options):
        """options: namespace of the command line."""
        site = self.lab.site(options.at)
        if self.record_file.exists() or self.states():
            raise LabError(f"guest {self.name} exists already", f"run 'tools/lab guest stop {self.name}'")
        if options.disk <= REGION_MIB or options.files > options.disk - REGION_MIB:
            raise LabError(f"a disk of {options.disk} MiB cannot hold {options.files} MB of files and the "
                           f"witness's {REGION_MIB} MiB", "make --disk larger or --files smaller")
        build = cache_dir() / "guest"
        run([REPOSITORY / "tests/guest/build", build], "build the guest")
        for each in self.lab.sites.values():
            _install_boot_files(each, build)
        hashes = [self._make_disk(site, build, n, options) for n in range(options.disks)]
        record = {"name": self.name, "uuid": str(uuid.uuid4()), "format": options.format,
                  "disks": [self.disk_path(n, options.format) for n in range(options.disks)],
                  "disk_mib": options.disk, "hashes": hashes}
        self.record_file.parent.mkdir(exist_ok=True)
        self.record_file.write_text(json.dumps(record))
        try:
            self._boot(site, self._xml(record, options))
            record["boot_id"] = self._wait_ready(site)["boot_id"]
            self.record_file.write_text(json.dumps(record))
        except BaseException:
            self.stop()
            raise
        return site

    def disk_path(self, n, form):
        return f"{IMAGES}/{self.name}{'' if n == 0 else f'-{n + 1}'}.{form}"

    def _make_disk(self, site, build, n, options):
        """Makes one disk at the site; returns the hashes of what lies beyond the witness's region."""
        path = site.path(self.disk_path(n, options.format))
        raw = path if options.format == "raw" else path.with_suffix(".tmp")
        with open(raw, "wb") as image:
            image.truncate(options.disk << 20)
        if n == 0 and options.files:
            run(["dd", f"if={_files_archive(options.files)}", f"of={raw}", "bs=1M",
                 f"seek={REGION_MIB}", "conv=notrunc,sparse"],
                "copy the files to the disk", "is there space?")
        hashes = json.loads(run([build / "witness", "hash", raw, REGION_MIB], "hash the disk"))["chunks"]
        if raw != path:
            run(["qemu-img", "convert", "-f", "raw", "-O", options.format, raw, path], "convert the disk")
            raw.unlink()
        return hashes

    def _xml(self, record, options):
        kind, cpu = CPU[self.lab.record()["accel"]]
        quirk = TCG_MEMORY.format(kib=(options.memory << 10) - 8) if kind == "qemu" else ""
        cmdline = (f"console=ttyS0 quiet panic=-1 witness.dirty={options.dirty} "
                   f"witness.set={options.dirty_set} witness.fill={options.fill} "
                   f"witness.change={options.change} witness.iops={options.iops} "
                   f"witness.region={REGION_MIB}")
        disks = [DISK.format(format=record["format"], path=path, device=f"vd{'abcdefghijklmnop'[n]}")
                 for n, path in enumerate(record["disks"])]
        return DOMAIN.format(kind=kind, cpu=cpu, name=self.name, uuid=record["uuid"],
                             memory=options.memory, memory_quirk=quirk, vcpus=options.vcpus, boot=BOOT, cmdline=cmdline,
                             disks="\n".join(disks), console=witness.console_path(self.name),
                             heartbeat=witness.heartbeat_path(self.name),
                             channel=witness.channel_path(self.name))

    def _boot(self, site, xml):
        import libvirt
        connection = site.connect()
        try:
            connection.defineXML(xml).create()
        except libvirt.libvirtError as e:
            raise LabError(f"cannot start guest {self.name} at {site.name}: {e}",
                           f"see {site.root}/var/log/libvirt/qemu/{self.name}.log") from e
        finally:
            connection.close()

    def _wait_ready(self, site):
        def console():
            return tail(site.path(witness.console_path(self.name)), CONSOLE_LINES)

        def ready():
            if self.states().get(site.name) != "running":
                raise LabError(f"guest {self.name} ended while it booted:\n{console()}")
            try:
                answer = witness.ask(site, self.name, "stats", timeout_s=1)
            except LabError:
                return None
            # the first heartbeat has been seen outside, too
            return answer if witness.last_heartbeat(site, self.name) else None

        answer = wait_until(ready, 60, 0.1)
        if not answer:
            raise LabError(f"guest {self.name} does not come up:\n{console()}")
        return answer

    # --- stop ---

    def stop(self):
        """Destroys every copy and removes its files at both sites. False when there was nothing."""
        existed = self.record_file.exists()
        for site in self.lab.sites.values():
            existed = _remove_domain(site, self.name) or existed
            for folder in (IMAGES, "/var/log/libvirt/qemu"):
                for path in site.path(folder).glob(f"{self.name}[.-]*"):
                    path.unlink()
        self.record_file.unlink(missing_ok=True)
        return existed


def _install_boot_files(site, build):
    for name in ("vmlinuz", "initramfs.img"):
        installed = site.path(f"{BOOT}/{name}")
        if not installed.exists() or not filecmp.cmp(build / name, installed, shallow=False):
            shutil.copyfile(build / name, installed.with_suffix(".new"))
            os.replace(installed.with_suffix(".new"), installed)


def _files_archive(megabytes):
    """A cached archive of this machine's own files, cut to size: content as compressible as real."""
    path = cache_dir() / f"files-{megabytes}.tar"
    if path.exists():
        return path
    part = path.with_suffix(f".{os.getpid()}")
    script = f"tar -C / -cf - usr/lib usr/share usr/bin 2>/dev/null | head -c {megabytes}M"
    with open(part, "wb") as archive:
        subprocess.run(["/bin/sh", "-c", script], stdout=archive, check=False)
    if part.stat().st_size < megabytes << 20:
        part.unlink()
        raise LabError(f"this machine's /usr holds less than {megabytes} MB of files", "lower --files")
    os.replace(part, path)
    return path


def _remove_domain(site, name):
    import libvirt
    connection = site.connect()
    try:
        domain = connection.lookupByName(name)
        if domain.isActive():
            domain.destroy()
        if domain.isPersistent():
            domain.undefine()
        return True
    except libvirt.libvirtError as e:
        if e.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
            return False
        raise LabError(f"cannot remove guest {name} at {site.name}: {e}") from e
    finally:
        connection.close()
