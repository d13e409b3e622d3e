# SPDX-License-Identifier: Apache-2.0
"""The link alone, without VMs: how it fills a line, survives it, keeps urgent words ahead and to its limits; beside
plain TCP, raw OpenSSL, ssh and socat on the same line in the same run."""

import argparse
import json
import subprocess
import time

from lablib import options
from lablib.base import REPOSITORY, LabError, wait_until

from . import cases, report
from .bed import lab_for
from .linkload import Load, rate_mbit, windows_mbit
from .pipes import socat_mbit, ssh_mbit

HELP = "the link alone: goodput, loss, urgent words, cuts, limits, memory"
WARM_UP_S = 3  # from then on the line must be full
CLEAN = {"rtt": 100, "rate": 1000, "loss": 0, "queue": 50}


def add_options(parser):
    cases.add_option(parser, CASES)
    parser.add_argument("--seconds", type=float, default=15, metavar="S", help="of each load")
    parser.add_argument("--cuts", type=int, default=10, metavar="N", help="of the line, in case 'cut'")
    parser.add_argument("--cut-seconds", type=float, default=60, metavar="S", help="each")


def run(args, say):
    """Rows and the single measurements behind them."""
    subprocess.run([REPOSITORY / "tools/deps", "lab", "bench"], check=True)
    rows, runs = [], {}
    for name in cases.chosen(args, CASES):
        say(f"case {name}")
        line, case = CASES[name]
        parser = argparse.ArgumentParser()
        options.add_up(parser)
        up = parser.parse_args(["--no-ferryd", *(["--no-offload"] if line["loss"] else [])])
        with lab_for(argparse.Namespace(**vars(up), **line), say) as lab:
            found, runs[name] = case(lab, args)
        rows += [report.row(name, *row) for row in found]
    return rows, runs


# --- filling a line ---

def _iperf_mbit(lab, seconds, *words):
    """One plain TCP stream, over all but its first seconds."""
    a, b = lab.site("site-a"), lab.site("site-b")
    server = subprocess.Popen(b.enter(["iperf3", "--server", "--one-off"]), stdout=subprocess.DEVNULL)
    try:
        time.sleep(0.5)
        done = subprocess.run(a.enter(["iperf3", "--client", b.address, "--time", str(seconds), "--omit", str(WARM_UP_S),
                                       "--json", *words]), capture_output=True, text=True, check=False)
        return json.loads(done.stdout)["end"]["sum_received"]["bits_per_second"] / 1e6
    except (ValueError, KeyError) as e:
        raise LabError(f"iperf3 gives no figure: {done.stdout[-300:]}") from e
    finally:
        server.terminate()
        server.wait()


def _load(lab, args, *words, seconds=None):
    seconds = seconds or args.seconds
    with Load(lab.site("site-a"), lab.site("site-b")) as load:
        load.start(["--seconds", seconds + WARM_UP_S, *words])
        sent, received = load.finish(seconds + 60)
    if not received[-1]["correct"]:
        raise LabError("bytes arrived wrong")
    return sent, received


def _after_start(received, start_s, seconds):
    begin = received[0]["time_s"] + start_s
    return rate_mbit(received, begin, begin + seconds)


def fill(lab, args):
    _, received = _load(lab, args)
    ferry = _after_start(received, WARM_UP_S, args.seconds - 1)
    reference = _iperf_mbit(lab, args.seconds)
    return [("goodput after 3 s", "Mbit/s", ferry, reference, "iperf3, one stream")], {"ferry": received[-1]}


def fill_lossy(lab, args):
    seconds = 2 * args.seconds
    _, received = _load(lab, args, seconds=seconds)
    ferry = _after_start(received, 2 * WARM_UP_S, seconds - 2 * WARM_UP_S)
    reference = _iperf_mbit(lab, seconds, "--congestion", "cubic")
    return [("goodput", "Mbit/s", ferry, reference, "iperf3, one CUBIC stream")], {"ferry": received[-1]}


# --- loopback ---

def _loopback_mbit(lab, args, raw):
    site = lab.site("site-a")
    with Load(site, site, "127.0.0.1") as load:
        load.start(["--seconds", args.seconds / 3], ["--no-verify"], raw=raw)
        _, received = load.finish(60)
    if raw:
        return received[-1]["bytes"] * 8 / 1e6 / received[-1]["seconds"]
    return rate_mbit(received, received[0]["time_s"] + 0.5, received[-2]["time_s"])


def loopback(lab, args):
    pairs = [(_loopback_mbit(lab, args, False), _loopback_mbit(lab, args, True)) for _ in range(3)]
    ferry = report.median([p[0] for p in pairs])
    rows = [("goodput", "Mbit/s", ferry, report.median([p[1] for p in pairs]), "raw OpenSSL")]
    site = lab.site("site-a")
    rows.append(("goodput beside ssh", "Mbit/s", ferry, ssh_mbit(site, args.seconds / 3), "ssh"))
    rows.append(("goodput beside socat", "Mbit/s", ferry, socat_mbit(site, args.seconds / 3), "socat TLS"))
    return rows, {"pairs": pairs}


# --- urgent words ---

def urgent(lab, args):
    sent, _ = _load(lab, args, "--question", 10, "--question-after", WARM_UP_S)
    end = sent[-1]
    rows = [(f"answer {name}", "ms", end[f"answer_{name}_ms"], CLEAN["rtt"], "the round trip")
            for name in ("p50", "p99", "max")]
    return rows, {"ferry": end}


# --- cuts ---

def _time_to_full_s(received, mend_s, before_mbit):
    """From the mend to the beginning of the first second that is as fast as before."""
    for line in received:
        at = line["time_s"]
        if at >= mend_s and rate_mbit(received, at, at + 1) >= 0.9 * before_mbit:
            return at - mend_s
    return None


def cut(lab, args):
    steady_s = 8
    seconds = (args.cut_seconds + steady_s) * args.cuts + steady_s
    times, before = [], []
    with Load(lab.site("site-a"), lab.site("site-b")) as load:
        sender = load.start(["--seconds", seconds], ["--set", "outage_limit_s=600"])
        time.sleep(steady_s)
        for _ in range(args.cuts):
            now = time.monotonic()
            before.append(rate_mbit(load.lines("receive"), now - 3, now))
            lab.line.cut()
            time.sleep(args.cut_seconds)
            lab.line.mend()
            mend = time.monotonic()
            time.sleep(steady_s)
            times.append(_time_to_full_s(load.lines("receive"), mend, before[-1]))
            if sender.poll() is not None:
                break
        _, received = load.finish(120)
    wrong = 0 if received[-1]["correct"] else 1
    worst = None if None in times else max(times)
    return [("full rate again after mending, worst", "s", worst, None, "-"),
            ("loads with a byte wrong", "", wrong, None, "-"),
            ("cuts survived", "", len(times), args.cuts, "cuts made")], {"times": times, "before": before}


# --- limits ---

def limit(lab, args):
    first, second, half_s = 200, 500, 8
    with Load(lab.site("site-a"), lab.site("site-b")) as load:
        sender = load.start(["--seconds", 2 * half_s + WARM_UP_S, "--limit", int(first * 125000)])
        time.sleep(half_s + WARM_UP_S)
        sender.stdin.write(f"limit {int(second * 125000)}\n")
        sender.stdin.flush()
        change = time.monotonic()
        _, received = load.finish(120)
    worst = {}
    for rate, start, end in ((first, change - half_s + 1, change), (second, change + 1, change + half_s - 1)):
        worst[rate] = max(abs(r / rate - 1) for r in windows_mbit(received, start, end)) * 100
    return [(f"error of {rate} Mbit/s over 1 s windows, worst", "%", error, None, "-")
            for rate, error in worst.items()], {"ferry": received[-1]}


# --- memory ---

def memory(lab, args):
    """A reader that stops reading, and a sender that sends on many streams."""
    window_mib = 64
    with Load(lab.site("site-a"), lab.site("site-b")) as load:
        load.start(["--seconds", args.seconds, "--streams", 100, "--window", window_mib << 20],
                   ["--stall", "--window", window_mib << 20])
        time.sleep(args.seconds)
        lines = {side: load.lines(side) for side in ("send", "receive")}
        for process in load.processes:
            process.terminate()
        wait_until(lambda: all(p.poll() is not None for p in load.processes), 10)
    rows = []
    for side, words in (("receive", "receiver"), ("send", "sender")):
        ticks = lines[side]
        rows.append((f"{words} holds at most", "MiB", max(t["buffered_bytes"] for t in ticks) / 2**20, window_mib,
                     "the window"))
        rows.append((f"{words} grows by at most", "MiB",
                     (max(t["resident_kib"] for t in ticks) - ticks[0]["resident_kib"]) / 1024, window_mib,
                     "the window"))
    return rows, {}


CASES = {
    "fill": (CLEAN, fill),
    "lossy": ({**CLEAN, "rtt": 214, "loss": 0.1}, fill_lossy),
    "loopback": ({**CLEAN, "rtt": 0.2}, loopback),
    "urgent": (CLEAN, urgent),
    "limit": (CLEAN, limit),
    "memory": ({**CLEAN, "rtt": 214}, memory),
    "cut": (CLEAN, cut),
}
