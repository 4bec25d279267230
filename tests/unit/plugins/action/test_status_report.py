# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The report as its task makes it: of what the role registered, whole or not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.sparkfleet.vllm.plugins.action import status_report
from helpers import status
from helpers.reports import Reports

GOOD = {"__status_look": {"look": status.now()}}


@pytest.fixture
def reports(monkeypatch: pytest.MonkeyPatch) -> Reports:
    return Reports(monkeypatch)


def test_hosts_that_are_not_well_are_handed_on_and_those_without_a_look_are_refused(
    reports: Reports, tmp_path: Path
) -> None:
    hosts: dict[str, dict[str, Any]] = {
        "one": GOOD,
        "two": {"__status_look": {"unreachable": True, "msg": "no route"}},
        "three": {"spark_failure": {"task": "Look at the Spark", "msg": "no python"}},
        "four": {},
        "five": {"__status_look": {"look": status.now(watchdog={"verdict": "down", "reason": "thrice"})}},
        "six": GOOD,
    }
    made = reports.run(status_report, hosts, lost="six", directory=str(tmp_path))
    assert made["refused"] == {
        "two": "the host did not answer: no route",
        "three": "Look at the Spark: no python",
        "four": "it was not looked at",
        "six": "the host did not answer",
    }
    assert made["ansible_stats"]["data"] == {"sparkfleet_unwell": ["two", "three", "four", "five", "six"]}
    assert made["changed"] is False and json.loads((tmp_path / "status.json").read_text()) == made["report"]
    assert "five: thrice" in reports.said and "two: the host did not answer: no route" in reports.said
    assert "6 Sparks: 1 bad, 4 not seen, 1 well; 123.0 tok/s, 6 running, 0 waiting" in reports.said


@pytest.mark.parametrize(
    ("registered", "where", "problem"),
    [
        ({"skipped": True}, "", "the inventory has no group monitoring"),
        ({"msg": "refused"}, "watch", "watch: refused"),
        ({"unreachable": True}, "watch", "watch: the last day was not read"),
        ({"day": [5]}, "watch", "watch: the answer: expected a mapping, seen [5]"),
        ({"day": {"start": "x"}}, "watch", "watch: start: expected a whole number, seen 'x'"),
        ({"day": status.day(["one"]) | {"alerts": [{"name": 5}]}}, "watch", "watch: alerts[0].name: expected text, seen 5"),
    ],
)  # fmt: skip
def test_without_a_day_the_report_says_why_and_shows_now(
    reports: Reports, tmp_path: Path, registered: dict[str, Any], where: str, problem: str
) -> None:
    made = reports.run(
        status_report, {"one": GOOD}, directory=str(tmp_path), day=registered, monitoring=where
    )
    assert made["report"]["monitoring"] == {"host": where, "problem": problem}
    assert made["report"]["day"] is None and made["report"]["hosts"]["one"]["verdict"] == "well"
    assert f"without the last day: {problem}" in reports.said


def test_a_strange_day_of_one_host_costs_that_host_alone(reports: Reports, tmp_path: Path) -> None:
    day = status.day(["one", "two"])
    day["hosts"]["two"]["waiting"] = ["many"]
    made = reports.run(
        status_report,
        {"one": GOOD, "two": GOOD},
        directory=str(tmp_path),
        day={"day": day},
        monitoring="watch",
    )
    assert {name: host["verdict"] for name, host in made["report"]["hosts"].items()} == {
        "one": "well", "two": "unseen",
    }  # fmt: skip
    assert made["report"]["hosts"]["one"]["day"] == day["hosts"]["one"]


def test_what_a_host_says_stays_on_its_line_and_moves_no_cursor(reports: Reports, tmp_path: Path) -> None:
    said = "gone\n\x1b[2Jspark-9: well " + "x" * 5000
    reports.run(status_report, {"one": {"__status_look": {"msg": said}}}, directory=str(tmp_path))
    (line,) = [line for line in reports.said if line.startswith("one: ")]
    assert "\\x1b[2J" in line and len(line) < 600 and "\n" not in line
