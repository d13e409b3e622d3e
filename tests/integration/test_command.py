#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Goal: what operators and their tools rely on holds: ferry's commands, exit statuses and JSON, the control API
with well-formed and malformed requests, the metrics, ferryd's command line, its key. Nothing that is sent to
the API ends ferryd."""

import json
import os
import re
import socket
import stat
import subprocess
import sys

import ferrylab
from ferrylab import (CONFIG, CONTROL_SOCKET, built, expect, expect_equal, expect_moved, expect_stayed, expect_words,
                      until, wait_finished)

LIKE = ferrylab.SMALL_GUEST
COMMANDS = ("move", "drill", "evacuate", "check", "list", "show", "watch", "cancel", "switchover", "postcopy", "resolve",
            "bwlimit", "link", "set", "policies", "policy", "peers", "identity")
SAMPLE = re.compile(r'^[a-zA-Z_:][a-zA-Z0-9_:]*(\{[a-z_]+="[^"\n]*"(,[a-z_]+="[^"\n]*")*\})? -?[0-9.e+]+( [0-9]+)?$')


def command_usage(bed):
    """Exit status 2 and a usage for what is no command; 0 for --help and --version"""
    for words in ((), ("fly",), ("show",), ("list", "too", "many"), ("move", "vm"), ("move",), ("--frobnicate", "list"),
                  ("resolve", "abcd"), ("resolve", "abcd", "--run-at", "moon"), ("cancel",), ("watch", "a", "b"),
                  ("check", "vm"), ("drill", "vm"), ("evacuate",), ("policy", "show"), ("set", "abcd"), ("policies", "a")):
        result = bed.ferry("site-a", *words, as_json=False)
        expect_equal(result.status, 2, f"exit status of ferry {' '.join(words)} ({result})")
        expect(result.err.strip() and not result.out.strip(), f"usage belongs on stderr: {result}")
    result = bed.ferry("site-a", "--help", as_json=False)
    expect_equal(result.status, 0, "exit status of --help")
    expect_words(result.out, [*COMMANDS, "--json", "--socket"], "the help")
    result = bed.ferry("site-a", "--version", as_json=False)
    expect(result.status == 0 and re.fullmatch(r"ferry \S+\n", result.out), f"--version: {result}")


def no_ferryd(bed):
    """Exit status 5 without a ferryd, 6 without permission"""
    result = bed.ferry("site-a", "--socket", "/run/ferry/none.sock", "list")
    expect_equal(result.status, 5, f"exit status without a ferryd ({result})")
    expect_words(result.err, ["none.sock", "running"], "the message")
    expect(result.document()["error"]["why"], f"--json: the failure is no document: {result}")
    path = bed.site("site-a").path(CONTROL_SOCKET)
    expect_equal(stat.S_IMODE(os.stat(path).st_mode), 0o660, "mode of the control socket")
    ferry = built("tools/ferry/ferry")
    copy = bed.site("site-a").path("/run/ferry-command")  # where everybody can reach it
    copy.write_bytes(ferry.read_bytes())
    copy.chmod(0o755)
    try:
        done = subprocess.run(bed.site("site-a").enter(["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups",
                                                        "/run/ferry-command", "--json", "list"]),
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False)
    finally:
        copy.unlink()
    result = ferrylab.Result(done.returncode, done.stdout, done.stderr)
    expect_equal(result.status, 6, f"exit status without permission ({result})")
    expect_words(result.err, ["permission", "root"], "the message")
    result.document()


def unknown_ids(bed):
    """Exit status 1 and a document with the error for moves that do not exist"""
    for words in (("show", "00000000"), ("watch", "00000000"), ("cancel", "00000000"), ("show", "../../identity"),
                  ("resolve", "00000000", "--run-at", "source"), ("show", "a b"), ("show", "%2e%2e")):
        result = bed.ferry("site-a", *words)
        expect_equal(result.status, 1, f"exit status of {words} ({result})")
        expect(result.document()["error"]["why"], f"{words}: {result}")


def commands(bed):
    """move --detach, watch, list, show, peers, identity: each --json is one document, watch one a line"""
    for site, peer in (("site-a", "site-b"), ("site-b", "site-a")):
        identity = bed.ferry(site, "identity").document()
        expect_equal(identity["name"], site, "name in identity")
        expect(re.fullmatch("sha256:[0-9a-f]{64}", identity["fingerprint"]), f"fingerprint: {identity}")
        peers = {p["name"]: p for p in bed.ferry(site, "peers").document()["peers"]}
        expect_equal(set(peers), {peer}, f"peers of {site}")
        expect_equal(peers[peer]["fingerprint"], bed.ferry(peer, "identity").document()["fingerprint"],
                     f"the fingerprint {site} has of {peer}")
        expect(all(peers[peer][k] for k in ("may_move_here", "may_move_from_here", "may_drill")), f"peers: {peers}")
    text = bed.ferry("site-a", "identity", as_json=False).out
    expect_words(text, ["[peer site-a]", "fingerprint = sha256:"], "what is to be pasted into the peer's configuration")
    expect_words(bed.ferry("site-a", "peers", as_json=False).out, ["site-b", "10.99.0.2:7077"], "the peers for eyes")

    guest = bed.guest(**LIKE)
    bed.line(rate=100)
    started = bed.ferry("site-a", "move", guest.name, "--to", "site-b", "--detach")
    expect_equal(started.status, 0, f"exit status of move --detach ({started})")
    move_id = started.document()["id"]
    listed = bed.ferry("site-a", "list").document()
    expect(move_id in [m["id"] for m in listed["moves"]], "the move is not in the list")
    expect_words(bed.ferry("site-a", "list", as_json=False).out, [move_id, guest.name, "site-b"], "the list for eyes")
    expect_equal(bed.ferry("site-a", "show", move_id[:5]).document()["id"], move_id, "show with the id's beginning")
    every = subprocess.Popen(bed.site("site-a").enter([built("tools/ferry/ferry"), "--json", "watch"]),
                             stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    watched = bed.ferry("site-a", "watch", move_id)
    expect_equal(watched.status, 0, f"exit status of watch ({watched.err})")
    lines = [json.loads(line) for line in watched.out.splitlines()]
    expect(len(lines) > 2, f"watch printed {len(lines)} lines")
    phases = [ferrylab.PHASES.index(line["phase"]) for line in lines]
    expect(phases == sorted(phases), f"phases go backwards: {[line['phase'] for line in lines]}")
    expect_equal(lines[-1]["outcome"], "committed", "the last line of watch")
    expect(all(line["eta_s"] >= -1 for line in lines), "an ETA below -1")
    of_all = [json.loads(line) for line in every.communicate(timeout=ferrylab.PATIENCE_S)[0].splitlines()]
    expect_equal((every.returncode, {line["id"] for line in of_all}, of_all[-1]["outcome"]), (0, {move_id}, "committed"),
                 "what watch says of all moves")
    page = re.findall(r"\w+", (ferrylab.REPOSITORY / "docs/json.md").read_text())
    keys = set(lines[-1]) | {key for part in ("disk", "memory", "link", "stun", "guest_write_latency_us")
                             for key in lines[-1][part]}
    expect_equal(keys - set(page), set(), "members of a move that docs/json.md does not have")
    done = [line["disk"]["done_bytes"] for line in lines]
    expect(done == sorted(done), f"progress goes backwards: {done}")
    wait_finished(bed, move_id)
    expect_moved(bed, guest)
    for site in ("site-a", "site-b"):
        shown = bed.ferry(site, "show", move_id, as_json=False).out
        expect_words(shown, [guest.name, "committed", "writes acknowledged"], "show for eyes")
        expect(" 0 us" not in shown, f"no write takes no time at all: {shown}")
    expect(move_id not in bed.ferry("site-a", "list", as_json=False).out, "list shows a past move without --all")
    expect_words(bed.ferry("site-a", "list", "--all", as_json=False).out, [move_id], "list --all")
    result = bed.ferry("site-b", "cancel", move_id)
    expect_equal(result.status, 1, f"cancel at the target of a past move ({result})")
    result = bed.ferry("site-a", "resolve", move_id, "--run-at", "source")
    expect_equal(result.status, 1, f"resolve of a move that is not in doubt ({result})")
    expect_words(result.err, ["not in doubt"], "the message")
    before = bed.ferry("site-a", "show", move_id).document()
    bed.restart("site-a")
    expect_equal(bed.ferry("site-a", "show", move_id).document(), before, "a past move after a restart")


def for_eyes(bed):
    """Without --json a move prints a report a person can read"""
    guest = bed.guest(**LIKE)
    result = bed.ferry("site-a", "move", guest.name, "--to", "site-b", as_json=False)
    expect_equal(result.status, 0, f"exit status ({result})")
    expect_words(result.out, [guest.name, "site-a", "site-b", "committed", "downtime"], "the report")
    expect("\x1b" not in result.out, "control sequences where stdout is no terminal")
    result = bed.ferry("site-a", "move", guest.name, "--to", "site-b", as_json=False)
    expect_equal(result.status, 3, f"exit status for a VM that has left ({result})")
    expect_words(result.out + result.err, [guest.name], "the message")


# --- the API ---


def curl(bed, site, *words):
    """(status, body) by curl, as an operator would."""
    out = subprocess.run(bed.site(site).enter(["curl", "--silent", "--show-error", "--max-time", "20", "--unix-socket",
                                               CONTROL_SOCKET, "--write-out", "\n%{http_code}", *words]),
                         stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False)
    expect_equal(out.returncode, 0, f"exit status of curl {words} ({out.stderr})")
    body, _, status = out.stdout.rpartition("\n")
    return int(status), body


def error_of(status, body, wanted, what):
    expect_equal(status, wanted, f"HTTP status of {what} ({body})")
    fault = json.loads(body)["error"]
    expect(fault["code"] < 0 and fault["what"] and fault["why"], f"{what}: {fault}")
    return fault


def api_addresses(bed):
    """Every address of the API answers, by curl --unix-socket"""
    base = "http://localhost"
    for path, key in (("/v1/identity", "fingerprint"), ("/v1/peers", "peers"), ("/v1/moves", "moves")):
        status, body = curl(bed, "site-a", base + path)
        expect_equal(status, 200, f"HTTP status of {path}")
        expect(key in json.loads(body), f"{path}: {body}")
    for method, path, wanted in (("GET", "/", 404), ("GET", "/v1", 404), ("GET", "/v2/moves", 404),
                                 ("GET", "/v1/moves/", 404), ("GET", "/v1/moves/zz", 404),
                                 ("POST", "/v1/moves/zz/cancel", 404), ("DELETE", "/v1/identity", 404),
                                 ("POST", "/v1/identity", 404), ("PUT", "/v1/moves", 404),
                                 ("GET", "/v1/moves/" + "a" * 3000, 404), ("GET", "/v1/%00/%ff", 404)):
        status, body = curl(bed, "site-a", "-X", method, base + path)
        error_of(status, body, wanted, f"{method} {path[:40]}")


def api_bodies(bed):
    """Malformed, wrong and oversize bodies are answered with 4xx, and ferryd lives on"""
    pid = bed.ferryd_pid("site-a")
    moves = "http://localhost/v1/moves"
    for text in ("", "{", "[]", "null", '"move"', "{}", '{"domain": 1, "to": 2}', '{"domain": "vm"}',
                 '{"domain": "", "to": "site-b"}', '{"to": "site-b", "to": "site-c", "domain": "vm"}',
                 '{"domain": "vm", "to": null}', '{"domain": "' + "x" * 5000 + '", "to": "site-b"}',
                 "[" * 20000, "\x7f\x01\x02", '{"domain": "vm\\u0000", "to": "site-b"}'):
        status, body = curl(bed, "site-a", "--data-raw", text, moves)
        error_of(status, body, 400, f"POST {text[:40]!r}")
    big = bed.lab.dir / "big.json"
    big.write_text('{"domain": "vm", "to": "site-b", "more": "' + "x" * (1 << 20) + '"}')
    status, body = curl(bed, "site-a", "-H", "Expect:", "--data-binary", f"@{big}", moves)
    error_of(status, body, 413, "POST of 1 MiB")
    before = len(bed.moves("site-a"))
    status, body = curl(bed, "site-a", "--data-raw", '{"domain": "nobody", "to": "site-b"}', moves)
    expect_equal(status, 202, f"HTTP status of a well-formed order ({body})")
    move_id = json.loads(body)["id"]
    until(lambda: bed.api("site-a", "GET", f"/v1/moves/{move_id}")[1]["finished"], "the refused move does not end")
    expect_equal(len(bed.moves("site-a")), before + 1, "moves after one order that was well-formed")
    for text in ("{", "{}", '{"run_at": "moon"}', '{"run_at": 1}', '{"run_at": "source"}'):
        status, body = curl(bed, "site-a", "--data-raw", text, f"{moves}/{move_id}/resolve")
        expect(400 <= status < 500, f"HTTP status of resolve with {text}: {status} {body}")
        json.loads(body)
    status, body = curl(bed, "site-a", "-X", "POST", f"{moves}/{move_id}/fly")
    error_of(status, body, 404, "an unknown action")
    status, body = curl(bed, "site-a", "-X", "POST", f"{moves}/{move_id}")
    error_of(status, body, 405, "POST to a move")
    expect_equal(bed.ferryd_pid("site-a"), pid, "ferryd's process after all that")


def api_noise(bed):
    """Noise, half requests, many connections: others are still served"""
    pid = bed.ferryd_pid("site-a")
    path = str(bed.site("site-a").path(CONTROL_SOCKET))
    open_ones = []
    for noise in (b"\0" * 4096, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"GET\r\n\r\n",
                  b"GET /" + b"a" * 70000,
                  b"POST /v1/moves HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n",
                  b"POST /v1/moves HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
                  b"POST /v1/moves HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\n{"):
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(5)
        connection.connect(path)
        try:
            connection.sendall(noise)
        except OSError:
            pass  # it was dropped in the middle: right
        open_ones.append(connection)
    for _ in range(10):
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(path)
        open_ones.append(connection)
    expect_equal(bed.ferry("site-a", "identity").status, 0, "exit status of identity beside the noise")
    for connection in open_ones:
        connection.close()
    for _ in range(100):
        expect_equal(bed.api("site-a", "GET", "/v1/identity")[0], 200, "HTTP status")
    expect_equal(bed.ferryd_pid("site-a"), pid, "ferryd's process after the noise")


def metrics(bed):
    """/metrics is Prometheus' text format, line by line, also while a move runs"""
    guest = bed.guest(**LIKE)
    bed.line(rate=60)
    move = bed.move(guest)
    move.wait_phase("copying")
    for when in ("during a move", "after it"):
        status, body = curl(bed, "site-a", "http://localhost/metrics")
        expect_equal(status, 200, f"HTTP status of /metrics {when}")
        expect(body.endswith("\n") or when, "no newline at the end")
        typed, families = set(), set()
        for line in body.strip().splitlines():
            if line.startswith("# TYPE "):
                name, kind = line.split()[2:]
                expect(kind in ("gauge", "counter", "histogram", "summary"), f"metrics: {line}")
                expect(name not in typed, f"metrics: the type of {name} is said twice")
                typed.add(name)
            elif not line.startswith("# HELP "):
                expect(SAMPLE.match(line), f"metrics {when}: not a sample: {line!r}")
                name = re.match(r"[a-zA-Z0-9_:]+", line)[0]
                families.add(name)
                expect(name in typed, f"metrics {when}: {name} has no type before its sample")
        expect("ferry_moves" in families, f"metrics {when}: no ferry_moves among {families}")
        expect(f'move="{move.id}"' in body if when == "during a move" else True, f"metrics: nothing of {move.id}")
        if when == "during a move":
            bed.ferry("site-a", "cancel", move.id)
            move.end()
            wait_finished(bed, move.id)
            expect_stayed(bed, guest)


# --- ferryd's command line ---


def ferryd(bed, *words):
    done = subprocess.run(bed.site("site-a").enter([built("core/ferryd"), *words]), stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True, check=False, timeout=30)
    return ferrylab.Result(done.returncode, done.stdout, done.stderr)


GOOD = """[site]
name = somewhere
[peer elsewhere]
address = 192.0.2.1:7077
fingerprint = sha256:""" + "ab" * 32 + """
allow = move-here, move-from-here
"""
# What is wrong -> (how the good configuration is broken, what the message must name).
BROKEN = {
    "no name": (lambda t: t.replace("name = somewhere", ""), ["name"]),
    "a bad name": (lambda t: t.replace("somewhere", "some where/../x"), ["name", "[site]"]),
    "an unknown section": (lambda t: t + "[sight]\nname = x\n", ["section", "sight"]),
    "an unknown key": (lambda t: t.replace("name =", "nom = x\nname ="), ["nom", "[site]"]),
    "a relative path": (lambda t: t.replace("[peer", "state_dir = var\n[peer"), ["state_dir"]),
    "a short fingerprint": (lambda t: t.replace("abab", ""), ["fingerprint", "elsewhere"]),
    "no fingerprint": (lambda t: re.sub("fingerprint.*\n", "", t), ["fingerprint", "elsewhere"]),
    "an unknown permission": (lambda t: t.replace("move-here,", "fly,"), ["allow", "elsewhere"]),
    "a number that is none": (lambda t: t + "[link]\nstripes = many\n", ["stripes", "[link]"]),
    "a number too large": (lambda t: t + "[link]\nstripes = 100\n", ["stripes"]),
    "a size that is none": (lambda t: t + "[storage]\nlog_memory = lots\n", ["log_memory"]),
    "a size too small": (lambda t: t + "[storage]\nlog_memory = 1K\n", ["log_memory"]),
    "a stall without end": (lambda t: t + "[storage]\nstall_limit_s = 6000\n", ["stall_limit_s"]),
    "an unknown choice": (lambda t: t + "[storage]\nold_disks = burn\n", ["old_disks"]),
    "a bad boolean": (lambda t: t + "[libvirt]\nmonitor = maybe\n", ["monitor"]),
    "itself as a peer": (lambda t: t.replace("[peer elsewhere]", "[peer somewhere]"), ["somewhere", "itself"]),
    "one fingerprint twice": (lambda t: t + "[peer third]\nfingerprint = sha256:" + "ab" * 32 + "\n",
                              ["third", "elsewhere", "fingerprint"]),
    "no key = value": (lambda t: t + "what is this\n", ["line 7"]),
    "a log level": (lambda t: t.replace("[peer", "log_level = loud\n[peer"), ["log_level"]),
}


def check_config(bed):
    """ferryd --check-config: good ones pass, each fault is named"""
    path = bed.lab.dir / "try.conf"
    path.write_text(GOOD)
    result = ferryd(bed, "--config", path, "--check-config")
    expect_equal(result.status, 0, f"a good configuration ({result})")
    expect_words(result.out, ["somewhere", "1 peers"], "the check's words")
    expect_equal(ferryd(bed, "--config", CONFIG, "--check-config").status, 0, "the lab's configuration")
    for what, (spoil, words) in BROKEN.items():
        path.write_text(spoil(GOOD))
        result = ferryd(bed, "--config", path, "--check-config")
        expect_equal(result.status, 1, f"exit status with {what} ({result})")
        expect_words(result.err, [str(path), *words], f"the message with {what}")
        expect_equal(ferryd(bed, "--config", path).status, 1, f"exit status of a start with {what}")
    result = ferryd(bed, "--config", bed.lab.dir / "none.conf", "--check-config")
    expect_equal(result.status, 1, f"exit status without a file ({result})")
    expect_words(result.err, ["none.conf", "No such file"], "the message without a file")
    expect_equal(ferryd(bed, "--frobnicate").status, 2, "exit status of an unknown option")
    expect_equal(ferryd(bed, "--help").status, 0, "exit status of --help")


def identity(bed):
    """The identity is stable; the key is the owner's alone; a second ferryd is turned away"""
    site = bed.site("site-a")
    key = site.path("/etc/ferry/key.pem")
    expect_equal(stat.S_IMODE(os.stat(key).st_mode), 0o600, "mode of the key")
    first = ferryd(bed, "--identity").out.strip()
    expect(re.fullmatch("sha256:[0-9a-f]{64}", first), f"--identity: {first!r}")
    expect_equal(bed.ferry("site-a", "identity").document()["fingerprint"], first, "fingerprint of the running ferryd")
    bed.restart("site-a")
    expect_equal(bed.ferry("site-a", "identity").document()["fingerprint"], first, "fingerprint after a restart")
    expect_equal(ferryd(bed, "--identity").out.strip(), first, "--identity after a restart")
    second = ferryd(bed, "--config", CONFIG)
    expect(second.status != 0, f"a second ferryd starts beside the first: {second}")
    expect_equal(bed.ferry("site-a", "identity").status, 0, "the first ferryd after the second was turned away")


def service_manager(bed):
    """systemd hears that ferryd is ready, reloads, lives and stops"""
    path = bed.site("site-a").path("/run/ferry/notify.sock")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(str(path))
        heard.settimeout(10)

        def hear(words):
            while words not in heard.recv(4096).decode():
                pass  # signs of life

        try:
            bed.restart("site-a", env={"NOTIFY_SOCKET": "/run/ferry/notify.sock", "WATCHDOG_USEC": "200000"})
            for words in ("READY=1", "WATCHDOG=1"):
                hear(words)
            bed.reload("site-a")
            for words in ("RELOADING=1", "READY=1", "WATCHDOG=1"):
                hear(words)
            bed.restart("site-a")
            hear("STOPPING=1")
        finally:
            path.unlink()


def reload(bed):
    """SIGHUP with a broken configuration changes nothing and says so"""
    path = bed.site("site-a").path(CONFIG)
    before = path.read_text()
    peers = bed.ferry("site-a", "peers").document()
    try:
        path.write_text(before + "[nonsense]\nx = y\n")
        os.kill(bed.ferryd_pid("site-a"), 1)
        until(lambda: "nothing changed" in bed.ferryd_log("site-a"), "ferryd does not say that nothing changed", 10)
        expect_equal(bed.ferry("site-a", "peers").document(), peers, "peers after a broken configuration")
    finally:
        path.write_text(before)
    with bed.configured("site-a", lambda text: text.replace("[peer site-b]", "[peer site-c]")):
        names = [p["name"] for p in bed.ferry("site-a", "peers").document()["peers"]]
        expect_equal(names, ["site-c"], "peers after the change")


if __name__ == "__main__":
    sys.exit(ferrylab.run("command", [command_usage, no_ferryd, unknown_ids, commands, for_eyes, api_addresses,
                                      api_bodies, api_noise, metrics, check_config, identity, service_manager, reload]))
