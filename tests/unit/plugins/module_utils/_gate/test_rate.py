# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A rate is what both witnesses say, or not measurable: for any timing of a stream and any counters."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace

import pytest
import yaml
from ansible_collections.sparkfleet.vllm.plugins.module_utils._gate.rate import (
    PIECES,
    TOLERANCE,
    measure,
)
from ansible_collections.sparkfleet.vllm.plugins.module_utils._vllm.client import (
    APART,
    Completion,
    read_stream,
)
from ansible_collections.sparkfleet.vllm.plugins.module_utils._vllm.metrics import Delta
from ansible_collections.sparkfleet.vllm.plugins.modules import spec_decode_assert, spec_decode_bench
from hypothesis import given, settings
from hypothesis import strategies as st

TOKENS = 256


def stream(seconds: float, tokens: int = TOKENS, pieces: int = 100) -> Completion:
    return Completion(tokens, "text", 1.0, 1.0 + seconds, 0.5, pieces)


def gained(seconds: float | None, requests: int | None = 4, generated: int | None = 4 * TOKENS) -> Delta:
    return Delta(500, 500, 300, (300,), generated, requests, seconds)


FOUR = [stream(5.0), stream(6.0), stream(4.0), stream(5.0)]
"""255 tokens after the first in 5 s each, 51 a second."""


def test_the_server_is_believed_and_the_client_agrees() -> None:
    rate = measure(FOUR, gained(20.4))
    assert (rate.tokens_per_second, rate.client, rate.server) == (50.0, 51.0, 50.0)
    assert rate.result() == {
        "tokens_per_second": 50.0, "client": 51.0, "server": 50.0, "witnesses": 2, "because": "",
    }  # fmt: skip
    assert str(rate) == "50.0 tok/s"


@pytest.mark.parametrize(
    ("counters", "words"),
    [
        (gained(None), "publishes no histogram"),
        (gained(99.0, requests=5), "5 requests ended meanwhile, 4 of them ours"),
        (gained(99.0, requests=3), "3 requests ended meanwhile"),
        (gained(99.0, generated=8 * TOKENS), "50% of the tokens meanwhile were for others"),
    ],
)
def test_a_client_by_itself_is_one_witness(counters: Delta, words: str) -> None:
    rate = measure(FOUR, counters)
    assert (rate.tokens_per_second, rate.server) == (51.0, None)
    assert rate.result()["witnesses"] == 1
    assert rate.result()["because"].startswith("one witness, the client's clock: ") and words in rate.alone


@pytest.mark.parametrize(
    ("streams", "counters", "words"),
    [
        # Twice as fast as the server, and half as fast.
        (FOUR, gained(40.0), "seen 51.0 tok/s by the client and 25.5 tok/s by the server's histogram; do: "),
        (FOUR, gained(10.0), "seen 51.0 tok/s by the client and 102.0 tok/s by"),
        (FOUR, gained(0.0), "seen 51.0 tok/s by the client and no time at all by"),
        ([*FOUR[:3], stream(0.0, pieces=1)], gained(20.0), "at least 10 pieces"),
        (
            [*FOUR[:3], stream(5.0, pieces=PIECES - 1)],
            gained(20.0),
            "seen 256 tokens of one in 9; do: measure at",
        ),
        ([*FOUR[:3], stream(0.8e-3, pieces=1)], gained(None), "seen 256 tokens of one in 1"),
        ([stream(5.0, tokens=1)], gained(None, 1, 1), "seen 1 tokens of one in 100"),
        ([], gained(20.0), "seen no answer"),
        (FOUR, gained(20.0, generated=TOKENS), "seen 256 by its counter"),
    ],
)
def test_what_is_not_measurable(streams: list[Completion], counters: Delta, words: str) -> None:
    rate = measure(streams, counters)
    assert rate.tokens_per_second is None and str(rate) == "tok/s not measurable"
    assert words in rate.problem
    # What was expected, what was seen, what to do.
    assert [part in rate.problem for part in ("expected ", ", seen ", "; do: ")] == [True] * 3
    assert rate.result()["because"] == rate.problem


def read(gaps: list[float], tokens: int) -> Completion:
    """One stream of these gaps between its chunks."""

    def clock() -> Iterator[float]:
        now = 10.0
        yield now
        for gap in gaps:
            now += gap
            yield now

    chunk = {"choices": [{"delta": {"content": "a"}}]}
    events = [*[chunk] * (len(gaps) + 1), {"choices": [], "usage": {"completion_tokens": tokens}}]
    lines = [f"data: {json.dumps(event)}" for event in events]
    times = clock()
    return replace(read_stream([*lines, "data: [DONE]"], lambda: next(times)), sent=9.0)


GAP = st.one_of(st.just(0.0), st.floats(1e-6, 1e-4), st.floats(1e-3, 0.5))
STREAMS = st.lists(st.builds(read, st.lists(GAP, max_size=60), st.integers(0, 2000)), max_size=6)
STEADY = st.lists(
    st.builds(read, st.lists(st.floats(0.005, 0.05), min_size=12, max_size=40), st.integers(2, 2000)),
    min_size=1,
    max_size=6,
)
COUNT = st.one_of(st.none(), st.integers(0, 12_000))


@settings(max_examples=300, deadline=None)
@given(
    st.one_of(STREAMS, STEADY),
    st.one_of(st.none(), st.just(0.0), st.floats(0.5, 2.0), st.floats(1e-6, 1e6)),
    COUNT,
    COUNT,
    st.booleans(),
)
def test_a_rate_is_within_both_witnesses_or_none(
    streams: list[Completion],
    factor: float | None,
    generated: int | None,
    finished: int | None,
    alone: bool,
) -> None:
    tokens = sum(each.completion_tokens for each in streams)
    span = sum(each.last - each.first for each in streams)
    seconds = None if factor is None else factor * span
    counters = gained(seconds, finished, generated) if alone else gained(seconds, len(streams), tokens)
    rate = measure(streams, counters)
    value = rate.tokens_per_second
    if value is None:
        assert rate.problem
        return
    after_first = sum(each.completion_tokens - 1 for each in streams)
    witnesses = [after_first / span]
    if rate.server is not None:
        assert counters.decode_seconds
        witnesses.append(after_first / counters.decode_seconds)
    for witness in witnesses:
        assert witness / (1 + TOLERANCE) <= value * (1 + 1e-9) and value <= witness * (1 + TOLERANCE) * (
            1 + 1e-9
        )
    # Whatever the server says, each stream took as long as its pieces are apart.
    for each in streams:
        assert each.decode_rate is not None
        assert each.decode_rate <= (each.completion_tokens - 1) / ((PIECES - 1) * APART) * (1 + 1e-9)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(0.01, 0.2), min_size=20, max_size=60), st.floats(1.01, 3.0), st.booleans())
def test_a_server_that_contradicts_is_found(gaps: list[float], factor: float, faster: bool) -> None:
    one = read(gaps, TOKENS)
    seconds = (one.last - one.first) * (1 / factor if faster else factor)
    rate = measure([one], gained(seconds, 1, TOKENS))
    assert (rate.tokens_per_second is None) == (factor > 1 + TOLERANCE)


def test_both_modules_that_return_a_rate_document_it_alike_and_whole() -> None:
    """Ansible knows no fragments for what a module returns, so each has a copy."""
    proven = yaml.safe_load(spec_decode_assert.RETURN)["rate"]
    loads = yaml.safe_load(spec_decode_bench.RETURN)["measurement"]["contains"]["loads"]
    assert proven["contains"] == loads["contains"]["rate"]["contains"]
    assert list(proven["contains"]) == list(proven["sample"]) == list(measure(FOUR, gained(20.0)).result())
