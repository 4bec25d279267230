# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the members of a unit tell each other once they know each other, a line each: shapes, limits, JSON. Pure.

Runs in the image of the server, with the standard library of its Python alone.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, field
from typing import Any

from .._common import json_text, shape

PHASES = WAITING, STARTING, RUNNING, ENDING, DOWN = ("waiting", "starting", "running", "ending", "down")
LIMIT = 8 * 1024
"""Bytes of a line. One of a unit of 16 has 1.6 KB."""
LONGEST_WHY = 300
LARGEST = 16
"""Members of a unit."""
_GENERATION = re.compile(r"(?:[0-9a-f]{16})?")
_NO_TEXT = re.compile(r"[^\x20-\x7e]+")


class WordError(ValueError):
    """A line is none that a member of this version says."""


@dataclass(frozen=True)
class Told:
    """What one knows of another member."""

    phase: str
    generation: str
    age: float = 0.0
    """Seconds since it was heard."""


@dataclass(frozen=True)
class FromHead:
    run: str
    """The generation that runs. A worker runs in no other; empty: none."""
    phase: str
    generation: str
    restarts: int
    why: str
    members: dict[str, Told] = field(default_factory=dict)


@dataclass(frozen=True)
class FromWorker:
    phase: str
    generation: str
    ended: str
    """The last generation that it ended, or is ending."""
    asked: bool
    """Whether somebody asked it to stop."""
    why: str


_TOLD = {"phase": str, "generation": str, "age": float}
_FROM_HEAD = {
    "run": str,
    "phase": str,
    "generation": str,
    "restarts": int,
    "why": str,
    "members": {str: _TOLD},
}
_FROM_WORKER = {"phase": str, "generation": str, "ended": str, "asked": bool, "why": str}


def reason(text: str) -> str:
    """Why something ended, as a line for logs and files."""
    return _NO_TEXT.sub(" ", text)[:LONGEST_WHY]


def encoded(word: FromHead | FromWorker) -> bytes:
    return json.dumps(asdict(word), separators=(",", ":")).encode()


def read_head(line: bytes) -> FromHead:
    """:raises WordError: it is none"""
    found = _read(line, _FROM_HEAD)
    members = {rank: _told(rank, told) for rank, told in found["members"].items()}
    if len(members) > LARGEST:
        raise WordError(f"{len(members)} members")
    said = {name: found[name] for name in ("phase", "restarts")}
    return FromHead(
        run=_generation(found["run"]),
        generation=_generation(found["generation"]),
        why=reason(found["why"]),
        members=members,
        **said,
    )


def read_worker(line: bytes) -> FromWorker:
    """:raises WordError: it is none"""
    found = _read(line, _FROM_WORKER)
    return FromWorker(
        phase=found["phase"],
        generation=_generation(found["generation"]),
        ended=_generation(found["ended"]),
        asked=found["asked"],
        why=reason(found["why"]),
    )


def _read(line: bytes, expected: dict[str, Any]) -> dict[str, Any]:
    try:
        found = json_text.read(line, "a line", limit=LIMIT)
    except json_text.JsonError as error:
        raise WordError(str(error)) from None
    if wrong := shape.wrong(found, expected, "a line"):
        raise WordError(wrong)
    _phase(found["phase"])
    return dict(found)


def _told(rank: str, told: dict[str, Any]) -> Told:
    if not rank.isdecimal() or not rank.isascii() or len(rank) > 2:
        raise WordError(f"rank {rank!r:.20}")
    return Told(_phase(told["phase"]), _generation(told["generation"]), float(told["age"]))


def _phase(text: str) -> str:
    if text not in PHASES:
        raise WordError(f"phase {text!r:.60}")
    return text


def _generation(text: str) -> str:
    if not _GENERATION.fullmatch(text):
        raise WordError(f"generation {text!r:.60}")
    return text
