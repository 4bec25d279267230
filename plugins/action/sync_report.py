# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Shows what a sync did on each host of the play."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from ..plugin_utils.report import table
from ..plugin_utils.report.base import Report, format_failure, readable
from ..plugin_utils.sync import report


class ActionModule(Report):
    ARGUMENT_SPEC: ClassVar[dict[str, Any]] = {"plan": {"type": "dict", "required": True}}

    def make(self, options: dict[str, Any], variables: dict[str, Any]) -> tuple[list[str], dict[str, Any]]:
        hosts = variables["ansible_play_hosts_all"]
        plan, check = options["plan"], bool(self._task.check_mode)

        def rows(some: Mapping[str, Any]) -> list[dict[str, Any]]:
            return report.rows({**plan, "fleet": {**plan["fleet"], **some}}, list(some), check)

        def lines(some: Mapping[str, Any]) -> list[str]:
            return table.render([report.texts(row) for row in rows(some)], report.COLUMNS)

        items = {host: plan["fleet"].get(host) for host in hosts}
        sound = readable(
            items,
            lambda some: [rows(some), lines(some)],
            lambda failure: report.excluded(format_failure(failure)),
        )
        return lines(sound), {"rows": rows(sound)}
