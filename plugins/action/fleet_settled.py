# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Private to the role unchanged: whether nothing has changed on any host of the play. Once for all hosts, on the controller."""

from __future__ import annotations

from typing import Any

from ..plugin_utils.compute import ComputeOnce, of_hosts


class ActionModule(ComputeOnce):
    def compute(self, options: dict[str, Any], variables: dict[str, Any]) -> dict[str, Any]:
        known = of_hosts(variables, variables["ansible_play_hosts"], ["spark_settled"])
        looks = [host.get("spark_settled") or {} for host in known.values()]
        return {"settled": all(look.get("settled") for look in looks)}
