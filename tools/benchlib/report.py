# SPDX-License-Identifier: Apache-2.0
"""Rows, their targets, and how they are printed."""

import json
import pathlib
import statistics
import subprocess

from lablib.base import REPOSITORY

TARGETS = pathlib.Path(__file__).resolve().parents[1] / "bench-targets.json"


def median(values):
    return statistics.median(values) if values else None


def row(case, metric, unit, ferry, reference, reference_name, reference_failed=None):
    """One comparison; None where there is no figure. reference_failed: why the reference has none, if so."""
    ratio = ferry / reference if ferry is not None and reference else None
    return {"case": case, "metric": metric, "unit": unit, "ferry": ferry, "reference": reference,
            "reference_name": reference_name, "reference_failed": reference_failed, "ratio": ratio,
            "target": None, "pass": None}


# Kind of target -> (which figure of a row, what it must be, in words, the test)
KINDS = {
    "ferry_min": ("ferry", ">=", lambda value, bound: value >= bound),
    "ferry_max": ("ferry", "<=", lambda value, bound: value <= bound),
    "ratio_min": ("ratio", ">=", lambda value, bound: value >= bound),
    "ratio_max": ("ratio", "<=", lambda value, bound: value <= bound),
}


def apply_targets(scenario, rows):
    """Fills target and pass. A row whose figure is missing misses its target, unless it is a ratio to a
    reference that did not get there at all: that is met by getting there."""
    targets = json.loads(TARGETS.read_text()).get(scenario, {})
    for each in rows:
        for kind, bound in targets.get(each["case"], {}).get(each["metric"], {}).items():
            figure, sign, test = KINDS[kind]
            words = f"{figure} {sign} {bound:g}"
            won = figure == "ratio" and each["reference_failed"] and each["ferry"] is not None
            good = bool(won) or (each[figure] is not None and test(each[figure], bound))
            each["target"] = f"{each['target']}, {words}" if each["target"] else words
            each["pass"] = good and each["pass"] is not False


def commit():
    done = subprocess.run(["git", "-C", REPOSITORY, "describe", "--always", "--dirty"], text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False)
    return done.stdout.strip() or None


STOLEN_MUCH_PERCENT = 2


class Machine:
    """How much of the processors' time the host under this machine gave to others, since this was made: when that is
    much, times and rates of a run say little of what was measured."""

    def __init__(self):
        self.before = self._jiffies()

    @staticmethod
    def _jiffies():
        fields = pathlib.Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
        return sum(map(int, fields)), int(fields[7])

    def stolen_percent(self):
        now = self._jiffies()
        return 100 * (now[1] - self.before[1]) / max(now[0] - self.before[0], 1)

    def words(self):
        return f"{self.stolen_percent():.0f} % of the processors' time went to other machines: run it again"


def document(scenario, rows, runs, machine):
    return {"scenario": scenario, "commit": commit(), "stolen_percent": machine.stolen_percent(), "rows": rows,
            "runs": runs}


def _figure(value, digits=3):
    if value is None:
        return "-"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.{digits}g}"


def table(rows):
    """The rows for people."""
    lines = []
    header = ("metric", "unit", "ferry", None, "ratio", "target", "")
    for case in dict.fromkeys(r["case"] for r in rows):
        mine = [r for r in rows if r["case"] == case]
        cells = [[mine[0]["reference_name"] if h is None else h for h in header]]
        cells += [[r["metric"], r["unit"], _figure(r["ferry"]), _figure(r["reference"]), _figure(r["ratio"], 2),
                   r["target"] or "", {True: "met", False: "MISSED", None: ""}[r["pass"]]] for r in mine]
        widths = [max(len(line[i]) for line in cells) for i in range(len(header))]
        lines.append(case)
        if mine[0]["reference_failed"]:
            lines.append(f"  {mine[0]['reference_name']}: {mine[0]['reference_failed']}")
        for line in cells:
            lines.append("  " + "  ".join(
                cell.rjust(w) if 2 <= i <= 4 else cell.ljust(w)
                for i, (cell, w) in enumerate(zip(line, widths))).rstrip())
    return "\n".join(lines)
