# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The gate: observes one life of one vLLM container and holds it against what is wanted.

What can be known early is asked early: files and exits before waiting, the model's name and the set-up of
speculation before a measurement. Judging is in module_utils/_diagnosis.py; this is the order of asking.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NoReturn, Protocol

from ansible_collections.sparkfleet.vllm.plugins.module_utils import _diagnosis as diagnosis
from ansible_collections.sparkfleet.vllm.plugins.module_utils import _metrics as metrics
from ansible_collections.sparkfleet.vllm.plugins.module_utils import _openai as openai
from ansible_collections.sparkfleet.vllm.plugins.module_utils import _serving as serving
from ansible_collections.sparkfleet.vllm.plugins.module_utils._container import Container, State, parse_time
from ansible_collections.sparkfleet.vllm.plugins.module_utils._diagnosis import (
    CheckedFile,
    Finding,
    Traffic,
    Wanted,
)

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
    """What the gate asks of a server; `_openai.Server` answers it, and so do the tests."""

    def healthy(self) -> bool: ...
    def models(self) -> list[str]: ...
    def metrics(self) -> str: ...
    def complete(self, model: str, text: str, max_tokens: int) -> openai.Completion: ...
    def stream_all(
        self, model: str, texts: Sequence[str], max_tokens: int, concurrency: int
    ) -> list[openai.Completion]: ...


class Failed(Exception):
    """The server does not pass. What was measured until then is in `Gate.result`."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(str(finding))
        self.finding = finding


@dataclass
class Gate:
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

    def run(self) -> None:
        """Observe and judge. Returns when the server passes.

        :raises Failed: it does not, with the finding
        """
        self._log: deque[str] = deque(maxlen=KEPT_LINES)
        self._log_time = ""
        self._phase: str | None = None
        state = self.container.inspect()
        if state is None:
            raise Failed(diagnosis.missing(self.wanted))
        self._bound = state
        self.result["container"] = {"id": state.id, "started_at": state.started_at, "image": state.image}
        self._check_files()
        if not diagnosis.running(state):
            self._ended(state)
        for file in self._files:
            self.say(f"in the container: {file.wanted.path}, the locked one")
        self._wait_until_ready()
        self._check_model()
        before = self._scrape()
        self._evidence = self._read_evidence()
        self._stop_at(
            diagnosis.speculation_set_up(self.wanted.speculation, before, self._evidence, self._bound.argv)
        )
        before = self._first_answer(before)
        if self.wanted.speculation is not None:
            self._measure(before)
        self._still_there()
        # A file can be replaced while all this went on; it costs nothing to look again.
        self._check_files()
        self.result |= {"verdict": "pass", "diagnosis": "ok", "passed_at": self.now()}

    # -- one life of one process

    def _stop_at(self, finding: Finding | None) -> None:
        if finding is not None:
            raise Failed(finding)

    def _still_there(self) -> None:
        now = self.container.inspect()
        if not diagnosis.same_life(self._bound, now):
            self._ended(now)

    def _ended(self, now: State | None) -> NoReturn:
        """Say why the bound process is gone. What its log said is still in the engine, unless it was removed."""
        until = now.started if now is not None and now.started_at != self._bound.started_at else None
        lines = [line.text for line in self.container.log(self._bound.started, until, KEPT_LINES)]
        lines = lines or list(self._log)
        reason = serving.death_reason(lines)
        finding = diagnosis.ended(self.wanted, self._bound, now, reason)
        self.result["log_tail"] = serving.tail(lines, reason)
        raise Failed(finding)

    # -- files

    def _check_files(self) -> None:
        files = []
        for wanted in self.wanted.files:
            seen = self.container.file(self._bound, wanted.path)
            host = self.container.host_file(wanted.host_path) if wanted.host_path else None
            files.append(CheckedFile(wanted, seen, host, self._bound.mounts.get(wanted.path)))
        self._files = files
        self.result["files"] = [_file_result(file) for file in files]
        self._stop_at(diagnosis.file_contents(files))
        self._stop_at(diagnosis.file_ages(files, self._bound))
        for file in files:
            if file.seen.changed is None:
                text = f"{file.wanted.path}: whether it changed after vLLM started is unknown; run as root to see"
                if text not in self.warnings:
                    self.warnings.append(text)

    # -- readiness

    def _wait_until_ready(self) -> None:
        started = progress = self.clock()
        while True:
            self._still_there()
            if self.server.healthy():
                break
            if self._read_log():
                progress = self.clock()
            now = self.clock()
            waited, idle = now - started, now - progress
            if waited > self.wanted.ready_timeout:
                self._not_ready(f"still not after {waited:.0f} s")
            if idle > self.wanted.idle_timeout:
                self._not_ready(f"no sign of progress for {idle:.0f} s")
            self.say(f"waiting for vLLM, {waited:.0f} s: {self._phase or 'starting'}", every=15)
            self.sleep(POLL)
        # Another server may have the port while ours is still starting or already gone.
        self._still_there()
        waited = self.clock() - started
        self.result |= {"ready_seconds": round(waited, 1), "ready_at": self.now()}
        self.say(f"vLLM is ready after {waited:.0f} s" if waited > POLL else "vLLM is ready")

    def _read_log(self) -> bool:
        """Take the new lines; say new phases. True when one of them shows progress."""
        since = parse_time(self._log_time) if self._log_time else self._bound.started
        moved, phase = False, self._phase
        for line in self.container.log(since, None, None if self._log_time else KEPT_LINES):
            if line.time <= self._log_time:
                continue
            self._log_time = line.time
            self._log.append(line.text)
            moved = moved or serving.shows_progress(line.text)
            phase = serving.phase(line.text) or phase
        if phase != self._phase:
            self._phase = phase
            self.say(f"vLLM: {phase}")
        return moved

    def _not_ready(self, why: str) -> NoReturn:
        tail = serving.tail(list(self._log))
        self.result["log_tail"] = tail
        raise Failed(diagnosis.not_ready(self.wanted, why, self._phase, tail))

    # -- what is served

    def _asked(self, ask: Callable[[], Any], otherwise: Callable[[openai.ServerError], Finding]) -> Any:
        """An answer of the server; when there is none, the finding, or the death that explains it."""
        try:
            return ask()
        except openai.ServerError as error:
            if error.status in (401, 403):
                raise Failed(diagnosis.unauthorized(error.status)) from error
            # 4xx is an answer. Anything else may be the last word of a dying engine.
            deadline = self.clock() + DEATH_WATCH
            while error.status is None or error.status >= 500:
                self._still_there()
                if self.clock() >= deadline:
                    break
                self.sleep(POLL)
            raise Failed(otherwise(error)) from error

    def _check_model(self) -> None:
        names = self._asked(
            self.server.models, lambda error: diagnosis.completion_failed(self.wanted, str(error))
        )
        self._stop_at(diagnosis.model(self.wanted, names))
        self.result["served_model"] = self.wanted.served_model

    def _read_evidence(self) -> serving.Speculation:
        start = self._bound.started
        return serving.speculation(line.text for line in self.container.log(start, start + START_WINDOW))

    def _first_answer(self, before: metrics.Counters) -> metrics.Counters:
        """One completion as a user would ask for it. It also pays for what a first request compiles."""
        answer = self._asked(
            lambda: self.server.complete(self.wanted.served_model, openai.prompt(0), FIRST_ANSWER_TOKENS),
            lambda error: diagnosis.completion_failed(self.wanted, str(error)),
        )
        if not answer.text.strip():
            problem = f"{answer.completion_tokens} tokens without any text"
            self._stop_at(diagnosis.completion_failed(self.wanted, problem))
        self.say("a chat completion is answered")
        return self._settled(before, 1)

    # -- the measurement

    def _scrape(self) -> metrics.Counters:
        text = self._asked(self.server.metrics, lambda error: diagnosis.no_metrics(str(error)))
        try:
            return metrics.parse(text)
        except metrics.MetricsError as error:
            raise Failed(diagnosis.no_metrics(str(error))) from error

    def _settled(self, before: metrics.Counters, requests: int) -> metrics.Counters:
        """A scrape that accounts for our finished requests, or the last one when it never does."""
        deadline = self.clock() + SETTLE
        while True:
            counters = self._scrape()
            self._check_reset(before, counters)
            done = counters.finished is None or counters.finished - (before.finished or 0) >= requests
            if done or self.clock() >= deadline:
                return counters
            self.sleep(0.2)

    def _check_reset(self, before: metrics.Counters, after: metrics.Counters) -> None:
        if metrics.was_reset(before, after):
            self._still_there()  # a restart explains it better
            raise Failed(diagnosis.reset(self._bound))

    def _measure(self, before: metrics.Counters) -> None:
        wanted = self.wanted
        completions: list[openai.Completion] = []
        started = self.clock()
        while True:
            number = len(completions)
            texts = [openai.prompt(number + index) for index in range(len(openai.PROMPTS))]
            completions += self._asked(
                partial(
                    self.server.stream_all, wanted.served_model, texts, wanted.max_tokens, wanted.concurrency
                ),
                lambda error: diagnosis.completion_failed(wanted, str(error)),
            )
            ours = Traffic(len(completions), sum(completion.completion_tokens for completion in completions))
            measured = metrics.delta(before, self._settled(before, ours.requests))
            speed = openai.decode_tokens_per_second(completions)
            self._record(measured, ours, speed)
            self.say(
                f"{measured.drafts} drafts, {measured.acceptance_rate:.1%} accepted at position 0"
                + (f", {speed:.1f} tok/s" if speed else "")
            )
            if not measured.drafts or diagnosis.enough(wanted, measured):
                break
            if self.clock() - started > wanted.measure_timeout:
                break
        self._judge(measured, ours)

    def _record(self, measured: metrics.Delta, ours: Traffic, speed: float | None) -> None:
        self.result |= {
            "drafts": measured.drafts,
            "draft_tokens": measured.draft_tokens,
            "accepted": measured.accepted,
            "accepted_per_position": list(measured.per_position),
            "acceptance_rate": round(measured.acceptance_rate, 4),
            "rates": [round(rate, 4) for rate in measured.rates],
            "mean_acceptance_length": round(measured.mean_acceptance_length, 4),
            "standard_error": round(measured.standard_error, 4),
            "decode_tokens_per_second": None if speed is None else round(speed, 1),
            "prompts": ours.requests,
            "foreign_share": round(diagnosis.foreign_share(measured, ours), 4),
        }

    def _judge(self, measured: metrics.Delta, ours: Traffic) -> None:
        self._stop_at(diagnosis.speculation_works(self.wanted, measured, ours, self._files, self._evidence))
        other = diagnosis.foreign(measured, ours, diagnosis.foreign_share(measured, ours))
        if other is not None:
            self.warnings.append(
                f"{other.summary}: rates and counts are of all traffic, not of this check alone"
            )


def _file_result(file: CheckedFile) -> dict[str, Any]:
    return {
        "path": file.wanted.path,
        "md5": file.seen.md5,
        "sha256": file.seen.sha256,
        "locked_md5": file.wanted.md5,
        "locked_sha256": file.wanted.sha256,
        "host_path": file.wanted.host_path,
        "host_md5": file.host.md5 if file.host else None,
        "mounted_from": file.mounted_from,
        "error": file.seen.error,
        "ok": file.ok,
    }
