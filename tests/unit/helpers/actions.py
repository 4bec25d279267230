# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs an action that connects to nothing, in a play of hosts that are made up."""

from __future__ import annotations

from types import ModuleType, SimpleNamespace
from typing import Any

Hosts = dict[str, dict[str, Any]]


def run(
    action: ModuleType,
    hosts: Hosts,
    lost: str = "",
    check: bool = False,
    delegated: str | None = None,
    current: str = "",
    played: list[str] | None = None,
    **arguments: Any,
) -> dict[str, Any]:
    """:param lost: host that no longer answers
    :param delegated: host that the task is delegated to
    :param current: host for which the task runs
    :param played: hosts of the play; default, all
    """
    task = SimpleNamespace(
        args=arguments, check_mode=check, async_val=0, delegate_to=delegated, environment=None
    )
    connection = SimpleNamespace(_shell=SimpleNamespace(tmpdir=None))
    front = action.ActionModule(task, connection, None, None, None, None)
    reached = [host for host in hosts if host != lost]
    variables = {
        "ansible_play_hosts": reached,
        "ansible_play_batch": reached,
        "ansible_play_hosts_all": list(hosts) if played is None else played,
        "inventory_hostname": current,
        "hostvars": hosts,
    }
    result: dict[str, Any] = front.run(task_vars=variables)
    return result
