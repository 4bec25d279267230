# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The members of units side by side."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.sparkfleet.vllm.plugins.plugin_utils.drift.units import findings

RECORDED = {"recipe": "r", "image": "v@sha256:1", "models": {"body": "/s/b"}, "patches": ["1"]}
VERSIONS = {"driver": "580.1", "engine": "29.1", "kernel": "6.11"}


def member(rank: int, unit: str = "pair", **given: Any) -> dict[str, Any]:
    return {"unit": unit, "rank": rank, "phase": "running", "generation": "a1", "recorded": RECORDED} | given


def found(
    worker: dict[str, Any], head: dict[str, Any] | None = None, **versions: str
) -> list[tuple[str, ...]]:
    known: dict[str, dict[str, Any]] = {
        "alone": {"versions": {}},
        "head": {"member": head or member(0), "versions": VERSIONS},
        "worker": {"member": worker, "versions": VERSIONS | versions},
    }
    made = findings(known)
    assert made.keys() == {"worker"}
    return [(each.kind, each.expected, each.seen) for each in made["worker"]]


def test_equal_members_in_one_generation_are_no_finding() -> None:
    assert found(member(1)) == []
    assert findings({"alone": {}, "worker": {"member": member(1)}}) == {}, "nobody looked at its head"
    assert findings({"head": {"member": member(0)}, "other": {"member": member(1, "other")}}) == {}


@pytest.mark.parametrize("given", [{"generation": "b2"}, {"phase": "waiting"}, {"phase": "down"}])
def test_a_worker_that_does_not_run_in_the_generation_of_the_head_is_stale(given: dict[str, str]) -> None:
    (one,) = found(member(1, **given))
    phase, generation = given.get("phase", "running"), given.get("generation", "a1")
    assert one == (
        "unit-stale",
        "running in the generation of head, which is running in generation a1",
        f"{phase} in generation {generation}",
    )


def test_one_that_says_nothing_has_a_finding_of_its_own() -> None:
    assert found(member(1, phase="", generation="b2")) == []
    assert found(member(1), member(0, phase="", generation="b2")) == []


@pytest.mark.parametrize(
    ("given", "seen"),
    [
        ({"recipe": "q"}, "recipe q"),
        ({"image": None}, "image none"),
        ({"models": {"body": "/s/c"}}, "models {'body': '/s/c'}"),
        ({"patches": []}, "patches none"),
    ],
)
def test_another_record_than_the_heads_is_a_difference(given: dict[str, Any], seen: str) -> None:
    (one,) = found(member(1, recorded=RECORDED | given))
    assert (one[0], one[2]) == ("unit-differs", seen) and "which passed on head" in one[1]


def test_another_driver_or_engine_than_the_heads_is_a_difference() -> None:
    assert found(member(1), driver="570.1", engine="28", kernel="6.12") == [
        ("unit-differs", "NVIDIA driver 580.1, as on head", "NVIDIA driver 570.1"),
        ("unit-differs", "Docker engine 29.1, as on head", "Docker engine 28"),
    ]
