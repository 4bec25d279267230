# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Private to the role rollout: the hosts that had their turn and have not passed. Once, on the controller."""

from __future__ import annotations

from typing import Any, ClassVar

from ..plugin_utils.compute import ComputeOnce, of_hosts
from ..plugin_utils.serving import rollout


class ActionModule(ComputeOnce):
    ARGUMENT_SPEC: ClassVar[dict[str, Any]] = {
        "earlier": {"type": "list", "elements": "str", "required": True}
    }

    def compute(self, options: dict[str, Any], variables: dict[str, Any]) -> dict[str, Any]:
        earlier = of_hosts(variables, options["earlier"], ["spark_proven"])
        return {"blocking": rollout.blocking(earlier)}
