# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters for the monitoring: thin fronts of the package."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError

from ..module_utils._common.terminal import printable
from ..plugin_utils.gateway import fleet
from ..plugin_utils.gateway.refusal import GatewayError
from ..plugin_utils.monitoring import plan


def monitoring_plan(inputs: Mapping[str, Any], hostvars: Mapping[str, Any]) -> dict[str, Any]:
    looks = {host: (hostvars[host].get(fleet.RECORD), at) for host, at in inputs["sparks"].items()}
    try:
        return plan.plan(inputs, looks).as_data()
    except GatewayError as error:
        raise AnsibleFilterError(printable(str(error))) from None


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"monitoring_plan": monitoring_plan}
