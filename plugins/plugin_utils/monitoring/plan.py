# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the monitoring is to be, from the inputs of its role. The templates write it down and compute nothing. Pure."""

from __future__ import annotations

import base64
import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import urlsplit

from ...module_utils._common import json_text, shape
from ..gateway import fleet
from ..gateway.refusal import GatewayError, address, whole
from . import numbers

TARGETS = [{"targets": [str], "labels": {str: str}}]
"""Shape of a file of targets."""
JOBS = ("vllm", "node", "haproxy")
Target = dict[str, Any]
LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class Plan:
    targets: dict[str, list[Target]]
    """Per job, as Prometheus reads them from a file"""
    left_out: list[str]
    """Why a Spark's vLLM is not asked, in words"""
    thresholds: dict[str, float]
    waits: dict[str, int]
    interval: int  # seconds between two scrapes
    timeout: int  # seconds that one may take
    retention_days: int
    retention_gigabytes: int
    listens: str  # address and port of Prometheus
    asks: str  # where this host itself reaches it
    alertmanager: str

    def as_data(self) -> dict[str, Any]:
        return asdict(self)


def plan(inputs: Mapping[str, Any], looks: Mapping[str, tuple[str | None, str]]) -> Plan:
    """:param inputs: as roles/monitoring/vars/main.yml puts them together
    :param looks: by Spark, its state.json in base64 and its address; None of a Spark that did not answer
    :raises GatewayError: nothing is made of them
    """
    exporter, metrics = (
        whole(inputs[name], f"spark_{name}", 1, 65535) for name in ("exporter_port", "gateway_metrics_port")
    )
    interval = whole(inputs["interval"], "monitoring_interval", 1, 300)
    watching = list(inputs["monitoring"])
    vllm, left_out = _vllm(looks, _former(inputs["former"]), watching[0] if len(watching) == 1 else "")
    listens = address(inputs["listen"], "monitoring_listen", "name an address of this host")
    ports = [whole(inputs[name], f"monitoring_{name}", 1, 65535) for name in ("port", "alertmanager_port")]
    return Plan(
        targets={
            "vllm": vllm,
            "node": _nodes(inputs, exporter),
            "haproxy": [
                _target(at, metrics, {"host": name, "gateway": name})
                for name, at in inputs["gateways"].items()
            ],
        },
        left_out=left_out,
        thresholds=numbers.thresholds(inputs["thresholds"]),
        waits=numbers.waits(inputs["waits"]),
        interval=interval,
        timeout=min(interval, 10),
        retention_days=whole(inputs["retention_days"], "monitoring_retention_days", 1, 3650),
        retention_gigabytes=whole(
            inputs["retention_gigabytes"], "monitoring_retention_gigabytes", 1, 100_000
        ),
        listens=_at(listens, ports[0]),
        asks=_at(_own(listens), ports[0]),
        # A receiver is told by it, and nobody else has to ask it.
        alertmanager=_at(LOOPBACK, ports[1]),
    )


def _vllm(
    looks: Mapping[str, tuple[str | None, str]], former: Iterable[Target], own: str
) -> tuple[list[Target], list[str]]:
    """Those Sparks that have passed a gate. One that does not answer stays as it was: then above all it is watched.

    :param own: the monitoring host; empty for several. If it is a Spark, its server is asked where its gate asks, which may be loopback
    """
    found: list[Target] = []
    left_out = []
    for host, (content, met_at) in looks.items():
        if content is None:
            found += [each for each in former if each["labels"].get("spark") == host]
            continue
        try:
            record = fleet.recorded(host, content) if content else None
            at = _asked_at(record) if record and host == own else met_at
            server = fleet.server(host, record, at) if record else None
        except GatewayError as error:
            left_out.append(str(error))
            continue
        if server and server["port"] is not None:
            found.append(_target(at, server["port"], {"host": host, "spark": host}))
    return found, left_out


def _asked_at(record: Mapping[str, Any]) -> str:
    """Where the gate of a Spark asks its server, on the Spark itself."""
    try:
        return urlsplit(record["gate"]["base_url"]).hostname or LOOPBACK
    except ValueError:
        return LOOPBACK


def _nodes(inputs: Mapping[str, Any], port: int) -> list[Target]:
    """Every host once, with what it is."""
    hosts = {**inputs["sparks"], **inputs["gateways"], **inputs["monitoring"]}
    roles = {"spark": inputs["sparks"], "gateway": inputs["gateways"]}
    return [
        _target(at, port, {"host": host, **{role: host for role, those in roles.items() if host in those}})
        for host, at in hosts.items()
    ]


def _target(at: str, port: int, labels: dict[str, str]) -> Target:
    return {"targets": [_at(at, port)], "labels": labels}


def _at(at: str, port: int) -> str:
    try:
        return f"[{at}]:{port}" if ipaddress.ip_address(at).version == 6 else f"{at}:{port}"
    except ValueError:
        return f"{at}:{port}"


def _own(listens: str) -> str:
    """Where this host reaches what listens there."""
    at = ipaddress.ip_address(listens)
    if not at.is_unspecified:
        return listens
    return LOOPBACK if at.version == 4 else "::1"


def _former(content: str) -> list[Target]:
    """:param content: the targets that Prometheus has, in base64; empty for none. A damaged file has none, and is written anew"""
    try:
        found = json_text.read(base64.b64decode(content, validate=True).decode(), "vllm.json")
    except ValueError:
        return []
    return found if not shape.wrong(found, TARGETS) else []
