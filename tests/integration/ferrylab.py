# SPDX-License-Identifier: Apache-2.0
"""What the integration tests share: a lab of the test's own (tools/lablib) that is gone afterwards whatever
happens, guests, the ferry command and the control API, and the questions every case asks at its end.

A test is a list of cases, functions that take the Bed. A case fails by raising; then both ferryds' logs are
shown and the next case gets a new lab. No case asserts how long something takes; waits have a limit only so
that a test ends.
"""

import argparse
import contextlib
import http.client
import json
import os
import pathlib
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
import traceback
import uuid

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "tools"))
from lablib import options, process, witness  # noqa: E402
from lablib.base import MOMENT_LIMIT_S, LabError, built, tail, wait_until  # noqa: E402
from lablib.guest import IMAGES, Guest  # noqa: E402
from lablib.lab import Lab  # noqa: E402
from lablib.verify import verify  # noqa: E402

SOCKET_DIR = "/run/libvirt/ferry"
CONTROL_SOCKET = "/run/ferry/ferry.sock"
CONFIG = "/etc/ferry/ferry.conf"
# ctest ends a test after 1800 s without a word: this is sooner, and cleans up.
TEST_LIMIT_S = 1700
# Longer than anything a sound ferry does here, on a machine that has other work, too.
PATIENCE_S = 90

PHASES = ("preparing", "copying", "mirroring", "memory", "stopped", "prepared", "drilling", "committed", "post-copy",
          "resumed", "done")
LINE = {"rtt": 0.2, "rate": 1000, "queue": 50, "loss": 0}
GUEST = {"memory": 256, "disk": 256, "files": 60, "dirty": 4, "dirty_set": 16, "iops": 50}
# For cases that come many in a row.
SMALL_GUEST = {"files": 24, "disk": 64, "dirty": 2, "dirty_set": 8, "iops": 30}
# So that over a slow line a copy is slow, too: QEMU is told that a write is done once it is in the log, and a larger
# log holds a small guest's whole disk.
SHORT_LOG = {"storage.log_memory": "16M", "storage.stall_limit_s": 60}
# Where a ferryd is killed: QEMU 7.2 may die when its mirror does under a write, and a ferryd that is killed cannot
# stop the guest before (docs/reliability.md).
QUIET_GUEST = {**SMALL_GUEST, "iops": 10}


class Failed(Exception):
    """What was expected, and what was found instead."""


def expect(condition, words):
    if not condition:
        raise Failed(words)


def expect_equal(found, wanted, what):
    expect(found == wanted, f"{what}: {found!r}, not {wanted!r}")


def expect_words(text, words, what):
    """The text an operator reads names every one of the words."""
    missing = [word for word in words if word.lower() not in text.lower()]
    expect(not missing, f"{what} does not say {missing}: {text!r}")


def until(condition, words, timeout_s=PATIENCE_S):
    """The first true value of condition(); its words, or their value, when there never is one."""
    value = wait_until(condition, timeout_s, 0.1)
    if not value:
        raise Failed(words() if callable(words) else words)
    return value


def flags(values):
    """{"dirty_set": 16} as command line options."""
    words = []
    for key, value in values.items():
        if value is True:
            words.append(f"--{key.replace('_', '-')}")
        elif value is not None:
            words += [f"--{key.replace('_', '-')}", str(value)]
    return words


def parse(add, words):
    parser = argparse.ArgumentParser()
    add(parser)
    return parser.parse_args(words)


# --- ferry and its API ---


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("ferryd", timeout=20)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


class Result:
    """One ended run of ferry."""

    def __init__(self, status, out, err):
        self.status, self.out, self.err = status, out, err

    def __str__(self):
        return f"exit status {self.status}, stdout {self.out.strip()[-600:]!r}, stderr {self.err.strip()[-600:]!r}"

    def document(self):
        """The one JSON document that --json prints."""
        try:
            return json.loads(self.out)
        except ValueError:
            raise Failed(f"ferry --json printed no single JSON document: {self}") from None


class Move:
    """A `ferry --json move` (or drill) under way."""

    def __init__(self, bed, name, source, target, *words, command="move"):
        self.bed, self.name, self.source, self.target = bed, name, source, target
        self.sites = (source, bed.other(source))
        self.before = set().union(*map(self._ids, self.sites))
        self.child = subprocess.Popen(
            bed.site(source).enter([built("tools/ferry/ferry"), "--json", command, name, "--to", target, *words]),
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self._id = None

    def _ids(self, site):
        """Of the moves that the site knows of; none while its ferryd is down."""
        with contextlib.suppress(OSError):
            return {m["id"] for m in self.bed.moves(site)}
        return set()

    @property
    def id(self):
        if not self._id:
            # The target's is asked where the source's has died at once.
            fresh = until(lambda: next((new for site in self.sites if (new := self._ids(site) - self.before)), None),
                          f"the move of {self.name} does not appear in the list of either site", MOMENT_LIMIT_S)
            self._id = fresh.pop()
        return self._id

    def view(self):
        return self.bed.api(self.source, "GET", f"/v1/moves/{self.id}")[1]

    def wait_phase(self, phase):
        """Returns in the phase or after it; the move must still be under way."""
        def there():
            view = self.view()
            reached = PHASES.index(view["phase"]) >= PHASES.index(phase)
            if not reached and view["outcome"] != "running":
                raise Failed(f"the move ended before phase {phase}: {view['outcome']}, {view['reason']}")
            return reached

        until(there, lambda: f"the move never came to phase {phase}: {self.view()}")

    def wait_held(self):
        until(lambda: self.view()["held"], lambda: f"the move is never held: {self.view()}")

    def send_memory(self, rate):
        """A held move goes on, over a line of that rate: returns while its memory is sent."""
        self.wait_held()
        self.bed.line(rate=rate)
        result = self.bed.ferry(self.source, "switchover", self.id)
        expect_equal(result.status, 0, f"exit status of switchover ({result})")
        self.wait_phase("memory")

    def end(self):
        try:
            out, err = self.child.communicate(timeout=PATIENCE_S)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.communicate()
            raise Failed(f"ferry move does not end; the move: {self.view()}") from None
        return Result(self.child.returncode, out, err)


# --- the lab ---


class Bed:
    """A lab of the test's own. `conf`: settings of both ferryds, "section.key" -> value."""

    def __init__(self, name, conf=None, ferryd=True, postcopy=False):
        self.name, self.conf, self.with_ferryd, self.postcopy = name, conf or {}, ferryd, postcopy
        folder = pathlib.Path(tempfile.gettempdir()) / f"ferry-test-{name}-{os.getpid()}"
        self.lab = Lab(folder)
        self.made = {}  # guest name -> what it was made of, None when it is no longer that
        self.altered = set()  # ferryds started with an environment, or ended

    def up(self):
        words = [word for key, value in self.conf.items() for word in ("--conf", f"{key}={value}")]
        self.lab.up(LINE, parse(options.add_up, words + ([] if self.with_ferryd else ["--no-ferryd"])
                                + (["--postcopy"] if self.postcopy else [])))
        return self

    def down(self):
        before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
        try:
            self.lab.down()
        finally:
            signal.signal(signal.SIGTERM, before)
        self.made.clear()
        self.altered.clear()

    def reset(self):
        """Between two cases: a whole and short line, both ferryds as installed. Guests stay, see guest()."""
        self.lab.line.mend()
        self.line(**LINE)
        for site in self.lab.sites.values():
            if site.name in self.altered or not self.lab.ferryds[site.name].daemon.pid():
                if self.with_ferryd:
                    self.restart(site.name)
        self.altered.clear()

    def site(self, name):
        return self.lab.site(name)

    def metrics(self, site):
        """What Prometheus would read."""
        return self.site(site).run(["curl", "-s", "--max-time", "20", "--unix-socket", CONTROL_SOCKET,
                                    "http://ferryd/metrics"], "read the metrics")

    def line(self, **settings):
        self.lab.line.set(**settings)

    def cut(self):
        self.lab.line.cut()

    def mend(self):
        self.lab.line.mend()

    def show_logs(self):
        for name, ferryd in self.lab.ferryds.items():
            if ferryd.daemon.log.exists():
                print(f"  ferryd of {name}:\n{tail(ferryd.daemon.log, 40)}")
            for log in sorted((self.site(name).root / "var/log/libvirt/qemu").glob("*.log")):
                if not log.name.endswith(("-heartbeat.log", "-console.log")):
                    print(f"  QEMU's {log.name} of {name}:\n{tail(log, 12)}")

    # --- ferryd ---

    def ferryd_log(self, site):
        log = self.lab.ferryds[site].daemon.log
        return log.read_text(errors="replace") if log.exists() else ""

    def ferryd_pid(self, site):
        return self.lab.ferryds[site].daemon.pid()

    def restart(self, site, failpoint=None, env=None):
        self.lab.ferryds[site].stop()
        self.start(site, failpoint, env)

    def start(self, site, failpoint=None, env=None):
        self.lab.ferryds[site].start({**(env or {}), **({"FERRY_FAILPOINT": failpoint} if failpoint else {})})
        self.altered.add(site)

    def kill(self, site):
        self.altered.add(site)
        self.lab.ferryds[site].kill()

    def wait_stopped(self, site):
        """Until its failpoint stops it; then resume(site)."""
        def stopped():
            pid = self.ferryd_pid(site)
            expect(pid, f"ferryd of {site} died")
            return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"

        until(stopped, f"ferryd of {site} does not stop at its failpoint")

    def resume(self, site):
        os.kill(self.ferryd_pid(site), signal.SIGCONT)

    def wait_dead(self, site):
        until(lambda: not self.ferryd_pid(site), f"ferryd of {site} does not die at its failpoint")
        self.lab.ferryds[site].kill()
        self.altered.add(site)

    def start_libvirtd_again(self, name):
        """After a kill. Not by start_libvirtd(): the first one's parent lives on, it has QEMU to care for."""
        site = self.site(name)
        site.libvirtd.start(site.enter(["libvirtd", "--listen"]), env=site.environment(), preexec=site.groups.join)
        until(site.can_connect, f"libvirtd of {name} does not come up again")

    def restart_host(self, name):
        """What a host's sudden restart leaves: nothing runs, /run is empty, the kernel has another boot id. Its
        libvirtd and ferryd start as an init would start them."""
        site = self.site(name)
        self.kill(name)
        site.libvirtd.kill()
        for pid in self.qemus(name):
            os.kill(pid, signal.SIGKILL)
        until(lambda: not self.qemus(name), f"QEMUs of {name} do not die")
        # libvirt's notes of who owned what count until the host's boot time changes, which it does not here.
        for path in [*site.root.glob("var/log/libvirt/qemu/*"), *site.root.glob("var/lib/libvirt/*/*")]:
            for label in os.listxattr(path):
                if label.startswith("trusted.libvirt.security."):
                    os.removexattr(path, label)
        fresh = site.dir / "boot_id"
        fresh.write_text(f"{uuid.uuid4()}\n")
        site.run(["sh", "-ec", f"rm -rf /run/libvirt/*; mount --bind {fresh} /proc/sys/kernel/random/boot_id"],
                 "forget what ran")
        self.start_libvirtd_again(name)
        self.start(name)

    def reset_connections(self, site):
        """Every connection of that site's ferryd to its peer gets a RST."""
        self.site(site).run(["ss", "-K", "dst", self.site(self.other(site)).address], "reset the connections")

    def reload(self, site):
        """SIGHUP, and wait until it has been read."""
        before = self.ferryd_log(site).count("configuration read again")
        os.kill(self.ferryd_pid(site), signal.SIGHUP)
        until(lambda: self.ferryd_log(site).count("configuration read again") > before,
              f"ferryd of {site} does not read its configuration again at SIGHUP", 10)

    @contextlib.contextmanager
    def configured(self, site, change):
        """The site's configuration with change(text) applied, by SIGHUP; put back at the end."""
        path = self.site(site).path(CONFIG)
        before = path.read_text()
        after = change(before)
        expect(after != before, "the change changes nothing")
        path.write_text(after)
        self.reload(site)
        try:
            yield
        finally:
            self.site(site).path(CONFIG).write_text(before)
            if self.ferryd_pid(site):
                self.reload(site)

    def api(self, site, method, path, body=None):
        """(status, document) of the control API; the body as it is, or a value as JSON."""
        connection = _UnixConnection(str(self.site(site).path(CONTROL_SOCKET)))
        try:
            if body is not None and not isinstance(body, (str, bytes)):
                body = json.dumps(body)
            connection.request(method, path, body)
            answer = connection.getresponse()
            text = answer.read().decode()
        finally:
            connection.close()
        return answer.status, json.loads(text)

    def moves(self, site):
        return self.api(site, "GET", "/v1/moves")[1]["moves"]

    def ferry(self, site, *words, as_json=True):
        argv = [built("tools/ferry/ferry"), *(["--json"] if as_json else []), *words]
        done = subprocess.run(self.site(site).enter(argv), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, text=True, check=False, timeout=PATIENCE_S)
        return Result(done.returncode, done.stdout, done.stderr)

    def virsh(self, site, *words):
        return self.site(site).run(["virsh", "-q", *words], f"virsh {words[0]}")

    # --- guests ---

    def guest(self, name="vm", at="site-a", **values):
        """A running guest; one like it that is still there from an earlier case is as good."""
        made = parse(options.add_guest, flags({**GUEST, **values}))
        made.at = at
        guest = Guest(self.lab, name)
        if self.made.get(name) == made and guest.states() == {at: "running"}:
            return guest
        guest.stop()
        self.made[name] = made
        guest.start(made)
        return guest

    def alter(self, guest):
        """This guest is no longer what it was made of: no other case gets it."""
        self.made[guest.name] = None

    def move(self, guest, source="site-a", target="site-b", *words):
        return Move(self, guest.name, source, target, *words)

    def other(self, site):
        return self.lab.other(site).name

    # --- what there is ---

    def domains(self, site):
        return self.site(site).domains()

    def images(self, site):
        return {path.name for path in self.site(site).path(IMAGES).iterdir()}

    def socket_folders(self, site):
        folder = self.site(site).path(SOCKET_DIR)
        return {path.name for path in folder.iterdir()} if folder.exists() else set()

    def qemus(self, site):
        """Pids of the QEMUs of a site, whoever knows of them."""
        found = []
        for pid in process.with_mount_source(self.site(site).mark):
            with contextlib.suppress(OSError):
                words = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
                if words[0].endswith(b"qemu-system-x86_64") and any(w.startswith(b"guest=") for w in words):
                    found.append(pid)
        return found

    def journal(self, site):
        """(id, role, state, finished) of every record. ferryd keeps it locked: only while it is down."""
        path = self.site(site).root / "var/lib/ferry/journal.sqlite"
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
            return db.execute("SELECT id, role, state, finished FROM moves").fetchall()


# --- the questions at the end ---


def expect_well(guest, at):
    """Exactly one copy runs, at that site, and the witness misses nothing."""
    found = verify(guest)
    expect(found["ok"], f"{guest.name} is not well: {'; '.join(found['problems'])}")
    expect_equal(found["site"], at, f"the site where {guest.name} runs")


def wait_finished(bed, move_id, sites=("site-a", "site-b")):
    """Both sites count the move as finished, with the same end where both know it. Returns the views."""
    def unfinished():
        return {s: [m for m in bed.moves(s) if m["id"] == move_id and not m["finished"]] for s in sites}

    until(lambda: not any(unfinished().values()),
          lambda: f"move {move_id} is not finished: "
                  f"{ {s: [(m['phase'], m['outcome']) for m in v] for s, v in unfinished().items()} }")
    views = {s: m for s in sites for m in bed.moves(s) if m["id"] == move_id}
    expect(len({v["outcome"] for v in views.values()}) == 1,
           f"the sites do not agree on the end: { {s: v['outcome'] for s, v in views.items()} }")
    return views


def _remains(bed, site, guest):
    """What there is of a guest at a site where it must not be, but for a kept old disk."""
    names = {pathlib.Path(path).name for path in guest.record()["disks"]}
    left = []
    if guest.name in bed.domains(site):
        left.append(f"domain {guest.name} ({bed.domains(site)[guest.name]})")
    if bed.qemus(site):
        left.append(f"QEMU {bed.qemus(site)}")
    left += sorted(name for name in bed.images(site)
                   if any(name.startswith(n) for n in names) and not name.endswith(".ferry-old"))
    left += [f"socket folder {name}" for name in bed.socket_folders(site)]
    for folder in ("/etc/libvirt/qemu", "/etc/libvirt/qemu/autostart", "/run/libvirt/qemu"):
        left += [str(path) for path in bed.site(site).path(folder).glob(f"{guest.name}.*")]
    return left


def expect_nothing_at(bed, site, guest, old=()):
    """Neither domain nor QEMU nor disk nor marker nor socket folder; of old disks exactly these."""
    until(lambda: not _remains(bed, site, guest),
          lambda: f"left at {site}: {', '.join(_remains(bed, site, guest))}")
    expect_equal(old_disks(bed, site), set(old), f"old disks kept at {site}")


def expect_disks_only(bed, site, guest):
    """The guest's disks and no marker, no old copy, no socket folder; one QEMU, no job on the domain."""
    wanted = {pathlib.Path(path).name for path in guest.record()["disks"]}
    until(lambda: bed.images(site) == wanted and not bed.socket_folders(site) and len(bed.qemus(site)) == 1,
          lambda: f"at {site}: files {sorted(bed.images(site))}, wanted {sorted(wanted)}; "
                  f"socket folders {bed.socket_folders(site)}; QEMUs {bed.qemus(site)}")
    def jobs():
        words = bed.virsh(site, "domjobinfo", guest.name)
        blocks = [bed.virsh(site, "blockjob", guest.name, f"vd{'abcd'[n]}", "--info") for n in range(len(wanted))]
        return "None" in words and not any(b.strip() and "No current" not in b for b in blocks)

    until(jobs, f"a job stays on {guest.name} at {site}")


def booted_anew(guest, at):
    """It runs at that site, and nowhere else; whether it is another boot than the one that was started."""
    until(lambda: guest.states() == {at: "running"}, lambda: f"it does not run at {at}: {guest.states()}")

    def boot_id():
        with contextlib.suppress(LabError):
            return guest.ask("stats", 2)["boot_id"]
        return None

    return until(boot_id, "the witness does not answer") != guest.record()["boot_id"]


def old_disks(bed, site):
    """Disks of VMs that have left, kept aside."""
    return {name.removesuffix(".ferry-old") for name in bed.images(site) if name.endswith(".ferry-old")}


def expect_stayed(bed, guest, source="site-a", old=()):
    """A move failed: the VM runs on where it was, untouched, and the other site knows nothing of it, but for
    old disks from an earlier move."""
    other = bed.other(source)
    expect_well(guest, source)
    expect_nothing_at(bed, other, guest, old)
    expect_disks_only(bed, source, guest)


def domain_names(bed, site):
    """By one question, because clones go."""
    return bed.virsh(site, "list", "--all", "--name").split()


def expect_rehearsed(bed, guest, source="site-a", old=()):
    """A drill is over: the VM runs on where it was. Its clone's heartbeats were not the VM's."""
    other = bed.other(source)
    until(lambda: not domain_names(bed, other), lambda: f"left at {other}: {domain_names(bed, other)}")
    bed.site(other).path(witness.heartbeat_path(guest.name)).unlink(missing_ok=True)
    expect_stayed(bed, guest, source, old)


def expect_moved(bed, guest, target="site-b"):
    """A move committed: the VM runs there, whole, and the old site keeps its disks aside, nothing else."""
    other = bed.other(target)
    expect_well(guest, target)
    expect_nothing_at(bed, other, guest, {pathlib.Path(path).name for path in guest.record()["disks"]})
    expect_disks_only(bed, target, guest)


def expect_committed(result):
    expect_equal(result.status, 0, f"exit status of the move ({result})")
    report = result.document()
    expect_equal(report["outcome"], "committed", "outcome")
    return report


def expect_failed(result, words, status=1):
    """The exit status, one JSON document, and a message with these words."""
    expect_equal(result.status, status, f"exit status of the move ({result})")
    report = result.document()
    expect_equal(report["outcome"], "aborted", "outcome")
    expect_words(report["reason"], words, "the reason")
    return report


# --- file systems that are too small, or break ---


def wait_written(bed, site, guest, mib):
    """Until so much of the guest's first disk is in its file at the site."""
    path = bed.site(site).path(guest.record()["disks"][0])
    until(lambda: path.exists() and path.stat().st_blocks * 512 > mib << 20, f"{path} is not written")
    return path


@contextlib.contextmanager
def small_folder(bed, site, folder, mib):
    """A file system of that size over a folder of a site."""
    bed.site(site).run(["mount", "-t", "tmpfs", "-o", f"size={mib}m,mode=711", "tmpfs", folder], "mount a small folder")
    try:
        yield
    finally:
        bed.site(site).run(["umount", "-l", folder], "unmount it")


def small_images(bed, site, mib):
    """The same over the images folder."""
    return small_folder(bed, site, IMAGES, mib)


@contextlib.contextmanager
def brittle_images(bed, site, mib):
    """A file system over the images folder whose device shrinks under it when break_it() is called: what
    lies beyond its end fails with EIO from then on."""
    device = bed.lab.dir / "device"
    make = f"""truncate -s {mib}M {device}
        mkfs.ext4 -q -F -O ^has_journal -E lazy_itable_init=0 {device}
        mount -o loop,errors=continue {device} {IMAGES}
        chmod 711 {IMAGES}; rmdir {IMAGES}/lost+found
        fallocate -l {mib * 3 // 4}M {IMAGES}/all; rm {IMAGES}/all"""  # bitmaps not read before fail with ENOMEM
    shrink = f"truncate -s 64K {device}; losetup -c $(losetup -n -O NAME -j {device})"

    def break_it():
        bed.site(site).run(["sh", "-ec", shrink], "shrink the device")

    bed.site(site).run(["sh", "-ec", make], "make a brittle file system", "are there loop devices?")
    try:
        yield break_it
    finally:
        bed.site(site).run(["umount", "-l", IMAGES], "unmount it")


# --- running cases ---


def _stop(number, _frame):
    if number == signal.SIGALRM:
        raise SystemExit("FAIL: the test is not done in its time")
    raise SystemExit(128 + number)


def _title(case):
    return (case.__doc__ or case.__name__).strip().splitlines()[0].rstrip(".")


def run(name, cases, conf=None, ferryd=True, postcopy=False):
    """Runs the cases whose function name contains a word of the command line (all without words)."""
    words = sys.argv[1:]
    return run_all(name, [c for c in cases if not words or any(w in c.__name__ for w in words)], conf, TEST_LIMIT_S,
                   ferryd, postcopy)


def run_all(name, chosen, conf, limit_s, ferryd=True, postcopy=False):
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGALRM):
        signal.signal(number, _stop)
    signal.alarm(limit_s)
    failed = []
    bed = Bed(name, conf, ferryd, postcopy)
    sys.stdout.reconfigure(line_buffering=True)
    try:
        bed.up()
        for case in chosen:
            started = time.monotonic()
            try:
                case(bed)
                bed.reset()
                print(f"ok: {_title(case)} ({time.monotonic() - started:.0f} s)")
            except (Failed, LabError, AssertionError, OSError, ValueError, LookupError,
                    subprocess.SubprocessError) as e:
                failed.append(case)
                print(f"FAIL: {_title(case)}: {e}")
                if not isinstance(e, Failed):
                    print(re.sub("^", "  ", traceback.format_exc(), flags=re.MULTILINE))
                bed.show_logs()
                bed.down()
                bed.up()
    finally:
        signal.alarm(0)
        bed.down()
    print(f"{len(chosen) - len(failed)} of {len(chosen)} cases passed")
    return 1 if failed or not chosen else 0
