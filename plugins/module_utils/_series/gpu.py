# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a GPU does now, as nvidia-smi tells it. Pure.

What a GPU does not tell is left out: a GB10 has no memory of its own, and says [N/A] to every question about it.
Fields: nvidia-smi --help-query-gpu.
"""

from __future__ import annotations

import math

from .text import Sample

HELPS = {
    "sparkfleet_gpu_utilisation_ratio": "Share of the last second in which the GPU computed, from 0 to 1.",
    "sparkfleet_gpu_temperature_celsius": "Temperature of the GPU.",
    "sparkfleet_gpu_power_watts": "Power that the GPU draws.",
    "sparkfleet_gpu_clock_hertz": "Clock of the multiprocessors.",
    "sparkfleet_gpu_throttled": "Whether the GPU slows itself down, 1 or 0, by reason.",
}
_NUMBERS = {
    "utilization.gpu": ("sparkfleet_gpu_utilisation_ratio", 0.01),
    "temperature.gpu": ("sparkfleet_gpu_temperature_celsius", 1.0),
    "power.draw": ("sparkfleet_gpu_power_watts", 1.0),
    "clocks.sm": ("sparkfleet_gpu_clock_hertz", 1e6),
}
_REASONS = {
    "clocks_throttle_reasons.hw_slowdown": "hw_slowdown",
    "clocks_throttle_reasons.hw_thermal_slowdown": "hw_thermal",
    "clocks_throttle_reasons.hw_power_brake_slowdown": "hw_power_brake",
    "clocks_throttle_reasons.sw_thermal_slowdown": "sw_thermal",
    "clocks_throttle_reasons.sw_power_cap": "sw_power_cap",
}
"""The names that all drivers from 580 on know. Newer ones also call them clocks_event_reasons."""
QUERIES = (tuple(_NUMBERS), tuple(_REASONS))
"""Fields of each question. A driver that does not know one field answers nothing of the whole question."""
LINES = 16
"""GPUs of a host."""


def command(fields: tuple[str, ...]) -> list[str]:
    return ["nvidia-smi", f"--query-gpu=index,{','.join(fields)}", "--format=csv,noheader,nounits"]


def parse(text: str, fields: tuple[str, ...]) -> list[Sample]:
    """The series in an answer to :func:`command`. A line of another form is left out, and so is a field without a number."""
    found = []
    for line in text.splitlines()[:LINES]:
        index, *cells = [cell.strip() for cell in line.split(",")]
        if len(cells) != len(fields) or not (index.isdecimal() and index.isascii() and len(index) < 4):
            continue
        for field, cell in zip(fields, cells, strict=True):
            if (value := _value(field, cell)) is not None:
                name, labels = _series(field)
                found.append(Sample(name, value, {"gpu": index, **labels}))
    return found


def _series(field: str) -> tuple[str, dict[str, str]]:
    if field in _REASONS:
        return "sparkfleet_gpu_throttled", {"reason": _REASONS[field]}
    return _NUMBERS[field][0], {}


def _value(field: str, cell: str) -> float | None:
    if field in _REASONS:
        return {"Active": 1.0, "Not Active": 0.0}.get(cell)
    try:
        value = float(cell) * _NUMBERS[field][1]
    except ValueError:
        return None
    return round(value, 6) if math.isfinite(value) else None
