# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the watchdog said last of a host, in ``<state>/watchdog/verdict.json``: its words and its shape, for who writes and who reads it."""

from __future__ import annotations

from typing import Any

from .._common import json_text, shape

FILE = "watchdog/verdict.json"
LIMIT = 256 * 1024
"""Bytes of the file. Those that are written have a few KiB."""
VERSION = 1
VERDICTS = WELL, BAD, STARTING, STOPPED, HELD, DOWN, UNKNOWN = (
    "well",
    "bad",
    "starting",
    "stopped",
    "held",
    "down",
    "unknown",
)
KINDS = WEDGED, CANARY, ACCEPTANCE, RESTARTS, MEMORY, SWAP, GPU, SILENT, UNIT = (
    "wedged",
    "canary",
    "acceptance",
    "restarts",
    "memory",
    "swap",
    "gpu",
    "not-answering",
    "unit",
)
"""Of findings."""
_SHAPE = {
    "version": int,
    "looked_at": float,
    "mode": str,
    "verdict": str,
    "reason": str,
    "findings": [{"kind": str, "severity": str, "since": float, "expected": str, "seen": str, "do": str}],
    "speculation": shape.Maybe({"drafts": int, "acceptance_rate": shape.Maybe(float)}),
    "restarts": [float],
    "agent": str,
}


def parse(text: bytes | str) -> dict[str, Any]:
    """:raises ValueError: the text is no verdict of this version"""
    found = json_text.read(text, "verdict.json", limit=LIMIT)
    if wrong := shape.wrong(found, _SHAPE, "verdict.json"):
        raise ValueError(wrong)
    if found["version"] != VERSION:
        raise ValueError(f"version {found['version']}")
    return dict(found)
