# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The page of a status, as a browser takes it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import pytest
from ansible_collections.sparkfleet.vllm.plugins.plugin_utils.report.page import TEMPLATES
from ansible_collections.sparkfleet.vllm.plugins.plugin_utils.status import page, report
from helpers import status
from helpers.page import stands_alone

UGLY = "<b>a very long name</b>-" + "x" * 60


def rendered(hosts: dict[str, Any], day: bool = True, alert: dict[str, str] | None = None) -> str:
    looks = {
        name: {"now": seen, "failure": "" if seen else "the host did not answer <i>"}
        for name, seen in hosts.items()
    }
    made = report.report(
        looks,
        status.day(hosts, **(alert or {})) if day else None,
        made="2026-11-30T21:00:00Z",
        monitoring="watch" if day else "",
        problem="" if day else "the inventory has no group monitoring",
    )
    return page.render(made)


def fleet(count: int) -> dict[str, Any]:
    return {f"spark-{number}": status.now() for number in range(count)}


def details(text: str) -> Iterable[tuple[str, bool]]:
    for found in re.finditer(r'<details class="card" id="host-([^"]*)"( open)?>', text):
        yield found[1], bool(found[2])


@pytest.mark.parametrize("count", [1, 4, 40])
def test_a_page_of_any_fleet_stands_alone(count: int) -> None:
    text = rendered(fleet(count))
    seen = stands_alone(text)
    charts = len(page.SERIES) * (count + (count > 1))
    assert seen.tags.count("svg") == seen.tags.count("desc") == charts
    assert ("The last day of the fleet" in text) is (count > 1)
    assert len(text) < 40_000 * (count + 2)


def test_of_a_small_fleet_all_is_open_and_of_a_large_one_what_is_not_well_which_comes_first() -> None:
    assert dict(details(rendered(fleet(4)))) == {f"spark-{number}": True for number in range(4)}
    large = fleet(6) | {"spark-3": None, "spark-5": status.now(watchdog={"verdict": "bad"})}
    assert list(details(rendered(large))) == [
        ("spark-5", True), ("spark-3", True), ("spark-0", False), ("spark-1", False), ("spark-2", False), ("spark-4", False),
    ]  # fmt: skip


def test_a_verdict_is_a_sign_and_a_word_beside_its_colour() -> None:
    assert set(page.SIGNS) == set(report.WORDS)
    text = rendered({"one": None, "two": status.now()})
    for kind, words in (("unseen", "not seen"), ("well", "well")):
        sign = f'<span class="sign" aria-hidden="true">{page.SIGNS[kind]}</span>'
        assert f'<span class="state {kind}">{sign}<span class="word">{words}</span></span>' in text


def test_every_verdict_has_colours() -> None:
    styles = "".join((TEMPLATES / name).read_text() for name in ("status/page.css", "report/page.css"))
    for kind in report.WORDS:
        assert re.search(rf"\.{kind}\b", styles), kind


def test_what_hosts_say_is_text() -> None:
    text = rendered(
        {UGLY: None, "two": status.now(record={"recipe": "<script>"})},
        alert={"name": "<b>", "severity": "", "host": UGLY},
    )
    assert "<script>" not in text and "<b>a very" not in text and "answer <i>" not in text
    assert "&lt;script&gt;" in text and "&lt;i&gt;" in text
    stands_alone(text)


def test_what_is_missing_is_a_dash() -> None:
    bare = status.now(record=None, gate=None, server=None, watchdog=None, memory=None, gpu=None)
    text = rendered({"one": bare}, day=False)
    assert text.count("<td>–</td>") == len(page.HEADS)
    assert "none has looked" in text
    stands_alone(text)


def test_without_a_monitoring_host_the_page_says_so_and_shows_now() -> None:
    text = rendered(fleet(2), day=False)
    assert "This page has no last day: the inventory has no group monitoring." in text
    assert "<svg" not in text and "61.5" in text


def test_alerts_come_before_all_else() -> None:
    alert = {"name": "SparkEngineWedged", "severity": "critical", "host": "spark-0"}
    text = rendered(fleet(1), alert=alert)
    assert text.index("SparkEngineWedged") < text.index("<h2>Now</h2>")
    assert "Alerts that fire" not in rendered(fleet(1))


def test_the_fleet_of_a_time_is_made_of_the_sparks_that_have_a_value() -> None:
    hosts: list[dict[str, Any]] = [
        {"day": {"tokens_per_second": [1.0, None, 3.0], "memory_available": [5.0, 6.0, None]}},
        {"day": {"tokens_per_second": [10.0, None], "memory_available": [4.0, 7.0, None]}},
        {"day": {}},
    ]
    found = page._together(hosts)
    assert found["tokens_per_second"] == [11.0, None, 3.0]
    assert found["memory_available"] == [4.0, 6.0, None]
    assert found["temperature"] == []


def test_an_amount_has_few_digits_and_no_exponent() -> None:
    assert [page._amount(value) for value in (1174.2, 29.76, 5.0, 0.0, 2e6)] == [
        "1174",
        "29.8",
        "5",
        "0",
        "2000000",
    ]


def test_the_gpu_and_the_swap_are_in_the_details() -> None:
    text = rendered({"one": status.now(gpu={"slowed_by": ["sw_thermal"], "power": None})})
    assert "96%, 71 °C, 2405 MHz; slowed by sw_thermal" in text and "1.0 GiB used of 16.0 GiB" in text
