# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Actions that work under the lock of their run. A module gets the lock in its environment (plugins/module_utils/_run/lock_file.py)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ansible.plugins.action import ActionBase

from ..module_utils._run import lock_file
from . import this_run

FACT = "sparkfleet_run_lock"
"""Fact of a host on which a run has taken the lock: run (its id) and directory. Facts can be cached, so it may be a former
run's."""


def lock_of_this_run(action: ActionBase, task_vars: Mapping[str, Any] | None) -> dict[str, str] | None:
    """The lock that this run has taken on the task's host; None if it has taken none."""
    variables: Mapping[str, Any] = task_vars or {}
    host = action._task.delegate_to
    if host:
        hosts = variables.get("hostvars") or {}
        variables = hosts[host] if host in hosts else {}  # noqa: SIM401  it gives something for every name
    fact = (variables.get("ansible_facts") or {}).get(FACT)
    if not fact or fact["run"] != this_run.run_id():
        return None
    return {"run": str(fact["run"]), "directory": str(fact["directory"])}


class UnderLock(ActionBase):
    """An action whose modules change a host, and do so only while the host belongs to their run."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        lock = lock_of_this_run(self, task_vars)
        if lock:
            # Changes this task in this process alone.
            self._task.environment = [
                *(self._task.environment or []),
                {lock_file.ENVIRONMENT: json.dumps(lock)},
            ]
        return result
