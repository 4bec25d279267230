"""The reports as their tasks run them: the action plugin, with what Ansible gives it, and what it shows."""

from __future__ import annotations

from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from ansible_collections.sparkfleet.vllm.plugins.plugin_utils.report import base

Hosts = dict[str, dict[str, Any]]


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
        task = SimpleNamespace(args=arguments, check_mode=check, async_val=0)
        connection = SimpleNamespace(_shell=SimpleNamespace(tmpdir=None))
        front = action.ActionModule(task, connection, None, None, None, None)
        reached = [host for host in hosts if host != lost]
        variables = {"ansible_play_hosts": reached, "ansible_play_hosts_all": list(hosts), "hostvars": hosts}
        result: dict[str, Any] = front.run(task_vars=variables)
        return result
