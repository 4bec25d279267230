# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Private to the playbook site: the hosts that a rollback would take back, as the statistic C(rollback_hosts). Once, on the controller.

Option C(before): hosts that an earlier run has changed.
"""

from __future__ import annotations

from typing import Any, ClassVar

from ..plugin_utils.compute import ComputeOnce, of_hosts
from ..plugin_utils.serving import rollout


class ActionModule(ComputeOnce):
    ARGUMENT_SPEC: ClassVar[dict[str, Any]] = {
        "before": {"type": "list", "elements": "str", "required": True}
    }

    def compute(self, options: dict[str, Any], variables: dict[str, Any]) -> dict[str, Any]:
        known = of_hosts(variables, variables["ansible_play_hosts"], ["spark_change", "spark_proven"])
        data = {"rollback_hosts": rollout.changed(known, options["before"])}
        # The form in which ansible.builtin.set_stats returns it.
        return {"ansible_stats": {"data": data, "per_host": False, "aggregate": True}}
