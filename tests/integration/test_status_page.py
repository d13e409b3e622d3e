#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Goal: an operator's browser sees a move while it runs and what became of it, from ferryd itself and from nothing
else; and nobody but a browser on this host is shown anything, or can do anything."""

import json
import sys

import ferrylab
from browser import Browser
from ferrylab import expect, expect_equal, expect_moved, until, wait_finished

PORT = 7078
URL = f"http://127.0.0.1:{PORT}/"
CONF = {"site.status_page": f"127.0.0.1:{PORT}"}
CURL = ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "--max-time", "20"]
POINTS = "document.querySelector('[data-move=\"{id}\"] [data-chart={key}] polyline').points.numberOfItems"
TEXT = "document.querySelector('[data-move=\"{id}\"] {what}').textContent"


def ask(bed, *words):
    return bed.site("site-a").run([*CURL, *words], "ask for the page").strip()


def shows_a_move(bed):
    """A browser sees a move from its start to its end, with its charts and its downtime in parts"""
    bed.line(rtt=20, rate=200)
    guest = bed.guest(memory=256, disk=64, files=40, dirty=4, dirty_set=16, iops=20)
    with Browser(bed.site("site-a")) as browser:
        browser.open(URL)
        until(lambda: browser.value("document.getElementById('state').textContent") == "no moves yet",
              "the page does not say that there are no moves")
        expect_equal(browser.value("document.getElementById('site').textContent"), "site-a", "the site's name")
        move_id = bed.ferry("site-a", "move", guest.name, "--to", "site-b", "--hold", "--detach").document()["id"]
        until(lambda: browser.value(f"!!document.querySelector('[data-move=\"{move_id}\"]')"), "the move is not shown")

        def what(selector):
            return browser.value(TEXT.format(id=move_id, what=selector))

        until(lambda: "held" in what(".what"), lambda: f"the page does not see the hold: {what('.what')}")
        expect_equal(what(".phases .now").split()[0], "mirroring", "the phase")
        until(lambda: browser.value(POINTS.format(id=move_id, key="rate")) > 3, "the chart does not grow")
        bed.ferry("site-a", "switchover", move_id)
        view = wait_finished(bed, move_id)["site-a"]
        until(lambda: "committed" in what(".what"), lambda: f"the page does not see the end: {what('.what')}")
        expect(f"downtime {view['downtime_ms']} ms" in what(".downtime"), what(".downtime"))
        expect_equal(browser.value(f"document.querySelectorAll('[data-move=\"{move_id}\"] .parts div').length"),
                     len(view["downtime_parts_ms"]), "parts of the downtime")
        for key in ("rate", "remaining", "log", "dirty", "stun"):
            expect(browser.value(POINTS.format(id=move_id, key=key)) > 3, f"chart '{key}' is empty")
        requested = browser.value("performance.getEntriesByType('resource').map(e => e.name)")
        expect({*requested} == {URL + "v1/moves"}, f"the page asks elsewhere: { {*requested} }")
        faults = [s for s in browser.said if "favicon" not in json.dumps(s)]
        expect(not faults, f"the page has errors: {faults}")
    expect_moved(bed, guest)


def says_when_it_is_old(bed):
    """A page whose ferryd is gone says that what it shows is old, and goes on when it is back"""
    with Browser(bed.site("site-a")) as browser:
        browser.open(URL)
        state = "document.getElementById('state').textContent"
        until(lambda: "running" in browser.value(state) or "no moves" in browser.value(state), "the page is empty")
        bed.lab.ferryds["site-a"].stop()
        until(lambda: "old" in browser.value(state), "the page does not see that ferryd is gone")
        bed.start("site-a")
        until(lambda: "old" not in browser.value(state), "the page does not see that ferryd is back")


def only_shows(bed):
    """Other methods, other addresses and foreign names are refused; nothing listens beside loopback"""
    expect_equal(ask(bed, URL), "200", "the page")
    expect_equal(ask(bed, URL + "v1/moves"), "200", "the moves")
    expect_equal(ask(bed, URL + "metrics"), "200", "the metrics")
    expect_equal(ask(bed, "-X", "POST", "-d", '{"domain": "vm", "to": "site-b"}', URL + "v1/moves"), "405", "a POST")
    expect_equal(ask(bed, URL + "v1/identity"), "404", "another address of the API")
    expect_equal(ask(bed, "-H", "Host: evil.example", URL + "v1/moves"), "403", "a foreign name")
    expect_equal(ask(bed, "-H", "Host: localhost.evil.example", URL), "403", "a name that begins like ours")
    expect_equal(ask(bed, "-H", f"Host: localhost:{PORT}", URL), "200", "localhost")
    address = bed.site("site-a").address
    result = bed.site("site-a").run(["sh", "-c", f"curl -s --max-time 5 http://{address}:{PORT}/ || echo refused"],
                                    "ask at the site's own address")
    expect_equal(result.strip(), "refused", "at the site's own address")


if __name__ == "__main__":
    sys.exit(ferrylab.run("status_page", [shows_a_move, says_when_it_is_old, only_shows], CONF))
