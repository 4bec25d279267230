# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The servers of a gateway, from what each Spark has on record. Pure."""

from __future__ import annotations

import base64
import ipaddress
from collections.abc import Mapping
from typing import Any

from ...module_utils._common import json_text, shape
from ...module_utils._serve import state
from .pools import pool_name
from .refusal import GatewayError

RECORD = "__gateway_record"
"""In which variable the role keeps what it read of a Spark."""
_SERVED = {
    "recipe": shape.Maybe(str),
    "container": {"published_ports": shape.Maybe([str])},
    "gate": {"served_model": str, "base_url": str},
}
"""What of a record a gateway reads."""
AGENT_PORT = 8621
"""Of a Spark whose inventory names no other."""


def recorded(host: str, content: str) -> Mapping[str, Any] | None:
    """The server that passed its gate on a Spark last; None without one, and of a worker of a unit, which answers nobody.

    :param content: of its state.json, in base64 as C(slurp) brings it
    :raises GatewayError: it is no state
    """
    try:
        known = state.parse(base64.b64decode(content, validate=True).decode())
    except ValueError as error:
        raise GatewayError(
            f"{host}, state.json",
            "the record of what passed there",
            error,
            "move the file away and deploy again",
        ) from None
    current = (known or {}).get("current")
    if current is None:
        return None
    record: Mapping[str, Any] = current["serving"]
    if state.rank_of(record):
        return None
    if wrong := shape.wrong(record, _SERVED, "current.serving"):
        raise GatewayError(
            f"{host}, state.json", "the record of what passed there", wrong, "run site.yml there"
        )
    return record


def met_at(host: str, variables: Mapping[str, Any]) -> str:
    """Where gateways meet a host of the inventory."""
    return str(variables.get("spark_address") or variables.get("ansible_host") or host)


def agent(variables: Mapping[str, Any]) -> int | str | None:
    """Port at which the watchdog of a Spark tells gateways whether it serves; None without a watchdog.

    :param variables: of the Spark
    """
    mode = variables.get("spark_watchdog")
    # YAML reads a bare off as false.
    if mode is False or mode == "off":
        return None
    return variables.get("spark_watchdog_port") or AGENT_PORT


def place(host: str, record: Mapping[str, Any], met_at: str) -> dict[str, Any]:
    """The place of a server behind a gateway: name, pool, address and port."""
    model, port = record["gate"]["served_model"], state.port_of(record)
    return {"name": host, "pool": pool_name(model), "address": met_at, "port": port}


def server(
    host: str, record: Mapping[str, Any], met_at: str, agent: int | str | None = None
) -> dict[str, Any]:
    """As C(gateway_servers) names one.

    :param met_at: where gateways meet the Spark
    :param agent: port of its watchdog's agent; None without one
    :raises GatewayError: its port is closed to them
    """
    published = record["container"].get("published_ports") or []
    if (
        published
        and not _loopback(met_at)
        and all(_loopback(each.rpartition(":")[0].rpartition(":")[0]) for each in published)
    ):
        raise GatewayError(
            host,
            f"vLLM's port open at {met_at}",
            f"{published[0]}, which only this Spark itself reaches",
            "set vllm_serve_bind to the address at which the gateways meet it, and run site.yml",
        )
    return {
        "name": host,
        "model": record["gate"]["served_model"],
        "recipe": record.get("recipe") or "",
        "address": met_at,
        "port": state.port_of(record),
        **({} if agent is None else {"agent": agent}),
    }


def _loopback(at: str) -> bool:
    try:
        return ipaddress.ip_address(at.strip("[]")).is_loopback
    except ValueError:
        return at == "localhost"


def servers(
    looks: Mapping[str, tuple[str | None, str, int | str | None]], former: str = ""
) -> list[dict[str, Any]]:
    """Those Sparks that passed.

    :param looks: by host, its state.json in base64, where gateways meet it, and the port of its watchdog's agent. No state.json of a Spark
        that did not answer: the controller does not reach it, and clients may. It stays as it was
    :param former: servers.json of the gateway, in base64; empty for none
    :raises GatewayError: a record or the file is damaged, or a port is closed to gateways
    """
    found = []
    for host, (content, met_at, agent) in looks.items():
        if content is None:
            found += [each for each in _former(former) if each.get("name") == host]
        elif content and (record := recorded(host, content)):
            found.append(server(host, record, met_at, agent))
    return found


def _former(content: str) -> list[dict[str, Any]]:
    if not content:
        return []
    try:
        read = json_text.read(base64.b64decode(content, validate=True).decode(), "servers.json")
    except ValueError as error:
        read = error
    if not isinstance(read, list) or not all(isinstance(each, dict) for each in read):
        raise GatewayError(
            "servers.json of this gateway",
            "the servers that it has, since a Spark does not answer",
            f"{read!r:.80}",
            "see that every Spark answers, or leave out those that do not (gateway_sparks)",
        )
    return read
