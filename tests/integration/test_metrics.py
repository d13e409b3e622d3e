#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Goal: Prometheus' own tool finds nothing wrong with /metrics, with and without a move; the alert rules of
docs/alerts.yml fire when they should; and the rules and the dashboard ask for nothing that ferryd does not say."""

import json
import re
import subprocess
import sys

import ferrylab
from ferrylab import REPOSITORY, expect, expect_moved, wait_finished

LIKE = {"memory": 256, "disk": 64, "files": 30, "iops": 20}
METRIC = re.compile(r"\bferry_[a-z_]+")


def promtool(*words, text=None):
    done = subprocess.run(["promtool", *words], input=text, capture_output=True, text=True, check=False)
    expect(done.returncode == 0, f"promtool {' '.join(map(str, words))}: {done.stdout}{done.stderr}")


def asked_for():
    """The metrics that the rules and the dashboard name, with the file that does."""
    for name in ("docs/alerts.yml", "docs/dashboard.json"):
        text = (REPOSITORY / name).read_text()
        yield from ((metric, name) for metric in METRIC.findall(text))


def tidy(bed):
    """promtool checks the metrics while nothing moves and while something does; the latter has all that is asked for"""
    promtool("check", "metrics", text=bed.metrics("site-a"))
    guest = bed.guest(**LIKE)
    bed.line(rtt=20, rate=100)
    move_id = bed.ferry("site-a", "move", guest.name, "--to", "site-b", "--hold", "--detach").document()["id"]
    ferrylab.until(lambda: next(m for m in bed.moves("site-a") if m["id"] == move_id)["held"], "it is never held")
    text = bed.metrics("site-a")
    promtool("check", "metrics", text=text)
    expect(f'ferry_move_info{{move="{move_id}",role="source",kind="move",phase="mirroring",domain="{guest.name}"' in text,
           "the move is not described")
    said = set(METRIC.findall(text))
    missing = {(metric, name) for metric, name in asked_for() if metric not in said} - {
        ("ferry_witness_reachable", "docs/alerts.yml")}  # only with a witness: test_third_site.py
    expect(not missing, f"asked for and not said: {missing}")
    bed.ferry("site-a", "switchover", move_id)
    wait_finished(bed, move_id)
    expect_moved(bed, guest)


def rules(_):
    """The alert rules are well-formed and fire when they should"""
    promtool("check", "rules", REPOSITORY / "docs/alerts.yml")
    promtool("test", "rules", REPOSITORY / "tests/integration/alerts_test.yml")


def dashboard(_):
    """The dashboard is a document that Grafana can take: panels with places of their own, and queries"""
    panels = json.loads((REPOSITORY / "docs/dashboard.json").read_text())["panels"]
    taken = set()
    for panel in panels:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        expect(not cells & taken and at["x"] + at["w"] <= 24, f"panel '{panel['title']}' lies over another")
        expect(panel["targets"] and all(t["expr"] for t in panel["targets"]), f"panel '{panel['title']}' asks nothing")
        taken |= cells


if __name__ == "__main__":
    sys.exit(ferrylab.run("metrics", [rules, dashboard, tidy]))
