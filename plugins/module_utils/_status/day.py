# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The last day of a fleet, from the Prometheus of its monitoring host: a few series on one grid of times.

Standard library only: a monitoring host has no environment of the modules.
"""

from __future__ import annotations

import contextlib
import http.client
import math
import socket
import threading
import urllib.parse
from collections.abc import Iterable, Mapping
from typing import Any

from .._common import json_text, shape

HOST = "spark"
"""The label that names a Spark as the inventory does."""
OTHERS = ("host", "gateway")
"""Labels that name other hosts of an alert."""
SERIES = {
    "tokens_per_second": "sparkfleet:tokens:rate5m",
    "acceptance_rate": "sparkfleet:acceptance:ratio15m",
    "waiting": "sparkfleet:queue:requests",
    "first_token_seconds": "sparkfleet:ttft:p95_5m",
    "kv_cache_usage": "sparkfleet:kv_cache:ratio",
    "memory_available": "sparkfleet:memory:available_bytes",
    "temperature": "sparkfleet:gpu:temperature_celsius",
}
"""What is asked for, by the name in the report."""
ALERTS = 'ALERTS{alertstate="firing"}'
MOST_ALERTS = 200
HOURS = 24
STEP = 600
"""Seconds between two points."""
LIMIT = 8 * 1024 * 1024
"""Bytes of one answer: 200 hosts with 145 points each take one quarter of it."""
SECONDS = 10.0
"""For the whole of one answer."""
DIGITS = 4
"""Of a value that are kept."""
_SERIES = {
    "status": str,
    "data": {"resultType": str, "result": [{"metric": {str: str}, "values": [list]}]},
}
_VECTOR = {"status": str, "data": {"resultType": str, "result": [{"metric": {str: str}}]}}


class DayError(Exception):
    """Prometheus does not answer, or with something else than was asked for."""


def day(address: str, hosts: Iterable[str], now: float) -> dict[str, Any]:
    """The last day of these hosts: `start` and `step` in seconds, by host and series one value for each time or None, and what fires.

    :param address: of Prometheus, such as 127.0.0.1:9090
    :raises DayError: it gives no such answers
    """
    end = int(now)
    start = end - HOURS * 3600
    names = set(hosts)
    found: dict[str, dict[str, list[float | None]]] = {}
    for name, query in SERIES.items():
        asked = {"query": query, "start": str(start), "end": str(end), "step": str(STEP), "timeout": "5s"}
        answer = ask(address, "/api/v1/query_range", asked)
        for host, values in of_series(answer, start, names).items():
            found.setdefault(host, {})[name] = values
    firing = of_alerts(ask(address, "/api/v1/query", {"query": ALERTS, "timeout": "5s"}))
    return {"start": start, "step": STEP, "hosts": found, "alerts": firing}


def of_series(body: bytes, start: int, names: set[str]) -> dict[str, list[float | None]]:
    """By host, the values of one series on the grid. Other hosts are left out. Two series of one host add up to none: the last counts.

    :raises DayError: the answer is no range of values
    """
    data = _data(body, _SERIES, "matrix")
    found = {}
    for each in data["result"]:
        if (host := each["metric"].get(HOST, "")) in names:
            found[host] = _on_grid(each["values"], start)
    return found


def _on_grid(values: Iterable[Any], start: int) -> list[float | None]:
    grid: list[float | None] = [None] * (HOURS * 3600 // STEP + 1)
    for pair in values:
        if len(pair) != 2 or shape.wrong(pair[0], float) or not isinstance(pair[1], str):
            raise DayError(f"expected pairs of time and value, seen {str(pair)[:80]}")
        place = round((pair[0] - start) / STEP)
        if 0 <= place < len(grid):
            grid[place] = _value(pair[1])
    return grid


def _value(text: str) -> float | None:
    """A sample in few digits. One that is no number of things, such as NaN of a rate without requests, is None."""
    try:
        value = float(text[:40])
    except ValueError:
        raise DayError(f"expected a number, seen {text[:40]!r}") from None
    return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None


def of_alerts(body: bytes) -> list[dict[str, str]]:
    """The alerts that fire: name, severity and host, each perhaps empty.

    :raises DayError: the answer is no vector
    """
    data = _data(body, _VECTOR, "vector")
    labels: list[Mapping[str, str]] = [each["metric"] for each in data["result"][:MOST_ALERTS]]
    found = [
        {
            "name": each.get("alertname", "")[:100],
            "severity": each.get("severity", "")[:40],
            "host": next((each[label] for label in (HOST, *OTHERS) if each.get(label)), "")[:253],
        }
        for each in labels
    ]
    return sorted(found, key=lambda alert: (alert["host"], alert["name"]))


def _data(body: bytes, expected: Any, kind: str) -> dict[str, Any]:
    try:
        answer = json_text.read(body, "Prometheus")
    except json_text.JsonError as error:
        raise DayError(f"expected JSON of Prometheus, seen {body[:80]!r}") from error
    if unfit := shape.wrong(answer, expected):
        raise DayError(f"Prometheus: {unfit}")
    data: dict[str, Any] = answer["data"]
    if data["resultType"] != kind:
        raise DayError(f"Prometheus: expected a {kind}, seen {data['resultType'][:80]!r}")
    return data


def ask(address: str, path: str, fields: Mapping[str, str], seconds: float = SECONDS) -> bytes:
    """The answer to one question, limited in bytes and in time.

    :raises DayError: there is none, or it is an error
    """
    where, over = f"http://{address}", threading.Event()
    try:
        with contextlib.closing(http.client.HTTPConnection(address, timeout=seconds)) as connection:
            connection.connect()
            # A timeout limits only each wait for bytes. This ends an answer that comes byte by byte.
            timer = threading.Timer(seconds, _end, [connection.sock, over])
            timer.daemon = True
            timer.start()
            try:
                connection.request("GET", f"{path}?{urllib.parse.urlencode(fields)}")
                response = connection.getresponse()
                body = response.read(LIMIT + 1)
            finally:
                timer.cancel()
    except (OSError, http.client.HTTPException, ValueError) as error:
        said = _late(seconds) if over.is_set() else str(error) or type(error).__name__
        raise DayError(f"{where}: expected an answer of Prometheus, seen: {said}") from error
    # An answer that was cut off may look whole.
    if over.is_set() or len(body) > LIMIT:
        seen = _late(seconds) if over.is_set() else "more"
        raise DayError(f"{where}: expected at most {LIMIT} bytes, seen {seen}")
    if response.status != 200:
        raise DayError(f"{where}: {response.status} {body[:200].decode('utf-8', 'replace').strip()}")
    return body


def _late(seconds: float) -> str:
    return f"no end of the answer after {seconds:g} s"


def _end(sock: socket.socket, over: threading.Event) -> None:
    over.set()
    with contextlib.suppress(OSError):  # the other side was faster
        sock.shutdown(socket.SHUT_RDWR)
