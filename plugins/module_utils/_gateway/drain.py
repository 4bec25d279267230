# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What may be taken from the traffic, and when it has gone. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from .answers import Server


def named(servers: Sequence[Server], name: str, pools: Sequence[str]) -> list[Server]:
    """The places of a Spark: in these pools, or in all where none is named."""
    return [server for server in servers if server.name == name and (not pools or server.pool in pools)]


def outages(servers: Sequence[Server], chosen: Sequence[Server]) -> list[str]:
    """The pools that would have nothing to send a request to without the chosen servers, and have something now."""
    taken = {server.key for server in chosen}
    lost = {server.pool for server in chosen if server.usable}
    left = {server.pool for server in servers if server.usable and server.key not in taken}
    return sorted(lost - left)


def sessions(servers: Sequence[Server]) -> int:
    return sum(server.sessions for server in servers)
