# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What may be taken from the traffic, and when it has gone. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from .answers import DRAINED, MAINTENANCE, READY, Server


def named(servers: Sequence[Server], name: str, pools: Sequence[str]) -> list[Server]:
    """The places of a Spark: in these pools, or in all where none is named."""
    return [server for server in servers if server.name == name and (not pools or server.pool in pools)]


def lacking(servers: Sequence[Server], state: str) -> list[Server]:
    """Those that have another state. Who is in maintenance gets nothing, as a drained one, and stays there until somebody ends that."""
    enough = {state, MAINTENANCE} if state == DRAINED else {state}
    return [server for server in servers if server.state not in enough]


def outages(servers: Sequence[Server], chosen: Sequence[Server]) -> list[str]:
    """The pools that would have nothing to send a request to without the chosen servers, and have something now."""
    taken = {server.key for server in chosen}
    lost = {server.pool for server in chosen if server.usable}
    left = {server.pool for server in servers if server.usable and server.key not in taken}
    return sorted(lost - left)


def outages_by_batch(
    servers: Sequence[Server], batches: Sequence[tuple[Collection[str], Collection[str]]]
) -> dict[str, list[str]]:
    """``{pool: [Sparks]}`` of the first batch that would leave a pool without a usable server.

    :param batches: of each, the Sparks that are taken away at once, and those that are let in when it has passed
    """
    found: dict[str, list[str]] = {}
    now = list(servers)
    for taken, admitted in batches:
        chosen = [server for server in now if server.name in taken]
        for pool in outages(now, chosen):
            found.setdefault(pool, [server.name for server in chosen if server.pool == pool])
        now = [_admitted(server) if server.name in admitted else server for server in now]
    return found


def _admitted(server: Server) -> Server:
    return server if server.state == MAINTENANCE else replace(server, state=READY, up=True)


def place(servers: Sequence[Server], wanted: Mapping[str, Any]) -> Server | None:
    """The place that a Spark has in its pool. None if there is none, or one that leads elsewhere: that is not the server that passed.

    :param wanted: name, pool, address and port
    """
    for server in servers:
        if (server.pool, server.name) == (wanted["pool"], wanted["name"]):
            same = _address(server.address) == _address(wanted["address"]) and server.port == wanted["port"]
            return server if same else None
    return None


def _address(text: str) -> object:
    try:
        return ipaddress.ip_address(text.strip("[]"))
    except ValueError:
        return text


def sessions(servers: Sequence[Server]) -> int:
    return sum(server.sessions for server in servers)
