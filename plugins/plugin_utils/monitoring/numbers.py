# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From when on an alert speaks: how much of what, and for how long. Pure."""

from __future__ import annotations

from typing import Any

from ..gateway.refusal import GatewayError, known, whole

Bounds = tuple[float, float, float]
"""(default, least, most)"""

DAY = 86_400
THRESHOLDS: dict[str, Bounds] = {
    "drafts": (200, 1, 1_000_000),  # within 15 minutes, so that their rate means something
    "queue": (8, 0, 10_000),  # waiting requests
    "first_token": (10, 0.01, 3600),  # seconds, of 95 in 100
    "kv_cache": (95, 1, 100),  # percent
    "preemptions": (10, 0, 1_000_000),  # within 10 minutes
    "memory": (4, 0.1, 1024),  # GiB that are available
    "swap": (10, 0, 100_000),  # MiB/s that come back
    "temperature": (85, 20, 120),  # °C
    "disk": (10, 0.1, 99),  # percent that are free
    "restarts": (2, 0, 1000),  # within an hour
    "watchdog_age": (300, 30, DAY),  # seconds since the last look
    "series_age": (300, 30, DAY),  # seconds since they were written
    "gate_age": (30, 0.001, 3650),  # days
}
WAITS: dict[str, tuple[int, int, int]] = {
    "wedged": (60, 0, DAY),
    "canary": (30, 0, DAY),
    "acceptance": (300, 0, DAY),
    "queue": (600, 0, DAY),
    "first_token": (600, 0, DAY),
    "kv_cache": (600, 0, DAY),
    "preemptions": (600, 0, DAY),
    "memory": (60, 0, DAY),
    "swap": (300, 0, DAY),
    "temperature": (300, 0, DAY),
    "throttled": (300, 0, DAY),
    "disk": (900, 0, DAY),
    "restarts": (0, 0, DAY),
    "server_silent": (120, 0, DAY),
    "watchdog_down": (0, 0, DAY),
    "watchdog_silent": (60, 0, DAY),
    "series_old": (60, 0, DAY),
    "unreachable": (120, 0, DAY),
    "digests": (3600, 0, 30 * DAY),
    "left_gateway": (900, 0, DAY),
    "gateway_silent": (60, 0, DAY),
    "gate_old": (3600, 0, DAY),
    "drift": (0, 0, DAY),
}
"""Seconds for which it must be so."""


def number(value: Any, where: str, least: float, most: float) -> float:
    """:raises GatewayError: it is no number between the two"""
    try:
        found = float(value) if isinstance(value, (int, float, str)) and not isinstance(value, bool) else None
    except ValueError:
        found = None
    if found is None or not least <= found <= most:
        raise GatewayError(
            where, f"a number from {least:g} to {most:g}", f"{value!r:.80}", "correct the number"
        )
    return int(found) if found.is_integer() else found


def thresholds(given: Any) -> dict[str, float]:
    """All of them, each as it is given or else its default.

    :raises GatewayError: one is unknown or out of its bounds
    """
    where = "monitoring_thresholds"
    asked = known(given, where, tuple(THRESHOLDS))
    return {
        name: number(asked.get(name, default), f"{where}, {name}", least, most)
        for name, (default, least, most) in THRESHOLDS.items()
    }


def waits(given: Any) -> dict[str, int]:
    """The same of the seconds, which Prometheus takes whole.

    :raises GatewayError: one is unknown or out of its bounds
    """
    where = "monitoring_waits"
    asked = known(given, where, tuple(WAITS))
    return {
        name: whole(asked.get(name, default), f"{where}, {name}", least, most)
        for name, (default, least, most) in WAITS.items()
    }
