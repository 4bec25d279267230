# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Shows what was removed and what stayed on every host of the play."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..module_utils._prune import references
from ..module_utils._prune.references import COLUMNS
from ..plugin_utils.report import table
from ..plugin_utils.report.base import Report, hosts, readable


class ActionModule(Report):
    def make(self, options: dict[str, Any], variables: dict[str, Any]) -> tuple[list[str], dict[str, Any]]:
        items = {host: (known.get("spark_pruned"), failure) for host, known, failure in hosts(variables)}
        sound = readable(
            items, lambda some: table.render(self._rows(some), COLUMNS), lambda failure: (None, failure)
        )
        rows = self._rows(sound)
        return table.render(rows, COLUMNS), {"rows": rows}

    def _rows(self, items: Mapping[str, tuple[Any, Mapping[str, Any] | None]]) -> list[dict[str, str]]:
        rows = []
        for host, (pruned, failure) in items.items():
            # The failure of a host says how far it got.
            told = pruned or (failure if failure and "things" in failure else {})
            rows += references.rows(host, told, failure, self._task.check_mode)
        return rows
