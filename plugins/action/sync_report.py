# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Shows what a sync did on each host of the play."""

from __future__ import annotations

from typing import Any, ClassVar

from ..plugin_utils.report import table
from ..plugin_utils.report.base import Report
from ..plugin_utils.sync import report


class ActionModule(Report):
    ARGUMENT_SPEC: ClassVar[dict[str, Any]] = {"plan": {"type": "dict", "required": True}}

    def make(self, options: dict[str, Any], variables: dict[str, Any]) -> tuple[list[str], dict[str, Any]]:
        hosts = variables["ansible_play_hosts_all"]
        rows = report.rows(options["plan"], hosts, bool(self._task.check_mode))
        texts = [report.texts(row) for row in rows]
        return table.render(texts, report.COLUMNS), {"rows": rows}
