# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which Sparks serve which model: one pool for each name that a client may ask for. Pure."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from .refusal import GatewayError, address, known, name, whole

_OPTIONS = ("name", "model", "recipe", "address", "port", "agent")
IDS = 2**31 - 1


@dataclass(frozen=True)
class Server:
    name: str  # of the Spark in the inventory
    address: str  # IP; one of version 6 in brackets
    port: int
    id: int
    """Its place on the ring of consistent hashing. By its name alone: every gateway has the same, and a new Spark moves none."""
    agent: int | None = None
    """Port at which its watchdog tells whether it serves; None without one."""


@dataclass(frozen=True)
class Pool:
    name: str  # of HAProxy's backend
    model: str  # as clients ask for it
    servers: tuple[Server, ...]


def pool_name(model: str) -> str:
    """A name for HAProxy that says which model it is. What HAProxy could not write is replaced, so a hash keeps two apart."""
    plain = re.sub(r"[^A-Za-z0-9._-]", "-", model)[:40]
    return plain if plain == model else f"{plain}-{hashlib.sha256(model.encode()).hexdigest()[:8]}"


def server_id(host: str) -> int:
    return int(hashlib.sha256(host.encode()).hexdigest(), 16) % IDS + 1


def _model(value: Any, where: str) -> str:
    # A line of a map file begins with it, and ends at the first space.
    if not isinstance(value, str) or not re.fullmatch(r"[!-~]{1,256}", value) or value.startswith("#"):
        raise GatewayError(
            where,
            "a served model name of at most 256 printable characters without spaces",
            f"{value!r:.80}",
            "set served-model-name in the recipe",
        )
    return value


def _server(given: Any, number: int) -> tuple[str, str, Server]:
    """(model, recipe, server)"""
    options = known(given, f"gateway_servers, entry {number}", _OPTIONS)
    host = name(options.get("name"), f"gateway_servers, entry {number}, name")
    where = f"gateway_servers, {host}"
    at = address(options.get("address"), where, "set spark_address of that host to its IP address")
    server = Server(
        name=host,
        address=f"[{at}]" if ":" in at else at,
        port=whole(options.get("port"), f"{where}, port", 1, 65535),
        id=server_id(host),
        agent=_agent(options.get("agent"), options.get("port"), where),
    )
    return _model(options.get("model"), f"{where}, model"), str(options.get("recipe", "")), server


def _agent(given: Any, port: Any, where: str) -> int | None:
    if given is None:
        return None
    found = whole(given, f"{where}, agent", 1, 65535)
    if str(found) == str(port):
        raise GatewayError(
            where,
            "another port for its watchdog than for its server",
            f"{found} for both",
            "set spark_watchdog_port",
        )
    return found


def pools(given: Iterable[Any]) -> tuple[Pool, ...]:
    """One for each model, by name, each with its servers by name.

    :raises GatewayError: a server is not as it should be, two recipes serve one name, or there is no server
    """
    recipes: dict[str, tuple[str, str]] = {}
    members: dict[str, dict[str, Server]] = {}
    for number, entry in enumerate(given, 1):
        model, recipe, server = _server(entry, number)
        where = f"gateway_servers, {server.name}"
        first, by = recipes.setdefault(model, (recipe, server.name))
        if first != recipe:
            raise GatewayError(
                where,
                f"one recipe that serves {model}",
                f"{first} on {by} and {recipe} here",
                "give one of them another served-model-name, or bring these Sparks to one recipe",
            )
        others = members.setdefault(model, {})
        if server.name in others:
            raise GatewayError(where, "each Spark once in a pool", "twice", "take one out")
        for other in others.values():
            if other.id == server.id:
                raise GatewayError(
                    where, "names of different hashes", f"that of {other.name}", "rename the host"
                )
            if (other.address, other.port) == (server.address, server.port):
                raise GatewayError(
                    where,
                    "an address and port that no other Spark has",
                    f"{server.address}:{server.port}, as {other.name} has",
                    "correct spark_address of one of them",
                )
        others[server.name] = server
    if not members:
        raise GatewayError(
            "gateway_servers",
            "at least one Spark that passed its gate",
            "none",
            "run site.yml, and then this again",
        )
    return tuple(
        Pool(pool_name(model), model, tuple(server for _name, server in sorted(servers.items())))
        for model, servers in sorted(members.items())
    )
