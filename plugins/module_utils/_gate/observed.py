# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One life of one vLLM server, observed: what the gate judges and the benchmark measures.

`Observer.bind` chooses a process, and `Life` stands for it. All questions go to that very process. Its end explains any other
failure better, so the code looks for that first.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn, Protocol

from .._vllm import client, log, metrics
from .._vllm.prompts import prompt
from . import diagnosis
from .container import Container, State, parse_time
from .diagnosis import Finding, Wanted

POLL = 1.0
KEPT_LINES = 2000
START_WINDOW = 3600.0
"""Seconds of log after a start in which vLLM says how it was configured. Later lines are requests."""
DEATH_WATCH = 20.0
"""Seconds that a server which failed a request is given to be seen dying of it: the engine goes before the API."""
SETTLE = 5.0
"""Seconds for the counters to show a finished request: vLLM records it after the answer has left."""
FIRST_ANSWER_TOKENS = 48


class Server(Protocol):
    """What is asked of a server. `_vllm.client.Server` implements it, and so do the tests."""

    def healthy(self) -> bool: ...
    def version(self) -> str: ...
    def models(self) -> list[str]: ...
    def metrics(self) -> str: ...
    def complete(self, model: str, text: str, max_tokens: int) -> client.Completion: ...

    def stream_all(
        self, model: str, texts: Sequence[str], max_tokens: int, concurrency: int, uncached: bool = False
    ) -> list[client.Completion]: ...


class Failed(Exception):
    """The server is not what it should be. `Observer.result` holds what was seen until then."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(str(finding))
        self.finding = finding


def stop_at(finding: Finding | None) -> None:
    if finding is not None:
        raise Failed(finding)


@dataclass
class Observer:
    """One run. `result` grows as things become known; `warnings` are for a person."""

    wanted: Wanted
    container: Container
    server: Server
    say: Callable[..., None] = lambda text, every=0.0: None
    clock: Callable[[], float] = time.monotonic
    now: Callable[[], float] = time.time
    sleep: Callable[[float], None] = time.sleep
    result: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def bind(self) -> Life:
        """Choose the process, running or not, that everything after is about.

        :raises Failed: there is no container
        """
        state = self.container.inspect()
        if state is None:
            raise Failed(diagnosis.missing(self.wanted))
        self.result["container"] = (
            {"id": state.id, "started_at": state.started_at, "image": state.image} if state.id else None
        )
        return Life(self, state)


class Life:
    """One process, from its start to its end. Each method raises Failed when the server is not what it should be."""

    def __init__(self, observer: Observer, state: State) -> None:
        self.state = state
        self._observer, self._wanted = observer, observer.wanted
        self._log: deque[str] = deque(maxlen=KEPT_LINES)
        self._log_time = ""
        self._phase: str | None = None

    def still_there(self) -> None:
        now = self._observer.container.inspect()
        if not diagnosis.same_life(self.state, now):
            self.ended(now)

    def ended(self, now: State | None) -> NoReturn:
        """Say why the bound process is gone. The engine still has its log, unless the container was removed."""
        until = now.started if now is not None and now.started_at != self.state.started_at else None
        lines = [line.text for line in self._observer.container.log(self.state.started, until, KEPT_LINES)]
        lines = lines or list(self._log)
        reason = log.death_reason(lines)
        finding = diagnosis.ended(self._wanted, self.state, now, reason)
        self._observer.result["log_tail"] = log.tail(lines, reason)
        raise Failed(finding)

    # -- readiness

    def come_up(self) -> tuple[metrics.Counters, log.Speculation]:
        """Wait until the server answers a chat, and see that it serves and speculates as wanted.

        :returns: its counters, that first answer counted, and what its log says of the speculation
        """
        self._wait_until_ready()
        self._check_model()
        before = self._scrape()
        evidence = self._read_evidence()
        stop_at(diagnosis.speculation_set_up(self._wanted.speculation, before, evidence, self.state.argv))
        return self._first_answer(before), evidence

    def _wait_until_ready(self) -> None:
        started = progress = self._observer.clock()
        while True:
            self.still_there()
            if self._observer.server.healthy():
                break
            if self._read_log():
                progress = self._observer.clock()
            now = self._observer.clock()
            waited, idle = now - started, now - progress
            if waited > self._wanted.ready_timeout:
                self._not_ready(f"still not after {waited:.0f} s")
            if idle > self._wanted.idle_timeout:
                self._not_ready(f"no sign of progress for {idle:.0f} s")
            self._observer.say(f"waiting for vLLM, {waited:.0f} s: {self._phase or 'starting'}", every=15)
            self._observer.sleep(POLL)
        # Another server may have the port while ours is still starting or already gone.
        self.still_there()
        waited = self._observer.clock() - started
        self._observer.result |= {"ready_seconds": round(waited, 1), "ready_at": self._observer.now()}
        self._observer.say(f"vLLM is ready after {waited:.0f} s" if waited > POLL else "vLLM is ready")

    def _read_log(self) -> bool:
        """Read the new log lines, and report new phases. True when one of them shows progress."""
        since = parse_time(self._log_time) if self._log_time else self.state.started
        moved, phase = False, self._phase
        for line in self._observer.container.log(since, None, None if self._log_time else KEPT_LINES):
            if line.time <= self._log_time:
                continue
            self._log_time = line.time
            self._log.append(line.text)
            moved = moved or log.shows_progress(line.text)
            phase = log.phase(line.text) or phase
        if phase != self._phase:
            self._phase = phase
            self._observer.say(f"vLLM: {phase}")
        return moved

    def _not_ready(self, why: str) -> NoReturn:
        tail = log.tail(list(self._log))
        self._observer.result["log_tail"] = tail
        raise Failed(diagnosis.not_ready(self._wanted, why, self._phase, tail))

    # -- what is served

    def asked(self, ask: Callable[[], Any], otherwise: Callable[[client.ServerError], Finding]) -> Any:
        """Ask the server. Without an answer, fail with the finding, or with the death that explains it."""
        try:
            return ask()
        except client.ServerError as error:
            if error.status in (401, 403):
                raise Failed(diagnosis.unauthorized(error.status)) from error
            # 4xx is an answer. Anything else may be the last word of a dying engine.
            deadline = self._observer.clock() + DEATH_WATCH
            while error.status is None or error.status >= 500:
                self.still_there()
                if self._observer.clock() >= deadline:
                    break
                self._observer.sleep(POLL)
            raise Failed(otherwise(error)) from error

    def _check_model(self) -> None:
        names = self.asked(
            self._observer.server.models, lambda error: diagnosis.completion_failed(self._wanted, str(error))
        )
        stop_at(diagnosis.model(self._wanted, names))
        self._observer.result["served_model"] = self._wanted.served_model

    def _read_evidence(self) -> log.Speculation:
        start = self.state.started
        return log.speculation(
            line.text for line in self._observer.container.log(start, start + START_WINDOW)
        )

    def network(self) -> log.Transport:
        """What its log says of the network between the ranks of one model."""
        start = self.state.started
        return log.transport(line.text for line in self._observer.container.log(start, start + START_WINDOW))

    def _first_answer(self, before: metrics.Counters) -> metrics.Counters:
        """One completion as a user would ask for it. It also pays for what a first request compiles."""
        answer = self.asked(
            lambda: self._observer.server.complete(self._wanted.served_model, prompt(0), FIRST_ANSWER_TOKENS),
            lambda error: diagnosis.completion_failed(self._wanted, str(error)),
        )
        if not answer.text.strip():
            problem = f"{answer.completion_tokens} tokens without any text"
            stop_at(diagnosis.completion_failed(self._wanted, problem))
        self._observer.say("a chat completion is answered")
        return self.settled(before, 1)

    # -- its counters

    def _scrape(self) -> metrics.Counters:
        text = self.asked(self._observer.server.metrics, lambda error: diagnosis.no_metrics(str(error)))
        try:
            return metrics.parse(text)
        except metrics.MetricsError as error:
            raise Failed(diagnosis.no_metrics(str(error))) from error

    def settled(self, before: metrics.Counters, requests: int) -> metrics.Counters:
        """A scrape that accounts for our finished requests; the last scrape if none ever does."""
        deadline = self._observer.clock() + SETTLE
        while True:
            counters = self._scrape()
            self._check_reset(before, counters)
            done = counters.finished is None or counters.finished - (before.finished or 0) >= requests
            if done or self._observer.clock() >= deadline:
                return counters
            self._observer.sleep(0.2)

    def _check_reset(self, before: metrics.Counters, after: metrics.Counters) -> None:
        if metrics.was_reset(before, after):
            self.still_there()  # a restart is the better explanation
            raise Failed(diagnosis.reset(self.state))
