# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Private to the role rollout: the batches of a run over all hosts of the play. Once, on the controller."""

from __future__ import annotations

from typing import Any, ClassVar

from ..plugin_utils.compute import ComputeOnce, of_hosts
from ..plugin_utils.serving import rollout


class ActionModule(ComputeOnce):
    ARGUMENT_SPEC: ClassVar[dict[str, Any]] = {"sizes": {"type": "raw", "required": True}}
    REFUSALS = (rollout.BatchError,)

    def compute(self, options: dict[str, Any], variables: dict[str, Any]) -> dict[str, Any]:
        known = of_hosts(variables, variables["ansible_play_hosts"], ["spark_change", "spark_failure"])
        batches = rollout.plan(known, options["sizes"])
        return {
            "batches": batches,
            "said": [batch["said"] for batch in batches],
            "traffic": [batch["traffic"] for batch in batches],
        }
