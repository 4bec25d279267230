# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How a Spark is judged, and what is said of it."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.sparkfleet.vllm.plugins.plugin_utils.status import report
from helpers import status
from helpers.status import AT, RUN, finding, now


def made(day: Any = None, **hosts: Any) -> dict[str, Any]:
    looks = {
        name: {"now": None, "failure": seen} if isinstance(seen, str) else {"now": seen, "failure": ""}
        for name, seen in hosts.items()
    }
    return report.report(looks, day, made="2026-11-30T21:00:00Z", monitoring="watch", problem="")


@pytest.mark.parametrize(
    ("seen", "verdict", "said"),
    [
        (now(), "well", ""),
        (now(watchdog=None), "well", ""),
        (now(run=RUN, watchdog={"verdict": "bad"}), "held", "me@controller is at work here since 2026"),
        (now(record=None, server=None), "empty", "nothing has passed the gate here"),
        (now(record=None, server=None, problems={"record": "broken"}), "unseen", "record: broken"),
        (now(watchdog={"verdict": "bad", "findings": [finding("wedged")]}), "bad", "wedged: it is so; do: mend it"),
        (now(watchdog={"verdict": "down", "reason": "three"}, server=None), "bad", "three"),
        (now(watchdog={"verdict": "stopped", "reason": "stop.yml"}, server=None), "stopped", "stop.yml"),
        (now(watchdog={"verdict": "starting", "reason": "it loads"}, server=None), "starting", "it loads"),
        (now(server=None, problems={"server": "refused"}), "bad", "server: refused; do: run verify.yml"),
        (now(watchdog={"verdict": "unknown", "reason": "no engine"}), "warning", "watchdog: no engine"),
        (now(watchdog={"findings": [finding("memory")]}), "warning", "memory: it is so; do: mend it"),
        (now(watchdog={"looked_at": AT - 600}), "warning", "watchdog: its last look is 10 minutes old"),
        (now(watchdog={"looked_at": AT - 600, "verdict": "bad"}), "warning", "watchdog: its last look"),
        (now(gpu=None, problems={"gpu": "absent"}), "warning", "gpu: absent"),
        (now(gate={"verdict": "fail", "diagnosis": "low_acceptance"}), "warning", "gate: low_acceptance, asked at 2026"),
        (now(watchdog=None, server={"acceptance_rate": 0.12}), "warning", "acceptance: expected 40% or more, seen 12.0% of 4711"),
        (now(watchdog={"speculation": {"drafts": 300, "acceptance_rate": 0.1}}), "warning", "in the watchdog's last window"),
        (now(watchdog={"speculation": {"drafts": 30, "acceptance_rate": 0.1}}), "well", ""),
        (now(watchdog=None, record={"floor": None}, server={"acceptance_rate": 0.1}), "well", ""),
    ],
)  # fmt: skip
def test_a_spark_is_judged_by_the_strongest_of_what_was_seen(
    seen: dict[str, Any], verdict: str, said: str
) -> None:
    host = made(one=seen)["hosts"]["one"]
    assert host["verdict"] == verdict
    assert (
        host["reasons"][0].startswith(said) or said in host["reasons"][0] if said else host["reasons"] == []
    )


def test_a_low_acceptance_is_told_once() -> None:
    low = {"drafts": 300, "acceptance_rate": 0.1}
    seen = now(watchdog={"speculation": low, "findings": [finding("acceptance")]})
    assert made(one=seen)["hosts"]["one"]["reasons"] == ["acceptance: it is so; do: mend it"]


def test_a_spark_that_was_not_seen_is_in_the_report_with_the_reason() -> None:
    found = made(one=now(), two="the host did not answer: no route")
    assert found["hosts"]["two"]["verdict"] == "unseen" and found["hosts"]["two"]["now"] is None
    assert report.refusals(found) == {"two": "the host did not answer: no route"}
    assert report.summary(found) == "2 Sparks: 1 not seen, 1 well; 61.5 tok/s, 3 running, 0 waiting"
    assert report.reasons(found) == ["two: the host did not answer: no route"]


def test_the_fleet_adds_up() -> None:
    found = made(one=now(), two=now(server={"tokens_per_second": None, "waiting": 4}), three=now(server=None))
    assert found["fleet"]["tokens_per_second"] == 61.5
    assert (found["fleet"]["running"], found["fleet"]["waiting"], found["fleet"]["hosts"]) == (6, 4, 3)


def test_the_last_changes_are_those_of_files_and_server_the_last_one_first() -> None:
    seen = now(
        watchdog={"restarts": [AT - 900.5], "findings": [finding("swap")]},
        gate={"verdict": "fail", "diagnosis": "low_acceptance", "at": AT - 300},
    )
    changes = made(one=seen)["hosts"]["one"]["changes"]
    assert [each["what"] for each in changes] == [
        "the gate refused the server: low_acceptance",
        "the watchdog found swap: it is so",
        "the watchdog restarted the server",
        "the server started",
        "huihui-gemma4-mtp-n1 (0123456789ab) passed the gate, after huihui-gemma4-batch (999999999999)",
    ]
    assert changes[2]["at"] == AT - 900


def test_the_cells_of_a_spark() -> None:
    found = made(one=now(), two="gone", three=now(server=None, gpu=None, memory=None, gate=None))["hosts"]
    assert list(report.cells("one", found["one"]).values()) == [
        "one", "well", "61.5", "68.8%", "40%", "3", "0", "0.41 s", "31%", "31.0 GiB", "71 °C", "69.4%, 52.6 tok/s",
    ]  # fmt: skip
    assert set(list(report.cells("two", found["two"]).values())[2:]) == {"-"}
    assert report.cells("three", found["three"])["gate"] == "-"
    assert tuple(report.cells("one", found["one"])) == report.COLUMNS


def test_a_worker_of_a_unit_is_named_as_one_and_is_well() -> None:
    known = now(server=None, watchdog=None, record={"unit": {"name": "pair", "rank": 1}})
    assert report.judge(known) == ("well", [])
    host = {"verdict": "well", "now": known}
    assert report.cells("two", host)["tok/s"] == "member of pair"
    head = now(record={"unit": {"name": "pair", "rank": 0}})
    assert report.cells("one", {"verdict": "well", "now": head})["tok/s"] == "61.5"


def test_a_refusal_of_the_gate_is_in_its_cell() -> None:
    assert report.gate(status.GATE | {"verdict": "fail"}) == "fail, 69.4%, 52.6 tok/s"
    assert report.gate(status.GATE | {"drafts": None, "tokens_per_second": None}) == "pass"


def test_the_day_is_that_of_each_host_and_the_alerts_are_told() -> None:
    found = made(status.day(["one"], name="SparkQueueLong", severity="", host="one"), one=now(), two=now())
    assert found["hosts"]["one"]["day"] == status.series() and found["hosts"]["two"]["day"] == {}
    assert found["day"] == {"start": AT - 86_400, "step": 600}
    assert report.alerts(found) == ["fires: SparkQueueLong one"]


def test_a_time_that_no_calendar_has_is_shown_as_it_is() -> None:
    assert report.clock(1e18) == "1000000000000000000"
    assert report.clock(0) == "1970-01-01T00:00:00Z"
