# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the gate said last on a host, whether the server passed or not. Pure functions of data.

``<state>/gate.json`` tells it to whoever watches the host. Nothing decides by it: what passed is in ``state.json``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .._common import json_text, shape

FILE = "gate.json"
LIMIT = 64 * 1024
"""Bytes of the file."""
VERSION = 1
PASSED = "pass"
_SHAPE = {
    "version": int,
    "at": float,
    "verdict": str,
    "diagnosis": str,
    "recipe": str,
    "acceptance_floor": float,
    "acceptance_rate": shape.Maybe(float),
    "drafts": shape.Maybe(int),
    "tokens_per_second": shape.Maybe(float),
    "passed_at": shape.Maybe(float),
}


def verdict(
    result: Mapping[str, Any], recipe: str, floor: float, at: float, former: Mapping[str, Any] | None
) -> dict[str, Any]:
    """What the file holds from now on.

    :param result: what the gate returns
    :param at: Unix time
    :param former: what it held; when the server passed last is kept
    """
    passed = result["verdict"] == PASSED
    return {
        "version": VERSION,
        "at": at,
        "verdict": result["verdict"],
        "diagnosis": result["diagnosis"],
        "recipe": recipe,
        "acceptance_floor": floor,
        "acceptance_rate": result.get("acceptance_rate"),
        "drafts": result.get("drafts"),
        "tokens_per_second": result.get("decode_tokens_per_second"),
        "passed_at": at if passed else (former or {}).get("passed_at"),
    }


def parse(text: bytes | str) -> dict[str, Any]:
    """:raises ValueError: the text is no verdict of this version"""
    found = json_text.read(text, FILE, limit=LIMIT)
    if wrong := shape.wrong(found, _SHAPE, FILE):
        raise ValueError(wrong)
    if found["version"] != VERSION:
        raise ValueError(f"version {found['version']}")
    return {name: found.get(name) for name in _SHAPE}
