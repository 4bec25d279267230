# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a change means for a host, as the task of the role asks for it."""

from __future__ import annotations

from typing import Any

from ansible_collections.sparkfleet.vllm.plugins.action import serving_change
from helpers import actions


def test_a_host_that_runs_what_is_on_record_has_nothing_to_do() -> None:
    host = {"driver": "580"}
    serving: dict[str, Any] = {"recipe": "r", "memory": {"fraction": 0.65, "minimum_bytes": None}}
    info = {
        "state": {"current": {"serving": serving, "gate": {"host": host}}},
        "container": {"status": "running", "restart_policy": "no"},
        "unit": {"text": "[Unit]\n", "enabled": True, "watches": True},
    }
    asked: dict[str, Any] = {"info": info, "serving": serving, "unit": "[Unit]\n", "host": host}
    assert actions.run(serving_change, {}, differs="False", **asked) == {
        "state": "settled", "anew": False, "back": False, "kept": True, "on_record": True, "changed": False,
    }  # fmt: skip
    assert actions.run(serving_change, {}, differs="True", **asked)["state"] == "replace"
