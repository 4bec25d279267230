# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the status of a member is worth: whole, of this version, and of now."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.sparkfleet.vllm.plugins.module_utils._unit import status

AT = 1_796_094_330.0
GOOD = {
    "version": 1,
    "unit": "pair",
    "rank": 1,
    "nodes": 2,
    "generation": "26b73c5de516ae26",
    "phase": "running",
    "since": AT - 60,
    "at": AT,
    "restarts": 1,
    "why": "rank 0 closed the link",
    "members": {"0": {"phase": "running", "generation": "26b73c5de516ae26", "age": 0.5}},
}


def judged(folder: Path, now: float) -> dict[str, Any]:
    return status.judged(*status.read(folder), now)


def test_a_fresh_one_counts(tmp_path: Path):
    (tmp_path / "status.json").write_text(json.dumps(GOOD))
    found = judged(tmp_path, AT + 9.5)
    assert (found["phase"], found["generation"], found["age"], found["problem"]) == (
        "running",
        GOOD["generation"],
        9.5,
        "",
    )
    assert (found["rank"], found["restarts"], found["members"]) == (1, 1, GOOD["members"])


@pytest.mark.parametrize("age", [11.0, -11.0, 1e6])
def test_one_whose_writer_is_gone_has_no_phase(tmp_path: Path, age: float):
    (tmp_path / "status.json").write_text(json.dumps(GOOD))
    found = judged(tmp_path, AT + age)
    assert (found["phase"], found["members"]) == ("", {})
    assert (found["generation"], found["why"]) == (GOOD["generation"], GOOD["why"])
    assert f"seen one of {age:.0f} s ago that says running" in found["problem"]


def test_none_is_a_problem_and_no_error(tmp_path: Path):
    found = judged(tmp_path, AT)
    assert (found["phase"], found["rank"], found["age"]) == ("", -1, None)
    assert found["problem"] == "expected a status.json of the supervisor, seen none"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"version": 2}, "version 2"),
        ({"phase": "asleep"}, "phase 'asleep'"),
        ({"members": {"0": {"phase": "x", "generation": "", "age": 1}}}, "phase 'x'"),
        ({"rank": "1"}, "rank: expected a whole number"),
        ({"at": None}, "at: expected a number"),
    ],
    ids=str,
)
def test_another_text_is_a_problem_and_no_error(tmp_path: Path, change: dict[str, Any], said: str):
    (tmp_path / "status.json").write_text(json.dumps(GOOD | change))
    found = judged(tmp_path, AT)
    assert found["phase"] == "" and said in found["problem"]


def test_no_more_than_so_many_bytes_are_read(tmp_path: Path):
    (tmp_path / "status.json").write_bytes(json.dumps(GOOD).encode() + b" " * status.LIMIT)
    assert f"more than {status.LIMIT} bytes" in judged(tmp_path, AT)["problem"]


def test_what_it_says_of_the_end_is_one_printable_line(tmp_path: Path):
    (tmp_path / "status.json").write_text(json.dumps(GOOD | {"why": "a\x1b[31m\n" + "b" * 999}))
    why = judged(tmp_path, AT)["why"]
    assert why.isprintable() and len(why) == 300
