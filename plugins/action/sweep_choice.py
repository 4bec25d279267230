# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Private to the playbook tune: what the sweeps of all hosts propose, as the lock of a recipe holds it. Once, on the controller.

Option C(recipe): name of the recipe whose lock it is for.
"""

from __future__ import annotations

from typing import Any, ClassVar

from ..plugin_utils.bench import sweep
from ..plugin_utils.compute import ComputeOnce, of_hosts


class ActionModule(ComputeOnce):
    ARGUMENT_SPEC: ClassVar[dict[str, Any]] = {"recipe": {"type": "str", "required": True}}
    REFUSALS = (sweep.SweepError,)

    def compute(self, options: dict[str, Any], variables: dict[str, Any]) -> dict[str, Any]:
        known = of_hosts(variables, variables["ansible_play_hosts"], ["spark_sweep"])
        sweeps = {host: found.get("spark_sweep") or {} for host, found in known.items()}
        return {"speculation": sweep.choice(sweeps, options["recipe"])}
