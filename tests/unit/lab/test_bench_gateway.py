# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What `make bench-gateway` makes of what it counts, and which goals that meets."""

from __future__ import annotations

import sys

import pytest
from helpers.recipe import ROOT

sys.path[:0] = [str(ROOT / "molecule/lab"), str(ROOT / "molecule/lab/bench")]

import bench_gateway as bench
import bench_lab
from bench_conversations import Asked

METRICS = """
# TYPE vllm:prefix_cache_queries_total counter
vllm:prefix_cache_queries_total{engine="0",model_name="m"} 3000.0
vllm:prefix_cache_queries_total{engine="1",model_name="m"} 1000.0
vllm:prefix_cache_queries_created{engine="0",model_name="m"} 1.7e+09
vllm:prefix_cache_hits_total{engine="0",model_name="m"} 2.5e+03
vllm:request_success_total{engine="0",finished_reason="stop",model_name="m"} 7.0
vllm:request_success_total{engine="0",finished_reason="length",model_name="m"} 5.0
"""


def seen(*by_spark: tuple[int, int, int], first: tuple[float, ...] = (0.1,)) -> bench.Seen:
    return bench.Seen(Asked(first_tokens=list(first)), tuple(bench.Counters(*each) for each in by_spark))


def figures(hit_rate: float, load: float) -> bench.Figures:
    return bench.Figures(hit_rate, load, [1.0])


def test_a_counter_is_summed_over_its_labels() -> None:
    assert bench.counters(METRICS) == bench.Counters(requests=12, prompt=4000, hits=2500)


def test_a_round_is_what_came_on_top() -> None:
    assert bench.Counters(12, 4000, 2500) - bench.Counters(2, 1000, 500) == bench.Counters(10, 3000, 2000)


def test_the_hit_rate_is_that_of_all_tokens_and_the_load_that_of_the_busiest() -> None:
    """Not the mean of the Sparks' rates: one with a short prompt would count like one with all of them."""
    one = seen((30, 3000, 2700), (10, 1000, 100))
    assert one.hit_rate == pytest.approx(2800 / 4000)
    assert one.load == pytest.approx(1.5)


def test_nothing_asked_is_no_hit_and_no_load() -> None:
    nothing = seen((0, 0, 0), (0, 0, 0))
    assert (nothing.hit_rate, nothing.load) == (0, 0)


def test_a_way_has_the_means_of_its_rounds_and_the_first_tokens_of_all_requests() -> None:
    found = bench.figures(
        [
            seen((10, 1000, 900), (10, 1000, 900), first=(0.3, 0.1)),
            seen((30, 1000, 500), (10, 1000, 500), first=(0.2,)),
        ]
    )
    assert (found.hit_rate, found.load) == (pytest.approx(0.7), pytest.approx(1.25))
    assert found.first == pytest.approx([100, 200, 300])


def test_a_share_of_the_values_lies_below() -> None:
    values = list(range(200))
    assert (bench.at(0.5, values), bench.at(0.99, values)) == (100, 198)
    assert bench.at(0.99, [7]) == 7


@pytest.mark.parametrize(
    ("hit_rate", "load", "met"),
    [
        (0.45, 1.5, [True, True]),
        (0.44, 1.0, [False, True]),
        (0.5, 1.51, [True, False]),
    ],
)
def test_affinity_is_held_against_one_spark_alone(hit_rate: float, load: float, met: list[bool]) -> None:
    goals = bench.affinity_goals(figures(hit_rate, load), alone=figures(0.5, 2.0))
    assert list(goals.values()) == met


@pytest.mark.parametrize(
    ("held", "ended", "met"), [(500, 500, True), (499, 500, False), (500, 499, False), (600, 600, False)]
)
def test_all_streams_are_held_at_once_and_end_whole(held: int, ended: int, met: bool) -> None:
    assert list(bench.streams_goal({"held": held, "ended": ended}, 500).values()) == [met]


def test_a_core_holds_what_its_seconds_were_good_for() -> None:
    assert bench.a_core({"events": 100_000, "processor": 4.0}) == 100_000 / 4 / 25


def test_one_missed_goal_is_told_and_counts(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.say_whether({"this": True, "that": True}) is True
    assert bench.say_whether({"this": True, "that": False, "more": True}) is False
    assert capsys.readouterr().out.split("\n")[2:5] == [
        "         this: met",
        "         that: NOT met",
        "         more: met",
    ]


@pytest.mark.parametrize(("kept", "cheap", "status"), [(True, True, 0), (False, True, 1), (True, False, 1)])
def test_a_missed_goal_ends_the_run_with_a_failure(
    monkeypatch: pytest.MonkeyPatch, kept: bool, cheap: bool, status: int
) -> None:
    played: list[str] = []
    monkeypatch.setattr(bench_lab, "playbook", lambda path, inventory: played.append(path.stem))
    monkeypatch.setattr(bench, "conversations", lambda *_: kept)
    monkeypatch.setattr(bench, "cost", lambda _: cheap)
    assert bench.main() == status
    assert played == ["create", "site", "destroy"]


def test_only_the_gateway_as_it_is_can_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    """A factor that is tried may miss a goal: that is what one wants to know of it."""
    bad, good = seen((10, 1000, 0), (10, 1000, 0)), seen((10, 1000, 900), (10, 1000, 900))
    monkeypatch.setattr(bench, "on", lambda *_: "certificate")
    monkeypatch.setattr(bench, "go", lambda _: None)
    monkeypatch.setattr(bench.bench_conversations, "hold", lambda *_: None)

    def outcome(missing: str) -> bool:
        monkeypatch.setattr(bench, "measure", lambda way, *_: bad if way == missing else good)
        return bench.conversations([2], 1, 1, ["175"])

    assert outcome("affinity 175 %") is True
    assert outcome("affinity") is False
    assert outcome("round robin") is True
