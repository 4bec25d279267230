# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The front of the modules that may take long. What a job of one is, test_background_runs.py has."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.sparkfleet.vllm.plugins.action import hf_snapshot, hf_snapshot_info
from ansible_collections.sparkfleet.vllm.plugins.plugin_utils import with_progress


class Noted(ActionBase):
    """An action whose every way to a host is noted in `calls`."""

    def __init__(self, outcome: dict[str, Any], **arguments: Any) -> None:
        self._task = SimpleNamespace(args=arguments, delegate_to=None)
        self.outcome = outcome
        self.calls: list[tuple[Any, ...]] = []

    def _execute_module(self, *arguments: Any, **more: Any) -> dict[str, Any]:
        self.calls.append(("plain", arguments, more))
        return {}


class Snapshot(Noted, hf_snapshot.ActionModule):
    pass


class Look(Noted, hf_snapshot_info.ActionModule):
    pass


@pytest.fixture(autouse=True)
def no_host(monkeypatch: pytest.MonkeyPatch) -> None:
    def run_with_progress(me: Noted, *asked: Any) -> dict[str, Any]:
        me.calls.append(asked)
        return me.outcome

    monkeypatch.setattr(ActionBase, "run", lambda *_: {"of the base": True})
    monkeypatch.setattr(with_progress, "run_with_progress", run_with_progress)


def test_a_task_is_one_run_without_a_look_before_it() -> None:
    one = Snapshot({"changed": False, "settled": True}, store="/s", timeout="60")
    assert one.run(None, {"x": 1}) == {"changed": False, "settled": True, "of the base": True}
    arguments = {"store": "/s", "timeout": "60"}
    assert one.calls == [("sparkfleet.vllm.hf_snapshot", arguments, {"x": 1}, 60)]


def test_the_time_limit_says_what_is_kept() -> None:
    one = Snapshot({"failed": True, "msg": "Timeout exceeded", "exception": "x"}, timeout=7)
    result = one.run()
    assert "expected the models within 7 s" in result["msg"]
    assert "exception" not in result


@pytest.mark.parametrize("option", ["settled_only", "pair", "interface", "address"])
def test_an_option_of_a_look_names_the_module_that_looks(option: str) -> None:
    one = Snapshot({}, store="/s", **{option: "x"})
    with pytest.raises(
        AnsibleActionFail, match=rf"seen {option}; do: look with sparkfleet.vllm.hf_snapshot_info"
    ):
        one.run()
    assert one.calls == []


@pytest.mark.parametrize(("hashed", "way"), [("yes", "sparkfleet.vllm.hf_snapshot_info"), ("no", "plain")])
def test_a_look_is_one_plain_execution_and_only_hashing_says_how_far_it_is(hashed: str, way: str) -> None:
    one = Look({}, store="/s", hash=hashed)
    one.run()
    assert [name for name, *_ in one.calls] == [way]
