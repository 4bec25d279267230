# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a unit has come as far as one of its members."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.sparkfleet.vllm.plugins.plugin_utils.unit.verdict import LONGEST, refusal

PAIR = ["head", "worker"]


def reached(step: str, head: str = "", worker: str = "", before: str | None = None) -> dict[str, Any]:
    known = {} if before is None else {"before": before}
    return {
        host: {"step": step, "generation": generation, **known}
        for host, generation in (("head", head), ("worker", worker))
    }


@pytest.mark.parametrize(
    ("step", "known"),
    [
        ("started", reached("started")),
        ("restored", reached("restored")),
        ("running", reached("running", "a1", "a1")),
        ("proven", reached("proven", "a1", "a1", "a1")),
    ],
)
def test_all_have_come_as_far(step: str, known: dict[str, Any]) -> None:
    assert refusal(PAIR, PAIR, step, known, {}) == ""


def test_a_member_that_failed_is_named_with_its_reason() -> None:
    known = reached("running", "a1", "a1") | {"worker": {"step": "started"}}
    told = refusal(
        PAIR, PAIR, "running", known, {"worker": "no such file\ndo: look", "head": "of an earlier step"}
    )
    assert told == (
        "expected all of head, worker to run as a member of the unit, seen worker: no such file\ndo: look; "
        "do: mend that host and run again"
    )


@pytest.mark.parametrize("known", [{}, {"worker": {}}, {"worker": {"step": "started"}}])
def test_a_member_that_was_lost_has_said_nothing(known: dict[str, Any]) -> None:
    told = refusal(PAIR, PAIR, "proven", {"head": {"step": "proven", "generation": "a1"}, **known}, {})
    assert "seen worker: it gave no answer" in told


def test_a_reason_is_short() -> None:
    told = refusal(PAIR, PAIR, "started", {"head": {"step": "started"}}, {"worker": "x" * 5000})
    assert "x" * LONGEST in told and "x" * (LONGEST + 1) not in told


@pytest.mark.parametrize(("head", "worker"), [("a1", "b2"), ("a1", ""), ("", "")])
def test_a_worker_of_another_generation_is_none(head: str, worker: str) -> None:
    told = refusal(PAIR, PAIR, "running", reached("running", head, worker), {})
    assert f"seen head in {head or 'none'}, worker in {worker or 'none'}" in told


def test_a_unit_that_started_again_during_the_gate_has_not_passed() -> None:
    told = refusal(PAIR, PAIR, "proven", reached("proven", "b2", "b2", before="a1"), {})
    assert "another one on head, worker" in told


def test_hosts_that_leave_a_unit_pass_together_and_each_in_a_generation_of_its_own() -> None:
    known = reached("proven")
    assert refusal(PAIR, [], "proven", known, {}) == ""
    assert "worker: disk full" in refusal(
        PAIR, [], "proven", known | {"worker": {"step": "started"}}, {"worker": "disk full"}
    )
