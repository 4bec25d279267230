"""The reports as their tasks run them: the action plugin, with what Ansible gives it, and what it shows."""

from __future__ import annotations

from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from ansible_collections.sparkfleet.vllm.plugins.plugin_utils.report import base
from helpers import actions
from helpers.actions import Hosts


class Reports:
    """`said` are the lines of the last one."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.said: list[str] = []
        monkeypatch.setattr(base, "Display", lambda: SimpleNamespace(display=self.said.append))

    def run(
        self, action: ModuleType, hosts: Hosts, lost: str = "", check: bool = False, **arguments: Any
    ) -> dict[str, Any]:
        """:param lost: host that no longer answers"""
        self.said.clear()
        return actions.run(action, hosts, lost, check, **arguments)
