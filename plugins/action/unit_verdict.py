# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Private to the roles vllm_serve and vllm_gate: fails a host if another one has not come as far, so that all go back together.

Options: C(hosts), those that change together; all of the unit if there are none; C(serving), the record of the host; C(step). Each
host says how far it has come in the fact C(spark_reached). See plugin_utils/unit/verdict.py.
"""

from __future__ import annotations

from typing import Any, ClassVar

from ..plugin_utils.compute import Compute, of_hosts
from ..plugin_utils.unit import change, verdict


class BehindError(Exception):
    """A host has not come as far."""


class ActionModule(Compute):
    ARGUMENT_SPEC: ClassVar[dict[str, Any]] = {
        "hosts": {"type": "list", "elements": "str", "default": []},
        "serving": {"type": "dict", "required": True},
        "step": {"type": "str", "choices": list(verdict.STEPS), "required": True},
    }
    REFUSALS = (BehindError,)

    def compute(self, options: dict[str, Any], variables: dict[str, Any]) -> dict[str, Any]:
        peers = change.members(options["serving"])
        hosts = options["hosts"] or peers
        here = [host for host in hosts if host in variables["ansible_play_hosts"]]
        known = of_hosts(variables, here, ["spark_reached", "ansible_failed_result"])
        told = verdict.refusal(
            hosts,
            peers,
            options["step"],
            {host: each.get("spark_reached") or {} for host, each in known.items()},
            {
                host: str((each.get("ansible_failed_result") or {}).get("msg", ""))
                for host, each in known.items()
            },
        )
        if told:
            raise BehindError(told)
        return {}
