# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The sweep of one host: candidates, turns, and what a fleet's proposals mean for the lock."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.sparkfleet.vllm.plugins.plugin_utils.bench.sweep import (
    SweepError,
    choice,
    describe,
    entry,
    hardware,
    made,
    turn,
    wanted,
)
from helpers.sweep import HELD_BACK, constructed, load, measured, unmeasured_rate

DRAFT = "/models/draft"
MTP: dict[str, Any] = {"method": "mtp", "model": DRAFT, "num_speculative_tokens": 1}
SERVING: dict[str, Any] = {
    "recipe": "r",
    "models": {"body": {"path": "/b", "mount": "/models/body"}, "draft": {"path": "/d", "mount": DRAFT}},
    "gate": {"speculation": MTP},
}
OFF: dict[str, Any] = {**SERVING, "gate": {"speculation": None}}
RECIPE: dict[str, Any] = {"name": "r", "serve": {"arguments": {"speculative-config": MTP}}}


def deep(tokens: int) -> dict[str, Any]:
    return {**MTP, "num_speculative_tokens": tokens}


def test_off_and_on_unless_others_are_asked_for_and_what_serves_comes_first() -> None:
    assert wanted(SERVING, {}) == [MTP, None]
    assert wanted(OFF, RECIPE) == [None, MTP]
    assert wanted(OFF, {}) == [None]
    measured_off = {"name": "r", "serve": {"arguments": {}}, "tune": {"own": MTP}}
    assert wanted(OFF, measured_off) == [None, MTP]


def test_a_candidate_without_a_method_is_what_serves_with_these_keys_changed() -> None:
    asked = [None, {"num_speculative_tokens": 4}, {"method": "ngram", "num_speculative_tokens": 2}]
    assert wanted(SERVING, {}, candidates=asked) == [None, deep(4), asked[2]]
    assert wanted(OFF, RECIPE, candidates=asked)[1] == deep(4)
    with pytest.raises(SweepError, match="expected a method"):
        wanted(OFF, {}, candidates=asked)


def test_what_serves_is_first_wherever_it_stands_and_none_comes_twice() -> None:
    asked = [None, {"num_speculative_tokens": 2}, MTP, None, {"num_speculative_tokens": 1}]
    assert wanted(SERVING, {}, candidates=asked) == [MTP, None, deep(2)]


def test_depths_of_the_draft_and_of_every_method() -> None:
    methods = {"ngram": {"prompt_lookup_max": 4}}
    assert wanted(SERVING, {}, depths=[2, 0, 1], methods=methods) == [
        MTP,
        None,
        deep(2),
        {"method": "ngram", "prompt_lookup_max": 4, "num_speculative_tokens": 1},
        {"method": "ngram", "prompt_lookup_max": 4, "num_speculative_tokens": 2},
    ]
    assert wanted(OFF, RECIPE, depths=[1]) == [MTP]
    assert wanted(OFF, RECIPE, depths="10,1") == wanted(OFF, RECIPE, depths=["1", "10"]) == [MTP, deep(10)]
    with pytest.raises(SweepError, match="expected a draft to sweep"):
        wanted(OFF, {}, depths=[0, 1])


@pytest.mark.parametrize(
    ("candidate", "words"),
    [
        ({"num_speculative_tokens": 0}, "expected 1 to 64"),
        ({"num_speculativ_tokens": 2}, "has no such key of the speculative config; nearest: num_speculative_tokens_per"),
        ({"method": "eagle3", "model": "/models/other", "num_speculative_tokens": 2}, "/models/body, /models/draft"),
        ("off", "null for off, seen 'off'"),
    ],
)  # fmt: skip
def test_what_vllm_would_not_take_is_refused_before_anything_stops(candidate: Any, words: str) -> None:
    with pytest.raises(SweepError, match=words):
        wanted(SERVING, {}, candidates=[candidate])


def test_said() -> None:
    assert describe([MTP, None], SERVING, [1, 4]) == [
        "r, each with 1 and 4 streams at a time:", "mtp n=1, which serves now", "off",
    ]  # fmt: skip


# -- turns

STEP = constructed(0.4, lambda tokens: 0.02 * (1 + 0.3 * tokens))
"""Each further token costs 30 % of a step and is accepted with 0.4 of the one before: only the first pays."""


def run(candidates: list[dict[str, Any]], asked: list[Any], early: bool) -> list[dict[str, Any]]:
    for _turn in range(len(asked) + 1):
        told = turn(candidates, asked, early=early, concurrency=1, margin=0.02)
        candidates = told["candidates"]
        if told["done"]:
            return candidates
        candidates.append(STEP(told["speculation"]))
    raise AssertionError("it never ends")


def mtp(tokens: int) -> dict[str, Any]:
    return {"method": "mtp", "num_speculative_tokens": tokens}


def test_all_have_their_turn_in_their_order() -> None:
    asked = [mtp(1), None, mtp(2), mtp(3), mtp(4)]
    had = run([], asked, early=False)
    assert [candidate["speculation"] for candidate in had] == asked
    assert {candidate["state"] for candidate in had} == {"measured"}


def test_what_cannot_win_has_none_and_says_why() -> None:
    had = run([], [mtp(1), None, mtp(2), mtp(3), mtp(4)], early=True)
    assert [candidate["state"] for candidate in had] == ["measured"] * 3 + ["skipped"] * 2
    assert all("tok/s" in candidate["because"] for candidate in had if candidate["state"] == "skipped")


def test_one_that_failed_is_not_asked_for_again() -> None:
    had = run([entry(mtp(1), "failed", "died")], [mtp(1), None], early=True)
    assert [(candidate["speculation"], candidate["state"]) for candidate in had] == [
        (mtp(1), "failed"), (None, "measured"),
    ]  # fmt: skip


# -- the whole

INFO = {
    "gb10": {"name": "NVIDIA GB10"}, "driver": "580.95.05", "architecture": "aarch64",
    "memory": {"total_bytes": 128 * 2**30}, "docker": {"version": "29.1.3"}, "toolkit": {"version": None},
}  # fmt: skip
OPTIONS: dict[str, Any] = {"host": "spark-1", "info": INFO, "concurrency": 1, "margin": 0.02}


def test_hardware_leaves_out_what_is_not_known() -> None:
    assert hardware(INFO) == {
        "gpu": "NVIDIA GB10", "architecture": "aarch64", "driver": "580.95.05", "engine": "29.1.3", "memory": "128 GiB",
    }  # fmt: skip
    assert hardware({"failed": True, "msg": "no host"}) == {}


def test_a_sweep_with_and_without_a_choice() -> None:
    had = run([], [mtp(1), None], early=False)
    published = {"source": "somebody"}
    sweep = made(had, SERVING, RECIPE | {"published": published}, propose=True, **OPTIONS)
    assert (sweep["version"], sweep["recipe"], sweep["host"]) == (1, "r", "spark-1")
    assert sweep["proposal"]["speculation"] == mtp(1)
    assert sweep["settings"]["plan"] == had[0]["measurement"]["plan"]
    assert sweep["published"] == published
    assert made(had, SERVING, RECIPE, propose=False, **OPTIONS)["proposal"] is None
    other = made(had, SERVING, {"name": "x", "published": published}, propose=True, **OPTIONS)
    assert other["published"] is None


def test_measurements_that_tell_nothing_are_handed_on_all_the_same() -> None:
    had = [measured(mtp(1), load([0.7], [50.0])), measured(None, load([], [40.0]))]
    sweep = made(had, SERVING, {}, propose=True, **OPTIONS)
    assert sweep["proposal"] is None
    assert "at least two" in sweep["settings"]["no_proposal"]
    assert sweep["candidates"] == had
    nothing = made([entry(None, "failed", "died")], SERVING, {}, propose=True, **OPTIONS)
    assert nothing["settings"]["plan"] is None and nothing["proposal"] is None


def test_one_without_a_rate_under_any_load_is_not_measurable_and_keeps_the_rest() -> None:
    lost, kept = unmeasured_rate(load([0.7], [50.0, 50.0])), load([0.7], [30.0, 30.0], 4)
    one = entry(mtp(1), "measured", measurement=measured(mtp(1), lost)["measurement"])
    assert (one["state"], one["because"]) == ("not measurable", HELD_BACK)
    assert one["measurement"]["loads"][0]["rates"] == [0.7]
    two = entry(mtp(1), "measured", measurement=measured(mtp(1), lost, kept)["measurement"])
    assert (two["state"], two["because"]) == ("measured", "")
    whole = made([one, entry(None, "failed", "died")], SERVING, {}, propose=True, **OPTIONS)
    assert whole["settings"]["plan"] and whole["proposal"] is None
    assert turn([one], [mtp(1), None], early=True, concurrency=1, margin=0.02)["speculation"] is None


# -- what goes into the lock


def sweep(*asked: Any, recipe: str = "r") -> dict[str, Any]:
    serving = SERVING | {"recipe": recipe}
    return made(run([], list(asked), early=False), serving, RECIPE, propose=True, **OPTIONS)


def test_a_choice_is_the_proposal_with_its_evidence() -> None:
    found = choice({"a": sweep(mtp(1), None), "b": sweep(mtp(1), None), "failed": {}}, "r")
    assert (found["num_speculative_tokens"], found["method"], found["options"]) == (1, "mtp", {})
    evidence = found["measured"]
    assert evidence["hosts"] == ["a", "b"]
    assert evidence["low"] <= evidence["ratio"] <= evidence["high"]
    assert evidence["ratio"] == pytest.approx(1.4 / 1.3, abs=0.001)
    assert (evidence["at"], evidence["version"]) == ("2026-11-26T12:00:00Z", "0.32.0")


def test_off_and_further_keys_are_choices_too() -> None:
    off = sweep(None)
    assert choice({"a": off}, "r")["num_speculative_tokens"] == 0
    assert choice({"a": off}, "r")["method"] == ""
    ngram = {"method": "ngram", "prompt_lookup_max": 4, "num_speculative_tokens": 1}
    assert choice({"a": sweep(ngram, None)}, "r")["options"] == {"prompt_lookup_max": 4}


@pytest.mark.parametrize(
    ("sweeps", "words"),
    [
        (lambda: {"a": {}}, "expected a proposal to write, seen none"),
        (lambda: {"a": sweep(mtp(1), None), "b": sweep(None)}, "seen a mtp n=1, b off"),
        (lambda: {"a": sweep(mtp(1), None, recipe="x")}, "expected hosts that serve r, whose lock this is, seen x on a"),
    ],
)  # fmt: skip
def test_what_is_not_written(sweeps: Any, words: str) -> None:
    with pytest.raises(SweepError, match=words):
        choice(sweeps(), "r")
