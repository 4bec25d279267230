# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The benchmark of one running vLLM server: the fixed prompts, at one concurrency after the other.

The server's counters cannot tell requests apart. So the requests of one kind go together, and what the counters gain
meanwhile belongs to that kind. Servers with and without speculation get the same requests in the same order, so that their
figures compare.
"""

from __future__ import annotations

import statistics
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timezone
from functools import cached_property, partial
from typing import Any

from .._vllm import client, log, metrics
from .._vllm.prompts import KINDS, prompt, prompt_of
from . import diagnosis, rate
from .diagnosis import Traffic
from .observed import Failed, Life, Observer, Server, stop_at
from .rate import Rate

SAMPLE_EVERY = 0.5
"""Seconds between two looks at the use of the KV cache."""


@dataclass(frozen=True)
class Plan:
    """The requests that each of the compared servers gets."""

    kinds: tuple[str, ...] = KINDS
    max_tokens: int = 256
    warmup: int = 1
    """Prompts of each stream that are not counted, before each load"""
    repeats: int = 3
    """Prompts of each kind in each stream"""
    concurrency: tuple[int, ...] = (1,)

    @property
    def requests(self) -> int:
        """How many requests are measured, over all loads."""
        return sum(self.concurrency) * self.repeats * len(self.kinds)


@dataclass(frozen=True)
class Phase:
    """The requests of one kind, and what the server's counters gained meanwhile."""

    completions: Sequence[client.Completion]
    gained: metrics.Delta

    @property
    def seconds(self) -> float:
        """From the first request to the last token. Reading counters between two phases is no load."""
        sent = min(c.sent for c in self.completions if c.sent is not None)
        return max(completion.last for completion in self.completions) - sent

    @cached_property
    def rate(self) -> Rate:
        return rate.measure(self.completions, self.gained)


@dataclass
class Bench:
    """One run. Its outcome is `result["measurement"]` of the observer."""

    observer: Observer
    plan: Plan = field(default_factory=Plan)

    def run(self) -> None:
        """Measure.

        :raises Failed: the server is not what it should be, or did not stay what it was
        """
        observer = self.observer
        life = observer.bind()
        if not diagnosis.running(life.state):
            life.ended(life.state)
        counters, evidence = life.come_up()
        began = observer.now()
        streams = Streams(observer, life, self.plan, observer.clock())
        loads = []
        for concurrency in self.plan.concurrency:
            counters = self._warm_up(streams, concurrency, counters)
            counters, load = self._load(streams, concurrency, counters, evidence)
            loads.append(load)
        life.still_there()
        observer.result["measurement"] = {
            "served_model": observer.wanted.served_model,
            "version": observer.server.version(),
            "container": observer.result["container"],
            "speculation": observer.wanted.speculation and dict(observer.wanted.speculation),
            "measured_at": datetime.fromtimestamp(began, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "plan": {
                name: list(value) if isinstance(value, tuple) else value
                for name, value in asdict(self.plan).items()
            },
            "loads": loads,
        }

    def _warm_up(self, streams: Streams, concurrency: int, before: metrics.Counters) -> metrics.Counters:
        """Let the server compile and capture what this many streams need, with text of all kinds."""
        texts = [prompt(number) for number in range(self.plan.warmup * concurrency)]
        if not texts:
            return before
        self.observer.say(f"concurrency {concurrency}: warming up")
        return streams.life.settled(before, len(streams.complete(texts, concurrency)))

    def _load(
        self, streams: Streams, concurrency: int, before: metrics.Counters, evidence: log.Speculation
    ) -> tuple[metrics.Counters, dict[str, Any]]:
        phases: dict[str, Phase] = {}
        counters = before
        with kv_cache_peak(self.observer.server) as peak:
            for kind in self.plan.kinds:
                texts = [prompt_of(kind, number) for number in range(self.plan.repeats * concurrency)]
                completions = streams.complete(texts, concurrency)
                after = streams.life.settled(counters, len(completions))
                phase = phases[kind] = Phase(completions, metrics.delta(counters, after))
                streams.measured += len(completions)
                self.observer.say(f"concurrency {concurrency}, {kind}: {_said(phase)}")
                counters = after
        gained = metrics.delta(before, counters)
        self._judge(gained, traffic(phases), evidence)
        figures = load(concurrency, phases, gained, peak())
        if figures["rate"]["tokens_per_second"] is None:
            because = figures["rate"]["because"]
            self.observer.warnings.append(f"concurrency {concurrency}: {rate.UNMEASURABLE}: {because}")
        return counters, figures

    def _judge(self, gained: metrics.Delta, ours: Traffic, evidence: log.Speculation) -> None:
        wanted = self.observer.wanted
        if wanted.speculation is not None and not gained.drafts:
            raise Failed(diagnosis.no_drafts(wanted, ours, evidence))
        other = diagnosis.foreign(gained, ours, diagnosis.foreign_share(gained, ours))
        if wanted.foreign_traffic == "fail":
            stop_at(other)
        if other is not None:
            self.observer.warnings.append(f"{other.summary}: the figures are of a server that was in use")


@dataclass
class Streams:
    """Sends requests to one life, in the time that a benchmark may take from `began` on. `measured` of them count so far."""

    observer: Observer
    life: Life
    plan: Plan
    began: float
    measured: int = 0

    def complete(self, texts: Sequence[str], concurrency: int) -> list[client.Completion]:
        observer, wanted = self.observer, self.observer.wanted
        if observer.clock() - self.began > wanted.measure_timeout:
            raise Failed(diagnosis.too_slow(wanted, f"{self.measured} of {self.plan.requests} requests"))
        ask = partial(observer.server.stream_all, wanted.served_model, texts, self.plan.max_tokens)
        completions: list[client.Completion] = self.life.asked(
            partial(ask, concurrency, uncached=True),
            lambda error: diagnosis.completion_failed(wanted, str(error)),
        )
        return completions


@contextmanager
def kv_cache_peak(server: Server, every: float = SAMPLE_EVERY) -> Iterator[Callable[[], float | None]]:
    """Sample the use of the KV cache while the block runs. Gives a function that returns the highest share seen, or None if
    the server publishes none. A failed sample is left out: the load itself shows when the server is gone.
    """
    seen: list[float] = []
    over = threading.Event()

    def look() -> None:
        while True:
            try:
                share = metrics.parse(server.metrics()).kv_cache_usage
            except (client.ServerError, metrics.MetricsError):
                share = None
            if share is not None:
                seen.append(share)
            if over.wait(every):
                return

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield lambda: max(seen, default=None)
    finally:
        over.set()
        thread.join()


def traffic(phases: Mapping[str, Phase]) -> Traffic:
    completions = [completion for phase in phases.values() for completion in phase.completions]
    return Traffic(len(completions), sum(completion.completion_tokens for completion in completions))


def spread(samples: Sequence[float], digits: int) -> dict[str, Any]:
    """The statistics of some samples: ``{median, mean, sd (of the sample), minimum, maximum, samples}``."""
    figures = {
        "median": statistics.median(samples),
        "mean": statistics.fmean(samples),
        "sd": statistics.stdev(samples) if len(samples) > 1 else 0.0,
        "minimum": min(samples),
        "maximum": max(samples),
    }
    rounded = {name: round(value, digits) for name, value in figures.items()}
    return rounded | {"samples": [round(sample, digits) for sample in samples]}


def load(
    concurrency: int,
    phases: Mapping[str, Phase],
    gained: metrics.Delta,
    kv_cache_usage: float | None,
) -> dict[str, Any]:
    """The figures of one load, as the module returns them. If its rate is not measurable, the wait for the first token is
    the only figure by a clock.

    :param phases: by kind, in the order in which they were asked
    :param gained: what the counters gained over all of them
    """
    ours = traffic(phases)
    seconds = sum(phase.seconds for phase in phases.values())
    completions = [completion for phase in phases.values() for completion in phase.completions]
    whole = whole_rate(phases, gained)
    timed = not whole.problem
    streams = [speed for completion in completions if (speed := completion.decode_rate) is not None]
    return {
        "concurrency": concurrency,
        "requests": ours.requests,
        "tokens": ours.tokens,
        "seconds": round(seconds, 3),
        # No stream decodes for longer than the load takes. So if two witnesses agree on its rate, they confirm this one too.
        "tokens_per_second": round(ours.tokens / seconds, 3) if timed else None,
        "rate": whole.result(),
        "decode_tokens_per_second": spread(streams, 3) if timed else None,
        "time_to_first_token": spread([client.time_to_first_token(c) for c in completions], 4),
        "drafts": gained.drafts,
        "draft_tokens": gained.draft_tokens,
        "accepted": gained.accepted,
        "accepted_per_position": list(gained.per_position),
        "rates": _rounded(gained.rates),
        "standard_errors": _rounded(gained.standard_errors),
        "mean_acceptance_length": round(gained.mean_acceptance_length, 4),
        "kv_cache_usage": None if kv_cache_usage is None else round(kv_cache_usage, 4),
        "foreign_share": round(diagnosis.foreign_share(gained, ours), 4),
        "kinds": {
            kind: {
                "rate": phase.rate.result(),
                "drafts": phase.gained.drafts,
                "rates": _rounded(phase.gained.rates),
            }
            for kind, phase in phases.items()
        },
    }


def whole_rate(phases: Mapping[str, Phase], gained: metrics.Delta) -> Rate:
    """The rate of a load. It is not measurable if that of any kind is not."""
    completions = [completion for phase in phases.values() for completion in phase.completions]
    whole = rate.measure(completions, gained)
    problem = next(
        (f"{kind}: {phase.rate.problem}" for kind, phase in phases.items() if phase.rate.problem), ""
    )
    return replace(whole, problem=problem or whole.problem)


def _rounded(values: Sequence[float]) -> list[float]:
    return [round(value, 4) for value in values]


def _said(phase: Phase) -> str:
    text = f"{len(phase.completions)} answers, {phase.rate}"
    if phase.gained.drafts:
        text += f", {' / '.join(f'{share:.0%}' for share in phase.gained.rates)} accepted"
    return text
