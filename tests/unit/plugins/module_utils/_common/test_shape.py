# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a value of another shape is told of, and that a good one is told of nothing."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.sparkfleet.vllm.plugins.module_utils._common.shape import Maybe, wrong

STATE = {"Id": str, "Pid": Maybe(int), "Env": Maybe([str]), "Ports": {str: [{"Port": float}]}}
GOOD: dict[str, Any] = {
    "Id": "x",
    "Pid": None,
    "Env": ["a=b"],
    "Ports": {"80": [{"Port": 1}, {"Port": 2.5}]},
    "More": 1,
}


def test_a_good_one_is_told_of_nothing():
    assert wrong(GOOD, STATE) == ""
    assert wrong({"Id": "", "Ports": {}}, STATE) == ""


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"Id": None}, "Id: expected text, seen None"),
        ({"Pid": True}, "Pid: expected a whole number, seen True"),
        ({"Pid": 1.0}, "Pid: expected a whole number, seen 1.0"),
        ({"Env": "a=b"}, "Env: expected a list, seen 'a=b'"),
        ({"Env": ["a", 1]}, "Env[1]: expected text, seen 1"),
        ({"Ports": []}, "Ports: expected a mapping, seen []"),
        ({"Ports": {"80": [{}]}}, "Ports.80[0].Port: expected a number, seen None"),
    ],
)
def test_another_shape_is_told_with_its_place(change: dict[str, Any], said: str):
    assert wrong(GOOD | change, STATE) == said


def test_a_value_that_is_no_mapping_at_all():
    assert wrong([1], STATE) == "the answer: expected a mapping, seen [1]"
