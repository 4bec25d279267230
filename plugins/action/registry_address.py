# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Private to the role image_registry: where the fleet meets its registry. Asks the registry's host for the address of an interface,
where one is named and no address is, so the task is delegated to that host.
"""

from __future__ import annotations

from typing import Any

from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.action import ActionBase
from ansible_collections.sparkfleet.vllm.plugins.plugin_utils import _registry_address


class ActionModule(ActionBase):
    TRANSFERS_FILES = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        _spec, options = self.validate_argument_spec(
            argument_spec={
                "host": {"type": "str", "required": True},
                "address": {"type": "str", "required": True},
                "interface": {"type": "str", "required": True},
                "port": {"type": "int", "required": True},
            }
        )
        variables = task_vars or {}
        host = options["host"]
        facts: dict[str, Any] = {}
        if host and options["interface"] and not options["address"]:
            facts = self._facts(options["interface"], variables)
        # A host may be named that the inventory does not have.
        met_at = (
            variables["hostvars"][host].get("ansible_host", host) if host in variables["hostvars"] else host
        )
        return result | {"url": _registry_address.url(**options, facts=facts, met_at=met_at)}

    def _facts(self, interface: str, variables: dict[str, Any]) -> dict[str, Any]:
        """None of a host that does not answer: the fleet then does without its registry."""
        asked = {"gather_subset": ["!all", "!min", "network"], "filter": [_registry_address.fact(interface)]}
        try:
            answer = self._execute_module("ansible.builtin.setup", asked, task_vars=variables)
        except AnsibleConnectionFailure:
            return {}
        facts: dict[str, Any] = answer.get("ansible_facts") or {}
        return facts
