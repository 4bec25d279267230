# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters of the role that syncs models: a thin front of plugin_utils/sync."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..plugin_utils.sync import plan as fleet_plan

REGISTERS = {
    "look": ("look", "hash"),
    "fetch": ("fetch",),
    "describe": ("describe",),
    "transfer": ("start", "wait", "stop"),
}
"""What the role registers in each step: `__model_sync_<name>`."""


def sync_plan(
    plan: Mapping[str, Any],
    hostvars: Mapping[str, Any],
    hosts: Sequence[str],
    batch: Sequence[str],
    step: str,
    fan_out: bool,
) -> dict[str, Any]:
    results = {
        name: {
            host: result
            for host in hosts
            if (result := (hostvars.get(host) or {}).get(f"__model_sync_{name}"))
        }
        for name in REGISTERS[step]
    }
    return fleet_plan.note(plan, step, results, batch, fan_out)


def sync_torrents(described: Mapping[str, str], hostvars: Mapping[str, Any]) -> dict[str, str]:
    return {
        commit: hostvars[host]["__model_sync_describe"]["torrents"][commit]
        for commit, host in described.items()
    }


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"sync_plan": sync_plan, "sync_torrents": sync_torrents}
