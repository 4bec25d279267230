# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Shows the fleet of the play as one table."""

from __future__ import annotations

from typing import Any

from ansible_collections.sparkfleet.vllm.plugins.module_utils import _table
from ansible_collections.sparkfleet.vllm.plugins.plugin_utils._report import Report, handed_on, hosts


class ActionModule(Report):
    def make(self, options: dict[str, Any], variables: dict[str, Any]) -> tuple[list[str], dict[str, Any]]:
        rows = [
            _table.row(host, **_table.known(known) | {"failure": failure})
            for host, known, failure in hosts(variables)
        ]
        passed = [row["host"] for row in rows if row["verdict"] == _table.PASS]
        failed = [row["host"] for row in rows if row["verdict"] != _table.PASS]
        return _table.render(rows), {"rows": rows} | handed_on(passed=passed, failed=failed)
