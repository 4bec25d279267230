# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Private to the role vllm_serve: what must be done on a host that is in a unit, or was until now. Option: none.

It follows C(serving_change) on all of these hosts. See plugin_utils/unit/change.py.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from ..plugin_utils.compute import Compute, of_hosts
from ..plugin_utils.unit import change

FACTS = ("spark_change", "spark_candidate", "__vllm_serve_info")


class ActionModule(Compute):
    REFUSALS = (change.UnitError,)

    def compute(self, options: dict[str, Any], variables: dict[str, Any]) -> dict[str, Any]:
        host, order = variables["inventory_hostname"], variables["ansible_play_hosts"]

        @cache
        def look(name: str) -> change.Host | None:
            return _host(of_hosts(variables, [name], FACTS)[name]) if name in order else None

        known = change.together(host, look)
        # Of a former unit: a host that the inventory no longer has is gone, and holds nobody.
        there = {name: found for name, found in known.items() if found or name in variables["hostvars"]}
        return change.whole(host, there, order)


def _host(known: dict[str, Any]) -> change.Host:
    current = ((known.get("__vllm_serve_info") or {}).get("state") or {}).get("current")
    return change.Host(
        own=known.get("spark_change") or {},
        wanted=(known.get("spark_candidate") or {}).get("serving"),
        recorded=current["serving"] if current else None,
    )
