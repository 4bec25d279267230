# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Private to the role model_sync: who brings which snapshot from where, after a step on all hosts. Once, on the controller.

Options: C(known), the plan before this step, empty at the beginning; C(step); C(fan_out), without which each host fetches for itself.
After the step C(describe) the peers can meet. So that plan also holds what they need for that: C(torrents), {commit: its
description}, and C(swarm), a secret.
"""

from __future__ import annotations

import secrets
from typing import Any, ClassVar

from ..plugin_utils.compute import ComputeOnce, of_hosts
from ..plugin_utils.sync import plan

REGISTERS = {
    "look": ("look", "hash"),
    "fetch": ("fetch",),
    "describe": ("describe",),
    "transfer": ("start", "wait", "stop"),
}
"""The tasks of each step; the role registers them as `__model_sync_<task>`."""


class ActionModule(ComputeOnce):
    ARGUMENT_SPEC: ClassVar[dict[str, Any]] = {
        "known": {"type": "dict", "required": True},
        "step": {"type": "str", "choices": list(REGISTERS), "required": True},
        "fan_out": {"type": "bool", "required": True},
    }

    def compute(self, options: dict[str, Any], variables: dict[str, Any]) -> dict[str, Any]:
        step = options["step"]
        names = {task: f"__model_sync_{task}" for task in REGISTERS[step]}
        registered = of_hosts(variables, variables["ansible_play_hosts_all"], list(names.values()))
        results = {
            task: {host: found[name] for host, found in registered.items() if found.get(name)}
            for task, name in names.items()
        }
        batch = variables["ansible_play_batch"]
        made = plan.note(options["known"], step, results, batch, options["fan_out"])
        if step == "describe":
            described = {
                commit: results["describe"][host]["torrents"][commit]
                for commit, host in made["describe"].items()
            }
            made |= {"torrents": described, "swarm": secrets.token_hex(32)}
        return made
