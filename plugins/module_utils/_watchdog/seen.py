# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One look at a Spark, as data: what is there, without any judgement."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .._vllm.metrics import Counters


@dataclass(frozen=True)
class Now:
    """The time of a look. Differences are made of `steady` alone, within one boot: the clock of the day may jump."""

    unix: float
    steady: float
    """Seconds of a clock that never jumps and stands still in suspend."""
    boot: str = ""


@dataclass(frozen=True)
class Record:
    """What the host is to serve, as far as it is watched."""

    recipe: str
    container: str
    base_url: str
    model: str
    floor: float = 0.0
    """Of the acceptance rate; 0 where none is judged."""
    minimum_drafts: int = 0
    speculates: bool = False
    rank: int | None = None
    """In its unit; None of a server that serves alone"""


@dataclass(frozen=True)
class Container:
    id: str
    status: str
    started_at: str
    restarts: int = 0
    secrets: tuple[str, ...] = ()
    """Values in its environment that must not be shown."""

    @property
    def life(self) -> str:
        """Names one life of one server process."""
        return f"{self.id} {self.started_at}"

    @property
    def running(self) -> bool:
        return self.status == "running"


@dataclass(frozen=True)
class Gpu:
    """None: nvidia-smi does not tell."""

    utilization: float | None = None
    """Percent"""
    watts: float | None = None
    clock: float | None = None
    """MHz"""
    slowed: tuple[str, ...] = ()
    """Why its clocks are below what was asked for: heat, power."""
    silent: bool = False
    """Whether nvidia-smi hung."""


@dataclass(frozen=True)
class Canary:
    """How a completion went that the watchdog asked for. `problem` is empty for a good one."""

    problem: str = ""
    status: int | None = None
    """Of HTTP; None when there was no answer."""
    seconds: float = 0.0

    @property
    def refused(self) -> bool:
        """Whether the server answered that it does not want this question. It works, and the question is wrong."""
        return bool(self.problem) and self.status is not None and self.status < 500


@dataclass(frozen=True)
class Look:
    now: Now
    run: str = ""
    """Who holds the host; empty for nobody."""
    record: Record | None = None
    container: Container | None = None
    unit: Mapping[str, Any] = field(default_factory=dict)
    """Of systemd: there, active, restarts, gave_up."""
    counters: Counters | None = None
    silent: str = ""
    """Why there are no counters."""
    member: Mapping[str, Any] | None = None
    """What the supervisor says, of a member of a unit, as `_unit/status.py` judges it"""
    answers: bool = False
    """Whether the server answered anything, if not counters."""
    metrics: str = ""
    """The answer that the counters were read from."""
    canary: Canary | None = None
    available: int | None = None
    """Bytes of memory"""
    swapped_in: int | None = None
    """Bytes since the boot"""
    gpu: Gpu = Gpu()

    @property
    def life(self) -> str:
        """Names one life of one server process; empty without one. The supervisor of a unit starts several in one container."""
        generation = (self.member or {}).get("generation") or ""
        return " ".join(filter(None, (self.container.life, generation))) if self.container else ""
