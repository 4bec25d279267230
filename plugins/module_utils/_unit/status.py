# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the supervisor of a member says of itself, in ``<state>/unit/status.json``: its shape, and what it is worth."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .._common import json_text, shape
from .words import LONGEST_WHY, PHASES, reason

FILE = "status.json"
LIMIT = 64 * 1024
"""Bytes of the file. That of a unit of 16 has 2 KB."""
VERSION = 1
STALE = 10.0
"""Seconds. It is written every second."""
_SHAPE = {
    "version": int,
    "unit": str,
    "rank": int,
    "nodes": int,
    "generation": str,
    "phase": str,
    "since": float,
    "at": float,
    "restarts": int,
    "why": str,
    "members": {str: {"phase": str, "generation": str, "age": float}},
}
_ABSENT = {
    "unit": "",
    "rank": -1,
    "nodes": 0,
    "generation": "",
    "phase": "",
    "restarts": 0,
    "why": "",
    "members": {},
}


def parse(text: bytes | str) -> dict[str, Any]:
    """:raises ValueError: the text is no status of this version"""
    found = json_text.read(text, FILE, limit=LIMIT)
    if wrong := shape.wrong(found, _SHAPE, FILE):
        raise ValueError(wrong)
    if found["version"] != VERSION:
        raise ValueError(f"version {found['version']}")
    told = [found, *found["members"].values()]
    if strange := next((each["phase"] for each in told if each["phase"] not in PHASES), ""):
        raise ValueError(f"phase {strange!r:.{LONGEST_WHY}}")
    members = {
        rank: {name: each[name] for name in ("phase", "generation", "age")}
        for rank, each in found["members"].items()
    }
    return {name: found[name] for name in _SHAPE} | {"why": reason(found["why"]), "members": members}


def read(folder: Path) -> tuple[dict[str, Any] | None, str]:
    """The status in a folder, or none and why there is none.

    :raises OSError: the file is there and cannot be opened
    """
    try:
        with (folder / FILE).open("rb") as file:
            text = file.read(LIMIT + 1)
    except FileNotFoundError:
        return None, "none"
    try:
        return parse(text), ""
    except ValueError as error:
        return None, str(error)


def judged(found: Mapping[str, Any] | None, why_not: str, now: float) -> dict[str, Any]:
    """The status as it counts now. A supervisor that has not written for some seconds is not there, whatever it wrote last.

    :param now: Unix time
    """
    if found is None:
        return {**_ABSENT, "age": None, "problem": f"expected a {FILE} of the supervisor, seen {why_not}"}
    known = {name: found[name] for name in _ABSENT}
    age = round(now - found["at"], 1)
    if abs(age) <= STALE:
        return {**known, "age": age, "problem": ""}
    problem = (
        f"expected a {FILE} of the last {STALE:.0f} s, seen one of {age:.0f} s ago that says {found['phase']}"
    )
    return {**known, "phase": "", "members": {}, "age": age, "problem": problem}
