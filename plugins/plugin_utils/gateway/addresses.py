# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From which addresses gateways come to the Sparks, by the inventory. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from typing import Any

from .fleet import met_at
from .refusal import GatewayError, address

SET = "set spark_address of that host to the IP address from which it reaches the Sparks"


def of_gateways(hosts: Iterable[str], hostvars: Mapping[str, Any]) -> list[str]:
    """One of each, in their order.

    :raises GatewayError: a host has no address, or one that only itself reaches
    """
    found = []
    for host in hosts:
        if host not in hostvars:
            raise GatewayError(host, "a host of the inventory", "none", "add it, or name another one")
        at = address(met_at(host, hostvars[host]), host, SET)
        if ipaddress.ip_address(at).is_loopback:
            raise GatewayError(host, "an address from which it reaches the Sparks", at, SET)
        found.append(at)
    return found
