# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a unit has come as far as one of its members."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.sparkfleet.vllm.plugins.plugin_utils.unit.verdict import LONGEST, refusal

PAIR = ["head", "worker"]


def look(generation: str = "a1", phase: str = "running", **more: str) -> dict[str, Any]:
    return {"phase": phase, "generation": generation, "container": "running", "why": "", "problem": ""} | more


def reached(step: str, head: str = "a1", worker: str = "a1", before: str = "a1") -> dict[str, Any]:
    return {
        host: {"step": step, "look": look(generation), "before": before}
        for host, generation in (("head", head), ("worker", worker))
    }


@pytest.mark.parametrize(
    ("step", "known"),
    [
        ("ready", {host: {"step": "ready"} for host in PAIR}),
        ("started", {host: {"step": "started"} for host in PAIR}),
        ("restored", {host: {"step": "restored"} for host in PAIR}),
        ("running", reached("running", before="")),
        ("proven", reached("proven")),
    ],
)
def test_all_have_come_as_far(step: str, known: dict[str, Any]) -> None:
    assert refusal(PAIR, PAIR, step, known, {}) == ""


def test_a_member_that_failed_is_named_with_its_reason() -> None:
    known = reached("running") | {"worker": {"step": "started"}}
    told = refusal(
        PAIR, PAIR, "running", known, {"worker": "no such file\ndo: look", "head": "of an earlier step"}
    )
    assert told == (
        "expected all of head, worker to run as a member of the unit, seen worker: no such file\ndo: look; "
        "do: mend that host and run again"
    )


@pytest.mark.parametrize("known", [{}, {"worker": {}}, {"worker": {"step": "started"}}])
def test_a_member_that_was_lost_has_said_nothing(known: dict[str, Any]) -> None:
    told = refusal(PAIR, PAIR, "proven", {"head": reached("proven")["head"], **known}, {})
    assert "seen worker: it gave no answer" in told


def test_a_reason_is_short() -> None:
    told = refusal(PAIR, PAIR, "started", {"head": {"step": "started"}}, {"worker": "x" * 5000})
    assert "x" * LONGEST in told and "x" * (LONGEST + 1) not in told


def test_a_worker_of_another_generation_is_none() -> None:
    told = refusal(PAIR, PAIR, "running", reached("running", "a1", "b2"), {})
    assert "seen head in a1, worker in b2" in told


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        (look(phase="waiting", why="rank 0: gone"), "worker waiting; rank 0: gone; do:"),
        (look(phase="", problem="no status", container=""), "worker says nothing (no status), and its container is absent;"),
        (look(phase="down", container="exited"), "worker down, and its container is exited;"),
        ({}, "worker says nothing (no status), and its container is absent;"),
    ],
)  # fmt: skip
def test_a_member_that_does_not_run_is_shown_with_what_it_says(seen: dict[str, Any], expected: str) -> None:
    known = reached("running") | {"worker": {"step": "running", "look": seen}}
    told = refusal(PAIR, PAIR, "running", known, {})
    assert expected in told and "seen worker" in told


def test_a_unit_that_started_again_during_the_gate_has_not_passed() -> None:
    told = refusal(PAIR, PAIR, "proven", reached("proven", "b2", "b2", before="a1"), {})
    assert "another one on head, worker" in told


def test_hosts_that_leave_a_unit_pass_together_and_each_in_a_generation_of_its_own() -> None:
    known: dict[str, Any] = {host: {"step": "proven"} for host in PAIR}
    assert refusal(PAIR, [], "proven", known, {}) == ""
    assert "worker: disk full" in refusal(
        PAIR, [], "proven", known | {"worker": {"step": "started"}}, {"worker": "disk full"}
    )
