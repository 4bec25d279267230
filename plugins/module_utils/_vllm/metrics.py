# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""vLLM's counters of speculative decoding and of its work: reads them from /metrics, subtracts them, and makes rates of them.

Series and their meaning: vllm/v1/spec_decode/metrics.py, vllm/v1/metrics/loggers.py and stats.py; those of speculation have
the same names in 0.20 to 0.32. A counter that vLLM registered but never moved is present and 0; one it never registered is absent.
"""

from __future__ import annotations

import math
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

try:
    from prometheus_client.parser import text_string_to_metric_families

    PROMETHEUS_IMPORT_ERROR: str | None = None
except ImportError:
    PROMETHEUS_IMPORT_ERROR = traceback.format_exc()

_DRAFTS = "vllm:spec_decode_num_drafts_total"
_DRAFT_TOKENS = "vllm:spec_decode_num_draft_tokens_total"
_ACCEPTED = "vllm:spec_decode_num_accepted_tokens_total"
_PER_POSITION = "vllm:spec_decode_num_accepted_tokens_per_pos_total"
_GENERATED = "vllm:generation_tokens_total"
_PROMPT = "vllm:prompt_tokens_total"
_ITERATIONS = "vllm:iteration_tokens_total_count"
_FINISHED = "vllm:request_success_total"
_RUNNING = "vllm:num_requests_running"
_WAITING = "vllm:num_requests_waiting"
_KV_USAGE = "vllm:kv_cache_usage_perc"
_TTFT_SUM = "vllm:time_to_first_token_seconds_sum"
_TTFT_COUNT = "vllm:time_to_first_token_seconds_count"
_STARTED = "process_start_time_seconds"
_DECODE_SECONDS = (
    "vllm:request_decode_time_seconds_sum",
    "vllm:inter_token_latency_seconds_sum",
    "vllm:time_per_output_token_seconds_sum",
)
"""Sums of histograms that say how long requests decoded; the first that exists counts. A request adds to the first sum the time
between its first and its last token. To the others, of which the last is the older name, it adds each gap in between."""
_SUMMED = frozenset(
    {
        _DRAFTS,
        _DRAFT_TOKENS,
        _ACCEPTED,
        _GENERATED,
        _PROMPT,
        _ITERATIONS,
        _FINISHED,
        _RUNNING,
        _WAITING,
        _TTFT_SUM,
        _TTFT_COUNT,
        *_DECODE_SECONDS,
    }
)

DEEPEST = 1024
"""Draft positions. No draft comes near this, and a table of all positions has this size."""


class MetricsError(ValueError):
    """The answer of /metrics is not in the text format, or not vLLM's."""


@dataclass(frozen=True)
class Counters:
    """One scrape, all engines of the server summed. None: the series is absent, which is not 0.

    The two token counts and the request count are server-wide: other people's traffic moves them too.
    """

    drafts: int | None = None
    draft_tokens: int | None = None
    accepted: int | None = None
    per_position: Mapping[int, int] = field(default_factory=dict)
    generated: int | None = None
    finished: int | None = None
    active: int = 0
    """Requests running or waiting at the moment of the scrape."""
    process_start: float | None = None
    """Unix time; None behind several API servers, which publish no process metrics."""
    kv_cache_usage: float | None = None
    """Share of the KV cache in use at the moment of the scrape, 0 to 1, of the engine that uses most."""
    decode_seconds: float | None = None
    """Time between the first and the last token, by the server's clock, summed over all requests."""
    prompt: int | None = None
    """Tokens of prompts, counted when their request begins to answer."""
    iterations: int | None = None
    """Steps of the engine, each piece of a long prompt among them: its heartbeat."""
    running: int | None = None
    waiting: int | None = None
    """Requests at the moment of the scrape."""
    first_token_seconds: float | None = None
    """Wait for the first token, by the server's clock, summed over all requests that have it."""
    first_tokens: int | None = None
    """Number of these requests."""


@dataclass(frozen=True)
class Delta:
    """What happened between two scrapes of one process."""

    drafts: int
    draft_tokens: int
    accepted: int
    per_position: tuple[int, ...]
    """Accepted tokens at draft position 0, 1, …"""
    generated: int | None
    finished: int | None
    decode_seconds: float | None = None

    @property
    def rates(self) -> tuple[float, ...]:
        """Share of drafts accepted at each position: accepted_per_pos{p} / drafts. Empty without drafts."""
        return tuple(accepted / self.drafts for accepted in self.per_position) if self.drafts else ()

    @property
    def acceptance_rate(self) -> float:
        """The rate at position 0, the one a floor is set on: later positions depend on it."""
        return self.rates[0] if self.rates else 0.0

    @property
    def mean_acceptance_length(self) -> float:
        """Tokens an engine step yields: the accepted ones and the one the body adds. 1 without any."""
        return 1 + self.accepted / self.drafts if self.drafts else 1.0

    @property
    def standard_error(self) -> float:
        """Standard error of the rate at position 0, in the same unit."""
        return self.standard_errors[0] if self.standard_errors else 0.0

    @property
    def standard_errors(self) -> tuple[float, ...]:
        """Standard error of each rate, in the same unit, with drafts taken as independent: sqrt(p (1 - p) / drafts)."""
        # A draft that was counted before the first scrape may be accepted after it, so a share can exceed 1. It has no deviation.
        return tuple(math.sqrt(max(0.0, rate * (1 - rate)) / self.drafts) for rate in self.rates)


def parse(text: str) -> Counters:
    """Read one answer of /metrics.

    Samples are found by name and label, never by line: labels come sorted, ``_created`` lines hold a Unix time.

    :raises MetricsError: not the Prometheus text format
    """
    totals: dict[str, float] = {}
    positions: dict[int, int] = {}
    usage: list[float] = []
    try:
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.name == _PER_POSITION:
                    position = _position(sample.labels["position"])
                    positions[position] = positions.get(position, 0) + int(_count(sample))
                elif sample.name in _SUMMED:
                    totals[sample.name] = totals.get(sample.name, 0.0) + _count(sample)
                elif sample.name == _STARTED:
                    totals[_STARTED] = _count(sample)
                elif sample.name == _KV_USAGE and math.isfinite(sample.value):
                    usage.append(sample.value)
    except (ValueError, KeyError, IndexError, TypeError, RecursionError) as error:
        raise MetricsError(f"not the Prometheus text format: {error}") from error

    def count(name: str) -> int | None:
        return int(totals[name]) if name in totals else None

    return Counters(
        drafts=count(_DRAFTS),
        draft_tokens=count(_DRAFT_TOKENS),
        accepted=count(_ACCEPTED),
        per_position=dict(sorted(positions.items())),
        generated=count(_GENERATED),
        finished=count(_FINISHED),
        active=(count(_RUNNING) or 0) + (count(_WAITING) or 0),
        process_start=totals.get(_STARTED),
        kv_cache_usage=max(usage, default=None),
        decode_seconds=next((totals[name] for name in _DECODE_SECONDS if name in totals), None),
        prompt=count(_PROMPT),
        iterations=count(_ITERATIONS),
        running=count(_RUNNING),
        waiting=count(_WAITING),
        first_token_seconds=totals.get(_TTFT_SUM),
        first_tokens=count(_TTFT_COUNT),
    )


def _count(sample: Any) -> float:
    """:raises ValueError: the sample is no number of things"""
    value = sample.value
    if not (math.isfinite(value) and value >= 0):
        raise ValueError(f"{sample.name}: expected a number from 0 on, seen {value}")
    return float(value)


def _position(text: str) -> int:
    """:raises ValueError: the text is no position of a draft"""
    if not (text.isdecimal() and len(text) <= len(str(DEEPEST)) and int(text) < DEEPEST):
        raise ValueError(f"{_PER_POSITION}: expected a position below {DEEPEST}, seen {text[:40]!r}")
    return int(text)


def labels(text: str, name: str) -> dict[str, str]:
    """The labels of the first sample of a series, which carry its information; empty without such a series.

    :raises MetricsError: not the Prometheus text format
    """
    try:
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.name == name:
                    return dict(sample.labels)
    except (ValueError, KeyError, IndexError, TypeError, RecursionError) as error:
        raise MetricsError(f"not the Prometheus text format: {error}") from error
    return {}


def was_reset(before: Counters, after: Counters) -> bool:
    """True if the two scrapes cannot be of one life of one process: another start time, or a count that fell."""
    if before.process_start != after.process_start:
        return True
    pairs: list[tuple[float | None, float | None]] = [
        (before.drafts, after.drafts),
        (before.draft_tokens, after.draft_tokens),
        (before.accepted, after.accepted),
        (before.generated, after.generated),
        (before.finished, after.finished),
        (before.decode_seconds, after.decode_seconds),
        *((count, after.per_position.get(position)) for position, count in before.per_position.items()),
    ]
    return any(old is not None and (new is None or new < old) for old, new in pairs)


def delta(before: Counters, after: Counters) -> Delta:
    """Subtract two scrapes. :func:`was_reset` must be false for them."""

    def gained(old: int | None, new: int | None) -> int | None:
        return None if new is None else new - (old or 0)

    width = max(after.per_position, default=-1) + 1
    return Delta(
        drafts=gained(before.drafts, after.drafts) or 0,
        draft_tokens=gained(before.draft_tokens, after.draft_tokens) or 0,
        accepted=gained(before.accepted, after.accepted) or 0,
        per_position=tuple(
            after.per_position.get(position, 0) - before.per_position.get(position, 0)
            for position in range(width)
        ),
        generated=gained(before.generated, after.generated),
        finished=gained(before.finished, after.finished),
        decode_seconds=None
        if after.decode_seconds is None
        else after.decode_seconds - (before.decode_seconds or 0),
    )
