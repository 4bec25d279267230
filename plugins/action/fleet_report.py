# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Shows the fleet of the play as one table. Runs once, on the controller, and connects to nothing."""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase
from ansible.utils.display import Display
from ansible_collections.sparkfleet.vllm.plugins.module_utils import _table
from ansible_collections.sparkfleet.vllm.plugins.plugin_utils._artifacts import artifacts

UNREACHABLE = {"task": "the host did not answer"}


class ActionModule(ActionBase):
    BYPASS_HOST_LOOP = True
    TRANSFERS_FILES = False
    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        variables = task_vars or {}
        reached = set(variables["ansible_play_hosts"])
        rows = []
        for host in variables["ansible_play_hosts_all"]:
            known = variables["hostvars"][host]
            lost = {} if host in reached else {"failure": UNREACHABLE}
            rows.append(_table.row(host, **_table.known(known) | lost))
        for line in ["", *_table.render(rows), ""]:
            Display().display(line)
        passed = [row["host"] for row in rows if row["verdict"] == _table.PASS]
        failed = [row["host"] for row in rows if row["verdict"] != _table.PASS]
        return result | {"changed": False, "rows": rows} | artifacts(passed=passed, failed=failed)
