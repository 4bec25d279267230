# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Shows what a sync did on each host of the play. Runs once, on the controller, and connects to nothing."""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase
from ansible.utils.display import Display
from ansible_collections.sparkfleet.vllm.plugins.module_utils import _sync_report, _table


class ActionModule(ActionBase):
    BYPASS_HOST_LOOP = True
    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        _, options = self.validate_argument_spec({"plan": {"type": "dict", "required": True}})
        hosts = (task_vars or {})["ansible_play_hosts_all"]
        rows = _sync_report.rows(options["plan"], hosts, bool(self._task.check_mode))
        texts = [_sync_report.texts(row) for row in rows]
        for line in ["", *_table.render(texts, _sync_report.COLUMNS), ""]:
            Display().display(line)
        return result | {"changed": False, "rows": rows}
