# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the watchdog remembers from one look to the next. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .._common import json_text
from .._common.shape import Maybe, wrong
from .seen import Now

VERSION = 1
HOUR = 3600.0
LIMIT = 1024 * 1024

_COUNT, _TIME, _TEXT = Maybe(int), Maybe(float), Maybe(str)
_WINDOW = {"start": _TIME, "drafts": int, "first": int}
_SHAPE = {
    "version": int,
    "boot": str,
    "steady": float,
    "life": str,
    "watched_since": float,
    "answered": bool,
    "progress": Maybe([_COUNT]),
    "start": _TIME,
    "running": int,
    "moved_at": float,
    "unanswered": int,
    "canary_at": _TIME,
    "canary_failed": int,
    "canary_problem": str,
    "canary_refused": bool,
    "window": Maybe(_WINDOW),
    "judged": Maybe({"drafts": int, "rate": float}),
    "slack": int,
    "slowed": int,
    "ask_gpu_from": float,
    "swapped_in": _COUNT,
    "ends": int,
    "ended": [float],
    "restarts": [{"unix": float, "steady": float, "boot": str}],
    "down": _TEXT,
    "since": {str: float},
}


@dataclass(frozen=True)
class Memory:
    boot: str = ""
    steady: float = 0.0
    """Of the last look."""

    life: str = ""
    watched_since: float = 0.0
    """When this life of the server was seen first."""
    answered: bool = False
    """Whether it has ever answered in this life."""

    progress: tuple[int | None, ...] | None = None
    """The counters that move while the engine works; None before the first answer."""
    start: float | None = None
    """Of the process, as it says."""
    running: int = 0
    moved_at: float = 0.0
    """When they moved last, or no request was running."""
    unanswered: int = 0
    """Looks in a row without an answer."""

    canary_at: float | None = None
    canary_failed: int = 0
    """In a row."""
    canary_problem: str = ""
    canary_refused: bool = False

    window: Mapping[str, Any] | None = None
    """The counters of speculation at the beginning of the window: start of the process, drafts, those accepted at the first position."""
    judged: Mapping[str, Any] | None = None
    """The last window with enough drafts: drafts, rate."""

    slack: int = 0
    """Looks in a row at a GPU that is busy and draws no power."""
    slowed: int = 0
    """Looks in a row at a GPU with lowered clocks."""
    ask_gpu_from: float = 0.0
    """When nvidia-smi may be asked."""
    swapped_in: int | None = None

    ends: int = 0
    """How often systemd and the engine have started the server again by themselves, as they count it."""
    ended: tuple[float, ...] = ()
    """When such starts were seen, in this boot."""
    restarts: tuple[Mapping[str, Any], ...] = ()
    """Those that the watchdog ordered: unix, steady, boot."""
    down: str | None = None
    """The life that was stopped for good; empty if nobody knows which. None: nothing stays down."""
    since: Mapping[str, float] = field(default_factory=dict)
    """Kind of a finding: Unix time since which it holds."""

    def recent(self, now: Now) -> tuple[Mapping[str, Any], ...]:
        """The restarts of the last hour. Of those before this boot nobody knows it exactly, so the clock of the day tells."""
        return tuple(each for each in self.restarts if _age(each, now) < HOUR)


def _age(restart: Mapping[str, Any], now: Now) -> float:
    if restart["boot"] == now.boot:
        return float(now.steady - restart["steady"])
    age = now.unix - restart["unix"]
    return float(age) if age >= 0 else HOUR  # of a clock that was wrong, then or now


def forget_life(memory: Memory, life: str, now: Now) -> Memory:
    """What stays of a memory when another server process is there."""
    return Memory(
        boot=memory.boot,
        steady=memory.steady,
        life=life,
        watched_since=now.steady,
        moved_at=now.steady,
        judged=memory.judged,
        ask_gpu_from=memory.ask_gpu_from,
        swapped_in=memory.swapped_in,
        ends=memory.ends,
        ended=memory.ended,
        restarts=memory.restarts,
        down=memory.down,
        since=memory.since,
    )


def forget_boot(memory: Memory, now: Now) -> Memory:
    """What stays after a boot."""
    return Memory(boot=now.boot, restarts=memory.restarts, down=memory.down, since=memory.since)


def dump(memory: Memory) -> dict[str, Any]:
    return {"version": VERSION, **dataclasses.asdict(memory)}


def undump(text: bytes | None, verdict: bytes | None) -> Memory:
    """The memory in a file.

    Of a file that cannot be used nothing is taken. Then the last verdict tells which restarts there were: a damaged disk must not
    make room for more of them.
    """
    try:
        found = json_text.read(text or b"", "the memory", limit=LIMIT)
    except json_text.JsonError:
        return _of_verdict(verdict)
    if wrong(found, _SHAPE) or found["version"] != VERSION:
        return _of_verdict(verdict)
    values = {name: found.get(name) for name in (each.name for each in dataclasses.fields(Memory))}
    for name in ("progress", "ended", "restarts"):
        values[name] = None if values[name] is None else tuple(values[name])
    return Memory(**values)


def _of_verdict(text: bytes | None) -> Memory:
    try:
        found = json_text.read(text or b"", "the verdict", limit=LIMIT)
    except json_text.JsonError:
        return Memory()
    if wrong(found, {"verdict": str, "restarts": [float]}):
        return Memory()
    return Memory(
        restarts=tuple({"unix": float(at), "steady": 0.0, "boot": ""} for at in found["restarts"][:100]),
        down="" if found["verdict"] == "down" else None,
    )
