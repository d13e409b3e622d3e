# SPDX-License-Identifier: Apache-2.0
"""What the tests of post-copy share: a guest that does not converge by itself, and a move that is to switch."""

import contextlib
import pathlib

import ferrylab
from ferrylab import expect, expect_equal, expect_moved, until, wait_finished

# A cut of the line lasts longer than that.
CONF = {"link.outage_limit_s": 20, "link.stripe_timeout_s": 2}
# What it dirties does not fit a slow line's downtime: it never converges, and its pages take some seconds.
LIKE = {"memory": 192, "files": 8, "disk": 64, "dirty_set": 48, "dirty": 30, "iops": 10}
LINE = {"rtt": 20, "rate": 200}
SLOW_MBIT = 25
USERFAULTFD = pathlib.Path("/proc/sys/vm/unprivileged_userfaultfd")


def allow():
    """What the lab does, once more: another lab that ends puts back what it has found."""
    USERFAULTFD.write_text("1")


class Switching:
    """A move that is to switch, and what it shows."""

    def __init__(self, bed, *words, like=None):
        self.bed = bed
        allow()
        bed.line(**LINE)
        self.guest = bed.guest(**(like or LIKE))
        self.source = next(iter(self.guest.states()))
        self.target = bed.other(self.source)
        self.move = bed.move(self.guest, self.source, self.target, *words)

    def view(self, site=None):
        return self.bed.api(site or self.source, "GET", f"/v1/moves/{self.move.id}")[1]

    def outstanding(self):
        """Returns while it runs at the target and pages are at the source."""
        until(lambda: self.view()["phase"] == "post-copy" or self.view()["outcome"] != "running",
              lambda: f"it never switches: {self.view()}")
        view = self.view()
        expect(view.get("postcopy", {}).get("outstanding"), f"no pages are outstanding: {view}")
        return view

    def answers(self):
        with contextlib.suppress(ferrylab.LabError):
            return self.guest.ask("stats", 5)
        return None

    def ended(self):
        result = self.move.end()
        views = wait_finished(self.bed, self.move.id)
        expect_equal({v["outcome"] for v in views.values()}, {"committed"}, f"the outcome ({result})")
        expect_moved(self.bed, self.guest, self.target)
        return views[self.source]

    def switched(self):
        report = self.ended()
        expect(report["postcopy"]["switched"] and not report["postcopy"]["outstanding"], f"the report: {report}")
        expect_equal(report["postcopy"]["note"], "all pages arrived", "the report's word")
        return report
