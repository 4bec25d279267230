# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters for gateways: thin fronts of the package."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError

from ..module_utils._common.terminal import printable
from ..plugin_utils.gateway import fleet, plan
from ..plugin_utils.gateway.refusal import GatewayError


def _front(function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any) -> Any:
        try:
            return function(*args)
        except GatewayError as error:
            raise AnsibleFilterError(printable(str(error))) from None

    return call


def gateway_plan(inputs: Mapping[str, Any]) -> dict[str, Any]:
    return plan.plan(inputs).as_data()


def gateway_servers(
    hosts: Iterable[str], hostvars: Mapping[str, Any], former: str = ""
) -> list[dict[str, Any]]:
    """The Sparks among `hosts` that have passed their gate; one that did not answer as the gateway had it before."""
    looks = {}
    for host in hosts:
        variables = hostvars[host]
        looks[host] = (variables.get(fleet.RECORD), fleet.met_at(host, variables), fleet.agent(variables))
    return fleet.servers(looks, former)


def gateway_unread(hosts: Iterable[str], hostvars: Mapping[str, Any]) -> list[str]:
    """Those whose record nobody has looked for in this run."""
    return [host for host in hosts if fleet.RECORD not in hostvars[host]]


def gateway_addresses(hosts: Iterable[str], hostvars: Mapping[str, Any]) -> dict[str, str]:
    """``{name: address}``, in the order given."""
    return {host: fleet.met_at(host, hostvars[host]) for host in hosts}


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {
            "gateway_addresses": gateway_addresses,
            "gateway_plan": _front(gateway_plan),
            "gateway_servers": _front(gateway_servers),
            "gateway_unread": gateway_unread,
        }
