# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Looks at Sparks and a day of them, made up."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable
from typing import Any

AT = 1_796_083_200
GIB = 1024**3
POINTS = 145
RECORD: dict[str, Any] = {
    "recipe": "huihui-gemma4-mtp-n1",
    "image": "vllm/vllm-openai@sha256:" + "0123456789ab" + "c" * 52,
    "served_model": "huihui-gemma4",
    "base_url": "http://127.0.0.1:8000",
    "speculation": True,
    "floor": 0.4,
    "minimum_drafts": 200,
    "since": AT - 200_000,
    "before": {"recipe": "huihui-gemma4-batch", "image": "vllm/vllm-openai@sha256:" + "9" * 64},
}
GATE: dict[str, Any] = {
    "version": 1,
    "at": AT - 100_000.0,
    "verdict": "pass",
    "diagnosis": "ok",
    "recipe": "huihui-gemma4-mtp-n1",
    "acceptance_floor": 0.4,
    "acceptance_rate": 0.694,
    "drafts": 236,
    "tokens_per_second": 52.6,
    "passed_at": AT - 100_000.0,
}
SERVER: dict[str, Any] = {
    "started": AT - 100_000.5,
    "running": 3,
    "waiting": 0,
    "kv_cache_usage": 0.31,
    "tokens_per_second": 61.5,
    "first_token_seconds": 0.41,
    "drafts": 4711,
    "acceptance_rate": 0.702,
}
WATCHDOG: dict[str, Any] = {
    "looked_at": AT - 8,
    "mode": "observe",
    "verdict": "well",
    "reason": "",
    "findings": [],
    "speculation": {"drafts": 311, "acceptance_rate": 0.688, "floor": 0.4},
    "restarts": [],
}
NOW: dict[str, Any] = {
    "at": AT,
    "record": RECORD,
    "gate": GATE,
    "server": SERVER,
    "watchdog": WATCHDOG,
    "run": None,
    "memory": {"total": 128 * GIB, "available": 31 * GIB, "swap_total": 16 * GIB, "swap_used": GIB},
    "gpu": {"utilisation": 96.0, "power": 61.2, "temperature": 71.0, "clock": 2405.0, "slowed_by": []},
    "problems": {},
}
RUN = {"holder": "me@controller", "playbook": "site.yml", "since": "2026-11-30T20:00:00Z"}


def now(**parts: Any) -> dict[str, Any]:
    """A look. A part that is a mapping changes only what it names."""
    made = copy.deepcopy(NOW)
    for name, part in parts.items():
        made[name] = made[name] | part if isinstance(made[name], dict) and isinstance(part, dict) else part
    return made


def finding(kind: str, severity: str = "tell", seen: str = "it is so") -> dict[str, Any]:
    return {
        "kind": kind,
        "severity": severity,
        "expected": "otherwise",
        "seen": seen,
        "do": "mend it",
        "since": AT - 600,
    }


def series(seed: int = 0) -> dict[str, list[float | None]]:
    """A day of one Spark, without a value here and there."""

    def wave(low: float, high: float, hole: int = 0) -> list[float | None]:
        middle, half = (low + high) / 2, (high - low) / 2
        found: list[float | None] = [
            round(middle + half * math.sin(index / 11 + seed) * math.cos(index / 5 - seed), 3)
            for index in range(POINTS)
        ]
        if hole:
            found[hole : hole + 9] = [None] * 9
        return found

    return {
        "tokens_per_second": wave(4, 95),
        "acceptance_rate": wave(0.55, 0.74, hole=40),
        "waiting": [float(max(0, round(value or 0))) for value in wave(-6, 5)],
        "first_token_seconds": wave(0.2, 2.4, hole=40),
        "kv_cache_usage": wave(0.05, 0.6),
        "memory_available": wave(20 * GIB, 40 * GIB),
        "temperature": wave(48, 78),
    }


def day(hosts: Iterable[str], **alert: str) -> dict[str, Any]:
    names = list(hosts)
    return {
        "start": AT - 86_400,
        "step": 600,
        "hosts": {name: series(index) for index, name in enumerate(names)},
        "alerts": [alert] if alert else [],
    }
