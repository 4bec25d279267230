# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Private to the role run_lock: one text for each run that keeps others off hosts of the play. Once for all hosts, on the controller.

Option C(locks): name of the variable in which each host keeps the result of C(run_lock).
"""

from __future__ import annotations

from typing import Any, ClassVar

from ..module_utils._run import run_lock
from ..plugin_utils.compute import ComputeOnce, of_hosts


class ActionModule(ComputeOnce):
    ARGUMENT_SPEC: ClassVar[dict[str, Any]] = {"locks": {"type": "str", "required": True}}

    def compute(self, options: dict[str, Any], variables: dict[str, Any]) -> dict[str, Any]:
        locks = options["locks"]
        known = of_hosts(variables, variables["ansible_play_hosts"], [locks])
        return {
            "refusals": run_lock.refusals({host: found.get(locks) or {} for host, found in known.items()})
        }
