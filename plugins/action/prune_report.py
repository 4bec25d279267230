# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Shows what went and what stayed on every host of the play."""

from __future__ import annotations

from typing import Any

from ..module_utils._prune import references
from ..plugin_utils.report import table
from ..plugin_utils.report.base import Report, hosts


class ActionModule(Report):
    def make(self, options: dict[str, Any], variables: dict[str, Any]) -> tuple[list[str], dict[str, Any]]:
        rows = []
        for host, known, failure in hosts(variables):
            # A host that failed says in its failure how far it got.
            pruned = known.get("spark_pruned") or (failure if failure and "things" in failure else {})
            rows += references.rows(host, pruned, failure, self._task.check_mode)
        return table.render(rows, references.COLUMNS), {"rows": rows}
