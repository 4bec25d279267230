# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A member of a unit, by what its supervisor says."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.sparkfleet.vllm.plugins.module_utils._drift.member import findings, known

LOOK = {"phase": "running", "generation": "a1", "problem": "", "restarts": 0, "why": ""}
SILENT = LOOK | {"phase": "", "problem": "expected a status.json of the supervisor, seen none"}
DOWN = LOOK | {"phase": "down", "restarts": 5, "why": "rank 1: its server ended"}


@pytest.mark.parametrize(
    ("look", "kinds", "seen"),
    [
        (LOOK, [], ""),
        # The head tells whether it waits for long, and the comparison of the members who is stale.
        (LOOK | {"phase": "waiting"}, [], ""),
        (SILENT, ["unit-silent"], "seen none"),
        (DOWN, ["unit-down"], "ended 5 times within an hour, and stays down: rank 1: its server ended"),
    ],
)
def test_what_a_supervisor_says(look: dict[str, Any], kinds: list[str], seen: str) -> None:
    found = findings(look)
    assert [(each.subject, each.kind) for each in found] == [("server", kind) for kind in kinds]
    assert all(seen in each.seen for each in found)


def test_what_the_others_are_compared_with() -> None:
    current = {
        "recipe": "r",
        "container": {"image": "v@sha256:1"},
        "models": {"body": {"path": "/s/b"}},
        "files": [{"sha256": "2"}, {"sha256": "1"}],
    }
    assert known(LOOK, {"name": "pair", "rank": 1}, current) == {
        "unit": "pair",
        "rank": 1,
        "phase": "running",
        "generation": "a1",
        "recorded": {"recipe": "r", "image": "v@sha256:1", "models": {"body": "/s/b"}, "patches": ["1", "2"]},
    }
    assert known(SILENT, {"name": "pair", "rank": 0}, {})["recorded"]["models"] == {}
