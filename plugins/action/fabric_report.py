# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Private to the role fabric: shows what was measured between the members of each unit. Once, on the controller."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from ..module_utils._common import shape
from ..plugin_utils.compute import of_hosts
from ..plugin_utils.fabric import plan
from ..plugin_utils.report import table
from ..plugin_utils.report.base import Report, format_failure, hosts

KEPT = {"reached": "__fabric_reached", "silent": "__fabric_listened", "measured": "__fabric_measured"}
"""In which variables the role keeps which result of its module."""
NOTHING = "no host is in a unit: set spark_unit in the inventory"
SHAPES: dict[str, Any] = {
    "reached": [{"peer": str, "problem": str}],
    "silent": {str: str},
    "measured": [
        {"peer": str, "tool": str, "device": str, "gigabits": shape.Maybe(float), "problem": str, "absent": bool}
    ],
}  # fmt: skip


class ActionModule(Report):
    ARGUMENT_SPEC: ClassVar[dict[str, Any]] = {
        "mtu": {"type": "int", "required": True},
        "tcp_floor": {"type": "float", "required": True},
        "rdma_floor": {"type": "float", "required": True},
    }

    def make(self, options: dict[str, Any], variables: dict[str, Any]) -> tuple[list[str], dict[str, Any]]:
        names = variables["ansible_play_hosts_all"]
        floors = {plan.TCP: options["tcp_floor"], plan.RDMA: options["rdma_floor"]}
        seen = {host: _seen(known, failure) for host, known, failure in hosts(variables)}
        found = plan.rows(of_hosts(variables, names, plan.NAMES), seen, options["mtu"], floors)
        refused: dict[str, str] = {}
        for row in found:
            if row["verdict"] == plan.REFUSED:
                text = f"{row['check']} {row['to']}: expected {row['expected']}, seen {row['seen']}; do: {row['do']}"
                refused[row["from"]] = "; ".join(filter(None, (refused.get(row["from"]), text)))
        lines = table.render(found, plan.COLUMNS) if found else [NOTHING]
        return lines, {"rows": found, "refused": refused}


def _seen(known: Mapping[str, Any], failure: Mapping[str, Any] | None) -> dict[str, Any]:
    """What a host measured. Of one that answers in another form, that."""
    found: dict[str, Any] = {"failure": format_failure(failure)}
    for part, variable in KEPT.items():
        value = (known.get(variable) or {}).get(part)
        if value is None:
            continue
        if unfit := shape.wrong(value, SHAPES[part], part):
            found["failure"] = unfit
        else:
            found[part] = value
    return found
