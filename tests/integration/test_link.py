#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Goal: the link by itself: what `ferry link` and `ferry bwlimit` say and do, what they refuse, and that a load
survives cuts of the line with every byte in its place, on a clean line and on one that loses packets."""

import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time

import ferrylab
from benchlib.linkload import Load, rate_mbit, windows_mbit
from ferrylab import CONFIG, PHASES, Failed, expect, expect_equal, expect_moved, expect_words, until, wait_finished
from lablib.line import DEVICE, Line

SMALL = ferrylab.SMALL_GUEST
LOAD_LIMIT_S = 120
SETTLED_S = 5
ADAPT_S = 3


def probe_and_figures(bed):
    """ferry link: nothing stands, then a probe, then the figures; the same in the metrics"""
    result = bed.ferry("site-a", "link", "site-b")
    expect_equal(result.status, 0, f"exit status of link ({result})")
    document = result.document()
    expect_equal((document["peer"], document["bwlimit_mbit_s"]), ("site-b", 0), "the quiet link")
    result = bed.ferry("site-a", "link", "site-b", "--probe")
    expect_equal(result.status, 0, f"exit status of link --probe ({result})")
    document = result.document()
    expect(document["connected"] and document["probe"]["done"], f"the probe left {document}")
    for key in ("sent_mbit_s", "received_mbit_s"):
        expect(0 < document["probe"][key] <= 1200, f"{key} of the probe is {document['probe'][key]} on 1 Gbit/s")
    session = document["session"]
    expect(session["rtt_min_ms"] > 0 and session["stripes"] == 4 and session["congestion_control"],
           f"the session's figures are {session}")
    expect_words(bed.ferry("site-a", "link", "site-b", as_json=False).out,
                 ["round trip", "goodput", "stripes", "probe", "limit"], "ferry link")
    text = bed.metrics("site-a")
    for name in ("ferry_link_rtt_seconds", "ferry_link_stripes", "ferry_link_sent_bytes_total", "ferry_link_up"):
        expect(f'{name}{{peer="site-b"}}' in text, f"the metrics have no {name}")


def probe_of_nobody(bed):
    """A probe of a peer that is not there says so, and nothing else happens"""
    bed.kill("site-b")
    bed.restart("site-a")  # a session from before would wait for its peer
    try:
        for _ in range(2):
            result = bed.ferry("site-a", "link", "site-b", "--probe")
            expect(result.status != 0, f"a probe of a dead peer succeeds: {result}")
            expect_words(result.err + result.out, ["site-b"], "the failed probe")
    finally:
        bed.start("site-b")
    expect_equal(bed.ferry("site-a", "link", "site-b", "--probe").status, 0, "exit status when the peer is back")


def unknown_names_and_rates(bed):
    """Peers and rates that are none are refused in plain words"""
    for words, status in ((("link", "nowhere"), 1), (("link", "../moves"), 1), (("bwlimit", "site-b", "fast"), 2),
                          (("bwlimit", "site-b", "-5M"), 2), (("bwlimit", "beef", "5M"), 1), (("bwlimit", "site-b"), 2)):
        result = bed.ferry("site-a", *words)
        expect_equal(result.status, status, f"exit status of ferry {' '.join(words)} ({result})")
        expect(result.err.strip(), f"ferry {' '.join(words)} says nothing: {result}")
    guest = bed.guest(**SMALL)
    result = bed.ferry("site-a", "move", guest.name, "--to", "site-b", "--bwlimit", "much")
    expect_equal(result.status, 2, f"exit status of move --bwlimit much ({result})")


def limits(bed):
    """A site's limit holds a probe back, by hand and off again; a move's own limit can be lifted while it runs"""
    result = bed.ferry("site-a", "bwlimit", "site-b", "40M")
    expect_equal(result.status, 0, f"exit status of bwlimit ({result})")
    expect_equal(result.document()["bwlimit_mbit_s"], 40, "the limit")
    probe = bed.ferry("site-a", "link", "site-b", "--probe").document()["probe"]
    expect(probe["sent_mbit_s"] <= 44, f"a limit of 40 Mbit/s let {probe['sent_mbit_s']} through")
    document = bed.ferry("site-a", "bwlimit", "site-b", "timetable").document()
    expect_equal((document["bwlimit_mbit_s"], document["bwlimit_source"]), (0, "timetable"), "the limit lifted")
    guest = bed.guest(**SMALL)
    move_id = bed.ferry("site-a", "move", guest.name, "--to", "site-b", "--bwlimit", "2M",
                        "--detach").document()["id"]
    def copies():
        """Or mirrors already: the log takes a small disk whole, and what it holds crosses by the limit."""
        view = bed.ferry("site-a", "show", move_id).document()
        return PHASES.index(view["phase"]) >= PHASES.index("copying") and view["outcome"] == "running"

    until(copies, "the limited move does not copy")
    result = bed.ferry("site-a", "bwlimit", move_id, "50M")
    expect_equal(result.status, 0, f"exit status of bwlimit for a move ({result})")
    expect_equal(bed.ferry("site-a", "bwlimit", move_id, "off").status, 0, "exit status of bwlimit off")
    wait_finished(bed, move_id)
    expect_moved(bed, guest)


def _survives(bed, cuts, words=()):
    """A load across cuts, longer and shorter than what ends a silent connection."""
    with Load(bed.site("site-a"), bed.site("site-b")) as load:
        sender = load.start(["--seconds", 60, "--question", 50, *words], words)
        for seconds in cuts:
            time.sleep(2)
            until(lambda: load.lines("receive"), "nothing arrives")
            before = load.lines("receive")[-1]["bytes"]
            bed.cut()
            time.sleep(seconds)
            bed.mend()
            until(lambda: sender.poll() is not None or load.lines("receive")[-1]["bytes"] > before + 2**20,
                  "nothing flows after mending")
            expect(sender.poll() is None, "the load ended early")
        _, received = load.finish(LOAD_LIMIT_S)
    expect(received[-1]["correct"], "bytes arrived wrong")
    expect(received[-1]["bytes"] > 0 and rate_mbit(received, 0, 1e12) > 0, "nothing arrived")


def cuts(bed):
    """Cuts of 1, 4 and 9 seconds: every byte once, at its place"""
    bed.line(rtt=100, rate=200)
    _survives(bed, (1, 4, 9), ("--pattern", "text"))


def cuts_and_losses(bed):
    """The same on a line that loses one packet in two hundred, in one direction at a time"""
    bed.line(rtt=60, rate=50, loss=0.5)
    _survives(bed, (3, 7), ("--pattern", "random"))


def another_way(bed):
    """The way becomes four times as long under a load, and shorter after a cut: no collapse, and it is filled again"""
    rate, spans = 100, ((100, 12), (400, 25), (60, 15))
    bed.line(rtt=spans[0][0], rate=rate)
    with Load(bed.site("site-a"), bed.site("site-b")) as load:
        load.start(["--seconds", sum(seconds for _, seconds in spans), "--pattern", "random"], ("--pattern", "random"))
        until(lambda: load.lines("receive"), "nothing arrives")
        time.sleep(2)
        bed.line(loss=10)  # a burst, long before: it does not make the line a lossy one
        time.sleep(0.5)
        bed.line(loss=0)
        ends = []
        for rtt, seconds in spans:
            if rtt < spans[0][0]:
                bed.cut()
                time.sleep(0.5)
                bed.mend()
            bed.line(rtt=rtt)
            time.sleep(seconds)
            ends.append(time.monotonic())
        _, received = load.finish(LOAD_LIMIT_S)
    expect(received[-1]["correct"], "bytes arrived wrong")
    for (rtt, seconds), end in zip(spans, ends):
        slowest = min(windows_mbit(received, end - seconds + ADAPT_S, end - ADAPT_S, ADAPT_S))
        settled = rate_mbit(received, end - SETTLED_S, end)
        expect(slowest > rate * 0.15, f"only {slowest:.0f} Mbit/s for {ADAPT_S} s at {rtt} ms, on a line of {rate}")
        expect(settled > rate * 0.5, f"{settled:.0f} Mbit/s at {rtt} ms, on a line of {rate}")


def wrong_certificate(bed):
    """A peer whose certificate is another's is refused before anything is sent"""
    with Load(bed.site("site-a"), bed.site("site-b")) as load:
        load.prints["send"] = load.prints["receive"]  # the receiver expects itself
        load.start(["--seconds", 2])
        try:
            load.finish(30)
        except ferrylab.LabError:
            return
    raise Failed("a load between strangers went through")


# --- certificates of a CA ---


def _openssl(folder, *words):
    done = subprocess.run(["openssl", *words], cwd=folder, capture_output=True, text=True, check=False)
    expect_equal(done.returncode, 0, f"exit status of openssl {words[0]} ({done.stderr.strip()})")


def _certify(folder, name):
    """As docs/operations.md shows it."""
    _openssl(folder, "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc", "-subj",
             f"/CN={name}", "-addext", f"subjectAltName=DNS:{name}.example", "-keyout", f"{name}-key.pem", "-out",
             f"{name}.csr")
    _openssl(folder, "x509", "-req", "-in", f"{name}.csr", "-copy_extensions", "copy", "-CA", "ca.pem", "-CAkey",
             "ca-key.pem", "-days", "365", "-out", f"{name}.pem")


def _use_ca(bed, folder, names):
    """Every site gets the certificate of its own name and knows its peer by names[peer]."""
    for site in ("site-a", "site-b"):
        peer = bed.lab.other(site).name
        etc = bed.site(site).path("/etc/ferry")
        for source, to in ((f"{site}-key.pem", "ca-site-key.pem"), (f"{site}.pem", "ca-site.pem"), ("ca.pem", "ca.pem")):
            shutil.copy(folder / source, etc / to)
        text = bed.site(site).path(CONFIG).read_text()
        text = re.sub(r"fingerprint = .*", f"certificate_name = {names[peer]}", text)
        text = re.sub(r"certificate_name = .*", f"certificate_name = {names[peer]}", text)
        if "[tls]" not in text:
            text += ("\n[tls]\nkey = /etc/ferry/ca-site-key.pem\ncertificate = /etc/ferry/ca-site.pem\n"
                     "ca = /etc/ferry/ca.pem\n")
        bed.site(site).path(CONFIG).write_text(text)
    for site in ("site-a", "site-b"):
        bed.restart(site)


def authority(bed):
    """Sites that know each other by names that a CA certifies talk; another name is refused in plain words"""
    before = {site: bed.site(site).path(CONFIG).read_text() for site in ("site-a", "site-b")}
    names = {site: f"{site}.example" for site in before}
    with tempfile.TemporaryDirectory(prefix="ferry-ca-") as place:
        folder = pathlib.Path(place)
        _openssl(folder, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc", "-days",
                 "3650", "-subj", "/CN=ferry CA", "-keyout", "ca-key.pem", "-out", "ca.pem")
        for site in before:
            _certify(folder, site)
        try:
            _use_ca(bed, folder, names)
            result = bed.ferry("site-a", "link", "site-b", "--probe")
            expect_equal(result.status, 0, f"exit status of link --probe under a CA ({result})")
            expect_equal(bed.ferry("site-a", "peers").document()["peers"][0]["certificate_name"], names["site-b"],
                         "the name of the peer")
            _use_ca(bed, folder, {**names, "site-b": "site-c.example"})
            result = bed.ferry("site-a", "link", "site-b", "--probe")
            expect(result.status != 0, f"a peer with another name was taken: {result}")
            expect_words(result.err + result.out, ["site-b", "site-c.example", "certificate"], "the refusal")
            _use_ca(bed, folder, {**names, "site-a": "site-c.example"})
            result = bed.ferry("site-a", "link", "site-b", "--probe")
            expect(result.status != 0, f"a caller with another name was taken: {result}")
            expect_words(bed.ferryd_log("site-b"), ["unknown certificate"], "site-b's log")
        finally:
            for site, text in before.items():
                bed.site(site).path(CONFIG).write_text(text)
            for site in before:
                bed.restart(site)


# --- the line itself ---


DATAGRAMS = "import socket; [socket.socket(type=socket.SOCK_DGRAM).sendto(b'-', ('10.98.0.2', 9)) for _ in range(3)]"


class Namespace:
    """An end for a line, without a site."""
    def __init__(self):
        self.holder = subprocess.Popen(["unshare", "--net", "sleep", "100"])
        until(lambda: os.readlink(self.netns()) != os.readlink("/proc/self/ns/net"), "no new namespace")

    def netns(self):
        return f"/proc/{self.holder.pid}/ns/net"

    def run(self, *words):
        return subprocess.run(["nsenter", f"--net={self.netns()}", *words], capture_output=True, check=False).returncode

    def __enter__(self):
        return self

    def __exit__(self, *_error):
        self.holder.kill()
        self.holder.wait()


def the_line_alone(_bed):
    """The emulated line counts what a device at its end refuses, and ends when a device is gone"""
    with tempfile.TemporaryDirectory(prefix="ferry-line-") as folder, Namespace() as a, Namespace() as b:
        line = Line(folder)
        line.start(a, b, {"rtt": 2})
        try:
            expect_equal(a.run("ip", "address", "add", "10.98.0.1/24", "dev", DEVICE), 0, "status of ip address")
            expect_equal(a.run("ip", "link", "set", DEVICE, "up"), 0, "status of ip link")
            expect_equal(a.run("/usr/bin/python3", "-c", DATAGRAMS), 0, "status of the sender")
            until(lambda: line.stats()["a_to_b"]["dropped_device"] >= 3, "the datagrams are not counted")
            expect_equal(a.run("ip", "link", "delete", DEVICE), 0, "status of ip link delete")
            until(lambda: not line.daemon.pid(), "the line goes on without a device")
            expect_words(line.daemon.log.read_text(), ["device is gone"], "the line's last words")
        finally:
            line.stop()


if __name__ == "__main__":
    sys.exit(ferrylab.run("link", [probe_and_figures, probe_of_nobody, unknown_names_and_rates, limits, cuts,
                                   cuts_and_losses, another_way, wrong_certificate, authority,
                                   the_line_alone]))
