# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The address that several gateways share, by VRRP: one of them has it, and another takes it when that one is gone. Pure.

VRRP: RFC 5798; keepalived 2.2.7, keepalived.conf(5)
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .refusal import GatewayError, address

ROUTERS = 255
HIGHEST, STEP = 200, 5
"""Priorities, in the order of the inventory."""
MOST = HIGHEST // STEP - 1
"""Gateways."""


@dataclass(frozen=True)
class Virtual:
    address: str  # with the length of its prefix
    router: int  # id of the VRRP router; the same on all of them, and on no other VRRP router of that network
    priority: int
    own: str
    peers: tuple[str, ...]


def virtual(given: Any, host: str, gateways: Mapping[str, str]) -> Virtual | None:
    """What of it is this host's; None without such an address.

    :param given: as C(gateway_virtual_address)
    :param gateways: by name, in the order of the inventory, the address of each
    :raises GatewayError: the address is none, or nobody could take it over
    """
    if not given:
        return None
    try:
        shared = ipaddress.ip_interface(given if isinstance(given, str) and "/" in given else "")
    except ValueError:
        raise GatewayError(
            "gateway_virtual_address",
            "an address with the length of its prefix, such as 192.168.1.9/24",
            f"{given!r:.80}",
            "correct it",
        ) from None
    if host not in gateways or not 1 < len(gateways) <= MOST:
        raise GatewayError(
            "gateway_virtual_address",
            f"2 to {MOST} gateways that share it, {host} among them",
            ", ".join(gateways) or "none",
            "add a gateway, or leave the address out",
        )
    known = {
        name: address(at, f"gateways, {name}", "set spark_address of that host to its IP address")
        for name, at in gateways.items()
    }
    for name, at in known.items():
        if ipaddress.ip_address(at).version != shared.version or at == str(shared.ip):
            raise GatewayError(
                f"gateways, {name}",
                f"an address of version {shared.version} besides {shared.ip}",
                at,
                "set spark_address of that host, or correct gateway_virtual_address",
            )
    digest = hashlib.sha256(str(shared.ip).encode()).hexdigest()
    return Virtual(
        address=str(shared),
        router=int(digest, 16) % ROUTERS + 1,
        priority=HIGHEST - STEP * list(known).index(host),
        own=known[host],
        peers=tuple(at for name, at in known.items() if name != host),
    )
