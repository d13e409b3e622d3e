#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Goal: what an operator says of moves holds for them, wherever it was said: `ferry policies` and `ferry policy show`
tell it, moves, checks, drills and evacuations follow it, a VM carries its own settings with it, and what is written
wrongly is named."""

import sys

import ferrylab
from ferrylab import (expect, expect_equal, expect_moved, expect_rehearsed, expect_stayed, expect_words, until,
                      wait_finished)

LIKE = ferrylab.SMALL_GUEST
BUSY = {"memory": 256, "files": 8, "disk": 64, "dirty_set": 64, "iops": 20, "dirty": 60}
SHIPPED = {"wan", "minimal-downtime", "suspend-if-needed", "post-copy", "very-large", "lan-direct"}
URI = "urn:ferry:policy:1"


def tell(bed, guest, settings, at="site-a"):
    """The VM's own settings, in its metadata."""
    bed.alter(guest)
    bed.virsh(at, "metadata", guest.name, URI, "--key", "ferry", "--set", settings, "--live", "--config")


def held(bed, site, name, *words):
    """setting -> (value, from) of `ferry policy show`, and the whole."""
    result = bed.ferry(site, "policy", "show", name, *words)
    expect_equal(result.status, 0, f"exit status of policy show ({result})")
    policy = result.document()["policy"]
    return {key: (s["value"], s["from"]) for key, s in policy["settings"].items()}, policy


def listed(bed):
    """`ferry policies` lists those that are shipped and one's own, with their meaning"""
    with bed.configured("site-a", lambda text: text + "\n[policy ours]\nbased_on = wan\nmeaning = for us\n"
                                                      "priority = 8\n"):
        document = bed.ferry("site-a", "policies").document()
        found = {p["name"]: p for p in document["policies"]}
        expect(SHIPPED < set(found), f"policies: {set(found)}")
        expect(all(p["meaning"] for p in found.values()), "a policy has no meaning")
        expect_equal(found["ours"]["settings"]["priority"], "8", "our own policy")
        expect_equal((found["ours"]["based_on"], found["ours"]["shipped"]), ("wan", False), "our own policy")
        text = bed.ferry("site-a", "policies", as_json=False).out
        expect_words(text, [*SHIPPED, "ours", "for us", "based on wan", *document["settings"]], "ferry policies")
    expect("ours" not in {p["name"] for p in bed.ferry("site-a", "policies").document()["policies"]},
           "a policy outlives its section")


def levels(bed):
    """`ferry policy show` says each setting's value and who said it, over all levels"""
    guest = bed.guest(**LIKE)
    tell(bed, guest, "<settings priority='6' compression='none'/>")
    conf = ("\n[service]\npriority = 1\ndowntime_ms = 40\nstun_max_percent = 70\npolicy = minimal-downtime\n"
            f"[group all]\nvms = none, {guest.name[:-1]}*\ndowntime_ms = 50\npriority = 2\n"
            f"[vm {guest.name}]\ncompression = xbzrle\n")
    with bed.configured("site-a", lambda text: text + conf):
        settings, policy = held(bed, "site-a", guest.name, "--policy", "suspend-if-needed", "--set", "hold=yes")
        expect_equal((policy["name"], policy["chosen_by"], policy["group"]), ("suspend-if-needed", "request", "all"),
                     "the policy in force")
        wanted = {"hold": ("yes", "request"), "compression": ("ferry", "policy suspend-if-needed (request)"),
                  "priority": ("6", "vm metadata"), "downtime_ms": ("50", "group all"),
                  "time_limit_s": ("300", "policy suspend-if-needed (request)"), "parallel": ("off", "default")}
        expect_equal({key: settings[key] for key in wanted}, wanted, "what holds with a policy asked for")
        settings, policy = held(bed, "site-a", guest.name)
        wanted = {"compression": ("xbzrle", "vm"), "stun_max_percent": ("70", "service"),
                  "downtime_max_ms": ("300", "policy minimal-downtime (service)")}
        expect_equal({key: settings[key] for key in wanted}, wanted, "what holds without")
        shown = bed.ferry("site-a", "policy", "show", guest.name, as_json=False).out
        expect_words(shown, [guest.name, "minimal-downtime", "group all", "vm metadata", *settings], "policy show")
    settings, policy = held(bed, "site-a", guest.name)
    expect_equal((policy["name"], policy["chosen_by"]), ("wan", "default"), "the policy of who names none")
    expect_equal(settings["compression"], ("none", "vm metadata"), "the VM's own setting")


def broken(bed):
    """What is written wrongly is named: on the command line, in metadata, in the configuration"""
    guest = bed.guest(**LIKE)
    for words, status, says in ((("--set", "compression=zip"), 2, "ferry, xbzrle or none"),
                                (("--set", "colour=red"), 2, "colour"), (("--set", "hold"), 2, "KEY=VALUE"),
                                (("--policy", "a b"), 2, "policy"), (("--policy", "none-such"), 3, "none-such")):
        result = bed.ferry("site-a", "move", guest.name, "--to", "site-b", *words)
        expect_equal(result.status, status, f"exit status of move {words} ({result})")
        expect_words(result.err + result.out, [says], f"move {words}")
    result = bed.ferry("site-a", "policy", "show", "nobody")
    expect_equal(result.status, 1, f"exit status of policy show of no VM ({result})")
    expect_equal(bed.ferry("site-a", "policy", "hide", guest.name).status, 2, "exit status of policy hide")
    tell(bed, guest, "<settings downtime_ms='soon'/>")
    for words in (("policy", "show", guest.name), ("move", guest.name, "--to", "site-b")):
        result = bed.ferry("site-a", *words)
        expect_equal(result.status, 3 if words[0] == "move" else 2, f"exit status of {words} ({result})")
        expect_words(result.err + result.out, ["soon", "downtime_ms", "metadata", "1 to 60000"], f"{words}")
    failing = [line for line in bed.ferry("site-a", "check", guest.name, "--to", "site-b").document()["lines"]
               if line["verdict"] == "fail"]
    expect_equal([line["name"] for line in failing], ["policy"], "what a check finds")
    bed.virsh("site-a", "metadata", guest.name, URI, "--remove", "--live", "--config")
    path = bed.site("site-a").path(ferrylab.CONFIG)
    before = path.read_text()
    path.write_text(before + "\n[group web]\nvms = web*\nconverge = perhaps\n")
    try:
        result = bed.site("site-a").run(["sh", "-c", f"{ferrylab.built('core/ferryd')} --config {ferrylab.CONFIG} "
                                                     "--check-config 2>&1 || true"], "check the configuration")
        expect_words(result, ["converge", "[group web]", "stun, auto-converge or none"], "--check-config")
    finally:
        path.write_text(before)
    expect_stayed(bed, guest)


def follows(bed):
    """A move, its report and its journalled past have the policy; a VM takes its own settings along"""
    guest = bed.guest(**LIKE)
    tell(bed, guest, "<settings policy='minimal-downtime' priority='7'/>")
    result = bed.ferry("site-a", "check", guest.name, "--to", "site-b", "--policy", "very-large")
    lines = [line for line in result.document()["lines"] if line["name"] == "policy"]
    expect_words(" ".join(line["text"] for line in lines), ["very-large (request)", "memory_path tunnel", "encrypted"],
                 "the check")
    move = bed.move(guest, "site-a", "site-b", "--set", "stun_max_percent=60")
    report = move.end().document()
    expect_equal(report["outcome"], "committed", "the outcome")
    policy = report["policy"]
    expect_equal((policy["name"], policy["chosen_by"], policy["substitutions"]), ("minimal-downtime", "vm metadata", []),
                 "the report's policy")
    expect_equal(policy["settings"]["stun_max_percent"], {"value": "60", "from": "request"}, "what was asked for")
    wait_finished(bed, report["id"])
    expect_moved(bed, guest)
    settings, policy = held(bed, "site-b", guest.name)
    expect_equal((policy["name"], policy["chosen_by"], settings["priority"]),
                 ("minimal-downtime", "vm metadata", ("7", "vm metadata")), "what the VM says at the target")
    bed.restart("site-a")
    past = bed.api("site-a", "GET", f"/v1/moves/{report['id']}")[1]
    expect_equal(past["policy"]["name"], "minimal-downtime", "the policy of a past move")
    expect_words(bed.ferry("site-a", "show", report["id"], as_json=False).out, ["policy: minimal-downtime"], "show")


def holds(bed):
    """hold and bwlimit by a group; a hold that nobody wants is taken back by the request"""
    guest = bed.guest(**LIKE)
    with bed.configured("site-a", lambda text: text + "\n[group all]\nvms = *\nhold = yes\nbwlimit = 80M\n"):
        started = bed.ferry("site-a", "move", guest.name, "--to", "site-b", "--policy", "wan", "--detach").document()
        def view():
            return bed.api("site-a", "GET", f"/v1/moves/{started['id']}")[1]
        until(lambda: view()["held"], lambda: f"the group's hold does not hold: {view()}")
        expect_equal(view()["policy"]["settings"]["bwlimit"], {"value": "80M", "from": "group all"}, "the limit")
        result = bed.ferry("site-a", "set", started["id"], "bwlimit=off")
        expect_equal(result.status, 0, f"exit status of set ({result})")
        expect_equal(view()["policy"]["settings"]["bwlimit"], {"value": "off", "from": "request"}, "the limit, changed")
        for words in ("priority=3", "bwlimit=fast", "xbzrle_cache=64M", "nothing"):
            expect(bed.ferry("site-a", "set", started["id"], words).status in (1, 2), f"set {words} is taken")
        expect_equal(bed.ferry("site-a", "cancel", started["id"]).status, 0, "exit status of cancel")
        wait_finished(bed, started["id"])
        expect_stayed(bed, guest)
        report = bed.ferry("site-a", "move", guest.name, "--to", "site-b", "--policy", "minimal-downtime", "--set",
                           "hold=no").document()
        expect_equal((report["outcome"], report["policy"]["name"]), ("committed", "minimal-downtime"),
                     "without the hold")
        wait_finished(bed, report["id"])
        expect_moved(bed, guest)


def evacuated(bed):
    """An evacuation takes a policy, and VMs of a higher priority go first"""
    first, second = bed.guest(**LIKE), bed.guest("vmb", **LIKE)
    tell(bed, second, "<settings priority='9'/>")
    bed.alter(first)
    result = bed.ferry("site-a", "evacuate", "--to", "site-b", "--policy", "none-such")
    expect_equal(result.status, 1, f"exit status of an evacuation by no policy ({result})")
    plan = bed.ferry("site-a", "evacuate", "--to", "site-b", "--policy", "minimal-downtime", "--dry-run").document()
    expect_equal([vm["domain"] for vm in plan["vms"]], [second.name, first.name], "the order")
    result = bed.ferry("site-a", "evacuate", "--to", "site-b", "--policy", "minimal-downtime", "--jobs", "1")
    expect_equal(result.status, 0, f"exit status of evacuate ({result})")
    moves = {m["domain"]: m for m in bed.moves("site-a") if m["outcome"] == "committed"}
    for guest in (first, second):
        expect_equal((moves[guest.name]["policy"]["name"], moves[guest.name]["policy"]["chosen_by"]),
                     ("minimal-downtime", "request"), f"the policy of {guest.name}")
        wait_finished(bed, moves[guest.name]["id"])
        ferrylab.expect_well(guest, "site-b")
    for guest in (first, second):
        guest.stop()


def limited(bed, what, *words):
    """A move of a guest that does not converge on this line, with a limit of three seconds."""
    bed.line(rtt=40, rate=200)
    guest = bed.guest(**BUSY)
    move = bed.move(guest, "site-a", "site-b", "--set", "time_limit_s=3", "--set", f"at_time_limit={what}", *words)
    return guest, move


def suspended(bed):
    """The same, in the midst: its guest stands still, and what is left will take a while."""
    guest, move = limited(bed, "suspend", "--set", "converge=none")
    move.wait_phase("memory")
    bed.line(rtt=40, rate=4)
    until(lambda: guest.states().get("site-a") == "paused", "the guest is never suspended")
    return guest, move


def limit_aborts(bed):
    """At the time limit the move ends, and the VM stays"""
    guest, move = limited(bed, "abort", "--set", "converge=none")
    result = move.end()
    expect_equal((result.status, result.document()["outcome"]), (1, "aborted"), "the end")
    expect_words(result.document()["reason"], ["did not converge within 3 s", "time_limit_s"], "the reason")
    wait_finished(bed, move.id)
    expect_stayed(bed, guest)


def limit_suspends(bed):
    """At the time limit the guest stands still, and its move comes to an end"""
    guest, move = limited(bed, "suspend", "--set", "converge=none")
    report = move.end().document()
    expect_equal((report["outcome"], report["time_limit_reached"]), ("committed", True), "the end")
    wait_finished(bed, report["id"])
    expect_moved(bed, guest)


def limit_suspends_and_is_cancelled(bed):
    """A guest that the time limit has suspended goes on when its move is cancelled"""
    guest, move = suspended(bed)
    expect_equal(bed.ferry("site-a", "cancel", move.id).status, 0, "exit status of cancel")
    bed.line(**ferrylab.LINE)
    expect_equal(move.end().document()["outcome"], "aborted", "the outcome")
    wait_finished(bed, move.id)
    expect_stayed(bed, guest)


def limit_suspends_in_a_drill(bed):
    """A guest that the time limit has suspended goes on here when its drill has its clone"""
    bed.line(rtt=40, rate=200)
    guest = bed.guest(**BUSY)
    result = ferrylab.Move(bed, guest.name, "site-a", "site-b", "--set", "time_limit_s=3", "--set",
                           "at_time_limit=suspend", "--set", "converge=none", command="drill").end()
    expect_equal(result.status, 0, f"exit status of the drill ({result})")
    expect_equal((result.document()["outcome"], result.document()["time_limit_reached"]), ("drilled", True), "the end")
    wait_finished(bed, result.document()["id"])
    expect_rehearsed(bed, guest)


def limit_suspends_and_ferryd_dies(bed):
    """A guest that the time limit has suspended goes on when ferryd is killed and started again"""
    guest, move = suspended(bed)
    bed.kill("site-a")
    bed.line(**ferrylab.LINE)
    bed.start("site-a")
    wait_finished(bed, move.id)
    expect_stayed(bed, guest)


def limit_stuns_harder(bed):
    """At the time limit the guest is slowed down beyond what its policy allowed"""
    guest, move = limited(bed, "stun-harder", "--set", "stun_max_percent=5")
    report = move.end().document()
    expect_equal((report["outcome"], report["time_limit_reached"]), ("committed", True), "the end")
    expect(report["stun"]["max_percent"] > 5, f"the stun: {report['stun']}")
    wait_finished(bed, report["id"])
    expect_moved(bed, guest)


if __name__ == "__main__":
    sys.exit(ferrylab.run("policies", [listed, levels, broken, follows, holds, evacuated, limit_aborts, limit_suspends,
                                       limit_suspends_and_is_cancelled, limit_suspends_in_a_drill,
                                       limit_suspends_and_ferryd_dies,
                                       limit_stuns_harder]))
