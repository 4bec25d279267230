# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Shows what a sync did on each host of the play."""

from __future__ import annotations

from typing import Any, ClassVar

from ansible_collections.sparkfleet.vllm.plugins.module_utils import _sync_report, _table
from ansible_collections.sparkfleet.vllm.plugins.plugin_utils._report import Report


class ActionModule(Report):
    ARGUMENT_SPEC: ClassVar[dict[str, Any]] = {"plan": {"type": "dict", "required": True}}

    def make(self, options: dict[str, Any], variables: dict[str, Any]) -> tuple[list[str], dict[str, Any]]:
        hosts = variables["ansible_play_hosts_all"]
        rows = _sync_report.rows(options["plan"], hosts, bool(self._task.check_mode))
        texts = [_sync_report.texts(row) for row in rows]
        return _table.render(texts, _sync_report.COLUMNS), {"rows": rows}
