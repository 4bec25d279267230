# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The front of the modules that may take long. What a job of one is, test_background_runs.py has."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from ansible_collections.sparkfleet.vllm.plugins.action import hf_snapshot
from ansible_collections.sparkfleet.vllm.plugins.plugin_utils import with_progress


class Front(hf_snapshot.ActionModule):
    """The front of hf_snapshot, whose every way to a host is noted in `calls`."""

    def __init__(self, outcome: dict[str, Any], **arguments: Any) -> None:
        self._task = SimpleNamespace(args=arguments, check_mode=False, async_val=0)
        self.outcome = outcome
        self.calls: list[tuple[Any, ...]] = []

    def _execute_module(self, *arguments: Any, **more: Any) -> dict[str, Any]:
        self.calls.append(("plain", arguments, more))
        return {}


@pytest.fixture
def front(monkeypatch: pytest.MonkeyPatch) -> Any:
    def run_with_progress(me: Front, *asked: Any) -> dict[str, Any]:
        me.calls.append(asked)
        return me.outcome

    monkeypatch.setattr(with_progress.UnderLock, "run", lambda *_: {"of the base": True})
    monkeypatch.setattr(with_progress, "run_with_progress", run_with_progress)
    return Front


def test_a_task_is_one_run_without_a_look_before_it(front: Any) -> None:
    one = front({"changed": False, "settled": True}, store="/s", timeout="60")
    assert one.run(None, {"x": 1}) == {"changed": False, "settled": True, "of the base": True}
    arguments = {"store": "/s", "timeout": "60"}
    assert one.calls == [("sparkfleet.vllm.hf_snapshot", arguments, {"x": 1}, 60)]


def test_the_time_limit_says_what_is_kept(front: Any) -> None:
    one = front({"failed": True, "msg": "Timeout exceeded", "exception": "x"}, timeout=7)
    result = one.run()
    assert "expected the models within 7 s" in result["msg"]
    assert "exception" not in result
