# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether the members of a unit are equal, as the task of the role asks for it."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from ansible.errors import AnsibleActionFail
from ansible_collections.sparkfleet.vllm.plugins.action import unit_check
from helpers import actions, unit


def prepared(rank: int, image: str = "o/i@sha256:1") -> dict[str, Any]:
    container = {"image": image, "command": ["/models/b"], "env": {}, "volumes": []}
    serving: dict[str, Any] = {"recipe": "r", "container": container, "models": {}, "files": []}
    serving["unit"] = {"name": "pair", "rank": rank}
    return {"spark_candidate": {"serving": serving}, "spark_host": {"driver": "580", "engine": "29.1"}}


FLEET = {
    "spark-1": prepared(0),
    "spark-2": prepared(1),
    "spark-3": {"spark_failure": {"msg": "of another unit"}},
}


def test_equal_members_pass_whatever_others_are() -> None:
    assert actions.run(unit_check, copy.deepcopy(FLEET), unit=unit.member()) == {"changed": False}


@pytest.mark.parametrize(
    ("worker", "says"),
    [
        (prepared(1, "o/i@sha256:2"), "seen image: spark-1 o/i@sha256:1, spark-2 o/i@sha256:2; give all of them"),
        ({}, "expected all members of the unit pair to be prepared, .* seen spark-2 failed"),
        (prepared(1) | {"spark_failure": {"task": "Bring the models", "msg": "no room"}}, "spark-2 failed .Bring the models: no room"),
    ],
)  # fmt: skip
def test_a_member_that_differs_or_failed_holds_each_of_them(worker: dict[str, Any], says: str) -> None:
    for rank in 0, 1:
        with pytest.raises(AnsibleActionFail, match=says):
            actions.run(unit_check, FLEET | {"spark-2": worker}, unit=unit.member(rank))
