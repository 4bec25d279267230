# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a member of a unit does next. Pure: it is told what happened and when, and says what is to be done.

The head draws a generation when all workers wait, and all start in it. Whatever ends one member ends the generation; then all meet again
for the next. Times are seconds of any clock that does not jump.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass, replace

from .words import DOWN, ENDING, RUNNING, STARTING, WAITING, FromHead, FromWorker, Told, reason

HOUR = 3600.0
QUICKLY = 10.0
"""Seconds from TERM to KILL where nobody waits for answers."""


@dataclass(frozen=True)
class Rules:
    nodes: int
    restarts: int
    """Within an hour. The next failure takes the unit down."""
    start_within: float
    """Seconds until all members run."""
    pause: float
    """Seconds between an end and the next start."""
    stop_within: float
    """Seconds that a server may take where somebody asked it to stop: answers that run shall end."""


def drawn() -> str:
    return secrets.token_hex(8)


class Member:
    """What head and worker have in common: one server at a time, in one generation.

    The caller starts the server where :attr:`starts` says so, and ends it in the phase `ending`; it tells of both.
    """

    def __init__(self, rank: int, rules: Rules, now: float) -> None:
        self.rank, self.rules = rank, rules
        self.phase, self.since = WAITING, now
        self.generation = self.why = ""
        self.there = self.asked = self.finished = False
        self.changes: list[tuple[str, str]] = []
        """Phases since the caller looked last, each with the reason, where there is one."""
        self._failed = False
        """Whether an asked-for stop need not wait for answers any more."""

    @property
    def starts(self) -> bool:
        return self.phase == STARTING and not self.there

    @property
    def grace(self) -> float:
        """Seconds from TERM to KILL."""
        return self.rules.stop_within if self.asked and not self._failed else QUICKLY

    def started(self, now: float) -> None:
        self.there = True

    def stop(self, now: float) -> None:
        """Somebody asks it to stop."""
        if not self.asked:
            self.asked = True
            if self.phase in (STARTING, RUNNING):
                self.why = "asked to stop"
                self._become(ENDING, now)
            elif self.phase == ENDING:
                self._failed = True
            else:
                self.finished = True

    def end(self, why: str, now: float, asked: bool = False) -> None:
        """The generation ends here; nothing happens where none runs.

        :param asked: somebody asked a member to stop: no failure
        """
        if self.phase in (STARTING, RUNNING):
            self.why = reason(why)
            self._become(ENDING, now)
            self._count(now, asked)
        elif self.phase == ENDING and self.asked:
            self._failed = True

    def gone(self, now: float) -> None:
        """Nothing is left of the server."""
        self.there = False
        self.generation = ""
        self.finished = self.asked
        if not self.asked:
            self._become(WAITING, now)

    def _begin(self, generation: str, now: float) -> None:
        self.generation = generation
        self._become(STARTING, now)

    def _become(self, phase: str, now: float) -> None:
        if phase != self.phase:
            self.phase, self.since = phase, now
            self.changes.append((phase, self.why if phase in (ENDING, DOWN) else ""))

    def _count(self, now: float, asked: bool) -> None:
        """A generation has ended."""

    def _self(self) -> Told:
        return Told(self.phase, self.generation)


class Head(Member):
    def __init__(self, rules: Rules, now: float, draw: Callable[[], str] = drawn) -> None:
        super().__init__(0, rules, now)
        self.workers: dict[int, FromWorker] = {}
        self._heard: dict[int, float] = {}
        self._failures: list[float] = []
        self._rests_until = now
        self._draw = draw

    def restarts(self, now: float) -> int:
        """Failures of the last hour."""
        return sum(now - each < HOUR for each in self._failures)

    def heard(self, rank: int, word: FromWorker, now: float) -> None:
        self.workers[rank] = word
        self._heard[rank] = now
        if word.ended and word.ended == self.generation:
            self.end(f"rank {rank}: {word.why}", now, asked=word.asked)

    def lost(self, rank: int, why: str, now: float) -> None:
        if self.workers.pop(rank, None):
            self.end(f"rank {rank} {why}", now)

    def tick(self, now: float) -> None:
        if self.phase == WAITING and not self.asked and now >= self._rests_until and self._all(WAITING, ""):
            self._begin(self._draw(), now)
        elif self.phase == STARTING and self.there and self._all(RUNNING, self.generation):
            self._become(RUNNING, now)
        elif self.phase == STARTING and now - self.since > self.rules.start_within:
            self.end(f"not all members ran {self.rules.start_within:.0f} s after the start", now)

    def gone(self, now: float) -> None:
        super().gone(now)
        self._rests_until = now + self.rules.pause
        if self.restarts(now) > self.rules.restarts and not self.asked:
            self._become(DOWN, now)

    def says(self, now: float) -> FromHead:
        # While a stop waits for answers, the workers must go on.
        runs = self.phase in (STARTING, RUNNING) or (
            self.phase == ENDING and self.asked and not self._failed and self.there
        )
        run = self.generation if runs else ""
        told = {str(rank): each for rank, each in self.members(now).items()}
        return FromHead(run, self.phase, self.generation, self.restarts(now), self.why, told)

    def members(self, now: float) -> dict[int, Told]:
        """Those that are there."""
        others = {
            rank: Told(word.phase, word.generation, round(now - self._heard[rank], 1))
            for rank, word in self.workers.items()
        }
        return {0: self._self(), **dict(sorted(others.items()))}

    def _all(self, phase: str, generation: str) -> bool:
        return len(self.workers) == self.rules.nodes - 1 and all(
            (word.phase, word.generation) == (phase, generation) for word in self.workers.values()
        )

    def _count(self, now: float, asked: bool) -> None:
        self._failures = [each for each in self._failures if now - each < HOUR]
        if not asked:
            self._failures.append(now)


class Worker(Member):
    def __init__(self, rank: int, rules: Rules, now: float) -> None:
        super().__init__(rank, rules, now)
        self._ended = ""
        self._head: FromHead | None = None
        self._heard = now
        self._restarts = 0

    def restarts(self, now: float) -> int:
        """As the head said last."""
        return self._restarts

    def heard(self, rank: int, word: FromHead, now: float) -> None:
        self._head, self._heard, self._restarts = word, now, word.restarts
        if self.phase in (STARTING, RUNNING) and word.run != self.generation:
            self.end(word.why or "the head is in another generation", now)
        elif self.phase in (WAITING, DOWN) and not self.asked:
            if word.run and word.run != self._ended:
                self._begin(word.run, now)
            elif word.phase == DOWN:
                self.why = word.why
                self._become(DOWN, now)
            else:
                self._become(WAITING, now)

    def lost(self, rank: int, why: str, now: float) -> None:
        self._head = None
        self.end(f"the head {why}", now)
        if self.phase == DOWN:
            self._become(WAITING, now)

    def tick(self, now: float) -> None:
        """All that a worker does is an answer."""

    def started(self, now: float) -> None:
        super().started(now)
        self._become(RUNNING, now)

    def says(self, now: float) -> FromWorker:
        ended = (self.phase == ENDING and self.generation) or self._ended
        return FromWorker(self.phase, self.generation, ended, self.asked, self.why)

    def gone(self, now: float) -> None:
        self._ended = self.generation
        super().gone(now)

    def members(self, now: float) -> dict[int, Told]:
        """Those that the head knows, as it said last."""
        passed = round(now - self._heard, 1)
        others = self._head.members if self._head else {}
        told = {int(rank): replace(each, age=round(each.age + passed, 1)) for rank, each in others.items()}
        return {**told, self.rank: self._self()}
