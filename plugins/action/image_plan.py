# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Private to the role image_sync: whether a host of the play lacks the image. Once for all hosts, on the controller.

Option C(looks): name of the variable in which each host keeps the result of C(image_pull) from when it only looked.
"""

from __future__ import annotations

from typing import Any, ClassVar

from ..plugin_utils.compute import ComputeOnce, of_hosts
from ..plugin_utils.image_plan import plan


class ActionModule(ComputeOnce):
    ARGUMENT_SPEC: ClassVar[dict[str, Any]] = {"looks": {"type": "str", "required": True}}

    def compute(self, options: dict[str, Any], variables: dict[str, Any]) -> dict[str, Any]:
        looks = options["looks"]
        known = of_hosts(variables, variables["ansible_play_hosts"], [looks])
        return dict(plan(host.get(looks) or {} for host in known.values()))
