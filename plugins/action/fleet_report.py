# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Shows the fleet of the play as one table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..plugin_utils.report import table
from ..plugin_utils.report.base import Report, handed_on, hosts, readable
from ..plugin_utils.serving import rollout


class ActionModule(Report):
    def make(self, options: dict[str, Any], variables: dict[str, Any]) -> tuple[list[str], dict[str, Any]]:
        items = {host: (known, failure) for host, known, failure in hosts(variables)}
        rows = _rows(readable(items, lambda some: _table(_rows(some)), lambda failure: ({}, failure)))
        passed = [row["host"] for row in rows if row["verdict"] == table.PASS]
        failed = [row["host"] for row in rows if row["verdict"] != table.PASS]
        return _table(rows), {"rows": rows} | handed_on(passed=passed, failed=failed)


def _table(rows: list[dict[str, str]]) -> list[str]:
    return table.render(rows, table.columns(rows))


def _rows(items: Mapping[str, tuple[Any, Mapping[str, Any] | None]]) -> list[dict[str, str]]:
    return [
        table.row(host, **table.known(known) | {"failure": failure, "window": rollout.away(known)})
        for host, (known, failure) in items.items()
    ]
