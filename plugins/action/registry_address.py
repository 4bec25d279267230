# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Private to the role image_registry: the address of the fleet's registry. If an interface is named and no address, it asks the registry's
host for the address of that interface. So the task is delegated to that host.
"""

from __future__ import annotations

from typing import Any, ClassVar

from ansible.errors import AnsibleConnectionFailure

from ..plugin_utils import registry_address
from ..plugin_utils.compute import Compute


class ActionModule(Compute):
    _requires_connection = True
    ARGUMENT_SPEC: ClassVar[dict[str, Any]] = {
        "host": {"type": "str", "required": True},
        "address": {"type": "str", "required": True},
        "interface": {"type": "str", "required": True},
        "port": {"type": "int", "required": True},
    }

    def compute(self, options: dict[str, Any], variables: dict[str, Any]) -> dict[str, Any]:
        host = options["host"]
        facts: dict[str, Any] = {}
        if host and options["interface"] and not options["address"]:
            facts = self._facts(options["interface"], variables)
        # The inventory may lack the named host.
        met_at = (
            variables["hostvars"][host].get("ansible_host", host) if host in variables["hostvars"] else host
        )
        return {"url": registry_address.url(**options, facts=facts, met_at=met_at)}

    def _facts(self, interface: str, variables: dict[str, Any]) -> dict[str, Any]:
        """Facts of the interface. None if the host does not answer: the fleet then does without its registry."""
        asked = {"gather_subset": ["!all", "!min", "network"], "filter": [registry_address.fact(interface)]}
        try:
            answer = self._execute_module("ansible.builtin.setup", asked, task_vars=variables)
        except AnsibleConnectionFailure:
            return {}
        facts: dict[str, Any] = answer.get("ansible_facts") or {}
        return facts
