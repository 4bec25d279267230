# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a gateway is to be, from the inputs of its role. The templates write it down and compute nothing. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from . import answers
from .keys import Key, keys
from .pools import Pool, pools
from .refusal import GatewayError, address, known, whole
from .virtual import Virtual, virtual


@dataclass(frozen=True)
class Route:
    """A path that is sent on, with POST. By the paths into its body, a conversation is told from others when nothing else does."""

    path: str
    openings: tuple[str, ...] = ()
    """Where its beginning may be, the likeliest first. None: it has no conversations, and every server is as good."""
    role: str = ""
    """Whose words the beginning is."""
    nexts: tuple[str, ...] = ()
    """What tells conversations apart that begin with the words of one system."""


ROUTES = (
    Route(
        "/v1/chat/completions",
        ("$.messages[0].content", "$.messages[0].content[0].text"),
        "$.messages[0].role",
        ("$.messages[1].content", "$.messages[1].content[0].text"),
    ),
    Route("/v1/completions", ("$.prompt", "$.prompt[0]")),
    Route("/v1/responses", ("$.input", "$.input[0].content", "$.input[0].content[0].text")),
    Route("/v1/embeddings"),
    Route("/v1/rerank"),
)
"""All that is sent on. The models are listed by the gateway itself."""
KIB, MIB = 1024, 1024 * 1024
HEADERS = 64 * KIB
"""Room in a buffer beside the body: the headers of a request, and what HAProxy writes to them."""

LIMITS = {
    "body": (8 * MIB, 64 * KIB, 64 * MIB),
    "connections": (2000, 10, 100_000),
    "balance": (250, 101, 1000),
}
"""{limit: (default, least, most)}; body in bytes, balance in percent of the mean load."""
TIMEOUTS = {
    "connect": (2, 1, 60),
    "headers": (10, 1, 300),
    "body": (60, 1, 3600),
    "client": (300, 1, 86400),
    "answer": (3600, 1, 86400),
    "idle": (60, 1, 3600),
    "check": (5, 1, 300),
    "interval": (2, 1, 300),
}
"""{timeout: (default, least, most)}, in seconds."""


@dataclass(frozen=True)
class Metrics:
    """Where HAProxy tells the monitoring of itself, and who that is."""

    bind: str
    sources: tuple[str, ...]


@dataclass(frozen=True)
class Plan:
    binds: tuple[str, ...]  # address:port, an address of version 6 in brackets
    tls: bool
    server_key: bool  # whether the Sparks have a key that the gateway sends
    servers: tuple[dict[str, Any], ...]  # as the pools were made of them
    pools: tuple[Pool, ...]
    keys: tuple[Key, ...]
    virtual: Virtual | None
    metrics: Metrics | None
    limits: dict[str, int]
    timeouts: dict[str, int]

    def as_data(self) -> dict[str, Any]:
        made = {name: list(each) if isinstance(each, tuple) else each for name, each in asdict(self).items()}
        return made | {
            "routes": [asdict(route) for route in ROUTES],
            "buffer": self.limits["body"] + HEADERS,
            "answers": answers.as_data(answers.ANSWERS),
            "failures": answers.as_data(answers.FAILURES),
            "models": {
                "object": "list",
                "data": [
                    {"id": pool.model, "object": "model", "created": 0, "owned_by": "sparkfleet"}
                    for pool in self.pools
                ],
            },
        }


def _binds(addresses: Iterable[Any], port: Any, safe: bool) -> tuple[str, ...]:
    number = whole(port, "gateway_port", 1, 65535)
    found = []
    for given in addresses:
        at = address(given, "gateway_addresses", "name addresses of the gateway, or 0.0.0.0 for all")
        if not safe and not ipaddress.ip_address(at).is_loopback:
            raise GatewayError(
                "gateway_certificate",
                f"a certificate for {at}",
                "none",
                "give gateway_certificate and gateway_certificate_key, or listen on 127.0.0.1. Keys would cross the network in "
                "the clear: gateway_plain: true allows that",
            )
        found.append(f"[{at}]:{number}" if ":" in at else f"{at}:{number}")
    if not found:
        raise GatewayError(
            "gateway_addresses", "at least one address", "none", "name one, or 0.0.0.0 for all"
        )
    return tuple(dict.fromkeys(found))


def _metrics(watchers: Mapping[str, str], own: str, given: Any, taken: Any) -> Metrics | None:
    """:param watchers: by name, the address of each monitoring host
    :param own: address of this gateway, for its version
    :param taken: the port of the clients
    """
    if not watchers:
        return None
    where = "spark_gateway_metrics_port"
    port = whole(given, where, 1, 65535)
    if port == whole(taken, "gateway_port", 1, 65535):
        raise GatewayError(where, "another port than that of the clients", port, f"set another {where}")
    do = "set spark_address of that host to the IP address from which it reaches the gateways"
    sources = tuple(dict.fromkeys(address(at, f"monitoring, {name}", do) for name, at in watchers.items()))
    # All addresses: one that another machine translates is none of this host's.
    return Metrics(f"[::]:{port} v4v6" if ":" in own else f"0.0.0.0:{port}", sources)


def _numbers(given: Any, where: str, bounds: Mapping[str, tuple[int, int, int]]) -> dict[str, int]:
    """All of them, each as it is given or else its default."""
    numbers = known(given, where, tuple(bounds))
    return {
        name: whole(numbers.get(name, default), f"{where}, {name}", least, most)
        for name, (default, least, most) in bounds.items()
    }


def plan(inputs: Mapping[str, Any]) -> Plan:
    """:param inputs: as roles/gateway/vars/main.yml puts them together
    :raises GatewayError: no gateway is made of them
    """
    tls, plain = bool(inputs["tls"]), bool(inputs["plain"])
    made = pools(inputs["servers"])
    return Plan(
        binds=_binds(inputs["addresses"], inputs["port"], tls or plain),
        tls=tls,
        server_key=bool(inputs["server_key"]),
        # As plain data: as_data copies them, and what a play hands on refuses that.
        servers=tuple(dict(server) for server in inputs["servers"]),
        pools=made,
        keys=keys(inputs["keys"], inputs["concurrent"], inputs["requests_per_minute"]),
        virtual=virtual(inputs["virtual_address"], inputs["host"], inputs["gateways"]),
        metrics=_metrics(
            inputs["monitoring"],
            inputs["gateways"].get(inputs["host"], ""),
            inputs["metrics_port"],
            inputs["port"],
        ),
        limits=_numbers(inputs["limits"], "gateway_limits", LIMITS),
        timeouts=_numbers(inputs["timeouts"], "gateway_timeouts", TIMEOUTS),
    )
