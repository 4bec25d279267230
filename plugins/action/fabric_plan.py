# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Private to the role fabric: what each host of the play measures to which other member of its unit. Once, on the controller."""

from __future__ import annotations

from typing import Any, ClassVar

from ..plugin_utils.compute import ComputeOnce, of_hosts
from ..plugin_utils.fabric import plan


class ActionModule(ComputeOnce):
    ARGUMENT_SPEC: ClassVar[dict[str, Any]] = {"port": {"type": "int", "required": True}}

    def compute(self, options: dict[str, Any], variables: dict[str, Any]) -> dict[str, Any]:
        hosts = of_hosts(variables, variables["ansible_play_hosts_all"], plan.NAMES)
        return {"hosts": plan.plan(hosts, options["port"])}
