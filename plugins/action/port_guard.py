# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Controller side of C(port_guard): finds the addresses of gateways and monitoring in the inventory, before any host is touched."""

from __future__ import annotations

from typing import Any

from ansible.errors import AnsibleActionFail

from ..module_utils._common.terminal import printable
from ..plugin_utils.gateway.addresses import of_gateways
from ..plugin_utils.gateway.refusal import GatewayError
from ..plugin_utils.under_lock import UnderLock


class ActionModule(UnderLock):
    TRANSFERS_FILES = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        variables, arguments = task_vars or {}, dict(self._task.args)
        for names, sources in (("gateways", "sources"), ("monitoring", "monitoring_sources")):
            try:
                found = of_gateways(arguments.pop(names, None) or [], variables.get("hostvars") or {})
            except GatewayError as error:
                raise AnsibleActionFail(printable(str(error))) from None
            arguments[sources] = [*found, *(arguments.get(sources) or [])]
        return result | self._execute_module(
            "sparkfleet.vllm.port_guard", module_args=arguments, task_vars=variables
        )
