# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Counters of speculative decoding: what a scrape says, what two of them say together."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from ansible_collections.sparkfleet.vllm.plugins.module_utils._vllm.metrics import (
    Counters,
    Delta,
    MetricsError,
    delta,
    parse,
    was_reset,
)

# As vLLM 0.32 prints them: labels sorted, so `position` is never the only one and never the first; a `_created`
# gauge beside each counter; several engines in one answer.
SCRAPE = """\
# HELP process_start_time_seconds Start time of the process since unix epoch in seconds.
# TYPE process_start_time_seconds gauge
process_start_time_seconds 1.79546819534e+09
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="huihui-gemma4"} 1.0
vllm:num_requests_running{engine="1",model_name="huihui-gemma4"} 0.0
# HELP vllm:generation_tokens_total Number of generation tokens processed.
# TYPE vllm:generation_tokens_total counter
vllm:generation_tokens_total{engine="0",model_name="huihui-gemma4"} 700.0
vllm:generation_tokens_total{engine="1",model_name="huihui-gemma4"} 28.0
# HELP vllm:generation_tokens_created Number of generation tokens processed.
# TYPE vllm:generation_tokens_created gauge
vllm:generation_tokens_created{engine="0",model_name="huihui-gemma4"} 1.7954681953464375e+09
# HELP vllm:request_success_total Count of successfully processed requests.
# TYPE vllm:request_success_total counter
vllm:request_success_total{engine="0",finished_reason="length",model_name="huihui-gemma4"} 3.0
vllm:request_success_total{engine="0",finished_reason="stop",model_name="huihui-gemma4"} 1.0
# HELP vllm:spec_decode_num_drafts_total Number of spec decoding drafts.
# TYPE vllm:spec_decode_num_drafts_total counter
vllm:spec_decode_num_drafts_total{engine="0",model_name="huihui-gemma4"} 400.0
vllm:spec_decode_num_drafts_total{engine="1",model_name="huihui-gemma4"} 20.0
# HELP vllm:spec_decode_num_drafts_created Number of spec decoding drafts.
# TYPE vllm:spec_decode_num_drafts_created gauge
vllm:spec_decode_num_drafts_created{engine="0",model_name="huihui-gemma4"} 1.7954681953465722e+09
# TYPE vllm:spec_decode_num_draft_tokens_total counter
vllm:spec_decode_num_draft_tokens_total{engine="0",model_name="huihui-gemma4"} 800.0
vllm:spec_decode_num_draft_tokens_total{engine="1",model_name="huihui-gemma4"} 40.0
# TYPE vllm:spec_decode_num_accepted_tokens_total counter
vllm:spec_decode_num_accepted_tokens_total{engine="0",model_name="huihui-gemma4"} 390.0
vllm:spec_decode_num_accepted_tokens_total{engine="1",model_name="huihui-gemma4"} 8.0
# TYPE vllm:spec_decode_num_accepted_tokens_per_pos_total counter
vllm:spec_decode_num_accepted_tokens_per_pos_total{engine="0",model_name="huihui-gemma4",position="1"} 130.0
vllm:spec_decode_num_accepted_tokens_per_pos_total{engine="0",model_name="huihui-gemma4",position="0"} 260.0
vllm:spec_decode_num_accepted_tokens_per_pos_total{engine="1",model_name="huihui-gemma4",position="0"} 6.0
vllm:spec_decode_num_accepted_tokens_per_pos_total{engine="1",model_name="huihui-gemma4",position="1"} 2.0
# TYPE vllm:spec_decode_num_accepted_tokens_per_pos_created gauge
vllm:spec_decode_num_accepted_tokens_per_pos_created{engine="0",model_name="huihui-gemma4",position="0"} 1.79e+09
"""


def test_scrape_of_two_engines_is_summed_and_created_lines_are_not_counts() -> None:
    assert parse(SCRAPE) == Counters(
        drafts=420,
        draft_tokens=840,
        accepted=398,
        per_position={0: 266, 1: 132},
        generated=728,
        finished=4,
        active=1,
        running=1,
        process_start=1795468195.34,
    )


def test_the_heartbeat_of_the_engines_and_what_they_have_to_do() -> None:
    found = parse(
        HISTOGRAM.format(name="iteration_tokens_total", seconds="2.5")
        + 'vllm:prompt_tokens_total{engine="0"} 7.0\nvllm:prompt_tokens_total{engine="1"} 5.0\n'
        + 'vllm:num_requests_running{engine="0"} 3\nvllm:num_requests_waiting{engine="1"} 2\n'
    )
    assert (found.iterations, found.prompt, found.running, found.waiting) == (4, 12, 3, 2)
    assert (found.active, parse(SCRAPE).iterations, parse(SCRAPE).waiting) == (5, None, None)


def test_the_kv_cache_is_as_full_as_that_of_the_fullest_engine() -> None:
    usage = 'vllm:kv_cache_usage_perc{engine="0"} 0.125\nvllm:kv_cache_usage_perc{engine="1"} 0.25\n'
    assert parse(usage).kv_cache_usage == 0.25
    assert parse(SCRAPE).kv_cache_usage is None


def test_the_wait_for_first_tokens_is_summed_and_counted() -> None:
    found = parse(HISTOGRAM.format(name="time_to_first_token_seconds", seconds="2.5"))
    assert (found.first_token_seconds, found.first_tokens) == (3.0, 4)
    assert (parse(SCRAPE).first_token_seconds, parse(SCRAPE).first_tokens) == (None, None)


HISTOGRAM = """\
# TYPE vllm:{name} histogram
vllm:{name}_bucket{{engine="0",le="0.3"}} 1.0
vllm:{name}_bucket{{engine="0",le="+Inf"}} 4.0
vllm:{name}_count{{engine="0"}} 4.0
vllm:{name}_sum{{engine="0"}} {seconds}
vllm:{name}_sum{{engine="1"}} 0.5
"""


@pytest.mark.parametrize(
    "name",
    ["request_decode_time_seconds", "inter_token_latency_seconds", "time_per_output_token_seconds"],
)
def test_the_seconds_of_decoding_under_each_of_their_names(name: str) -> None:
    assert parse(HISTOGRAM.format(name=name, seconds=18.5)).decode_seconds == 19.0


def test_the_seconds_of_decoding_are_taken_from_one_histogram() -> None:
    older = HISTOGRAM.format(name="time_per_output_token_seconds", seconds=1.0)
    both = HISTOGRAM.format(name="request_decode_time_seconds", seconds=18.5) + older
    assert parse(both).decode_seconds == 19.0
    assert parse(SCRAPE).decode_seconds is None


def test_seconds_of_decoding_are_subtracted_and_do_not_fall() -> None:
    before, after = replace(BEFORE, decode_seconds=2.5), replace(BEFORE, decode_seconds=12.5)
    assert delta(before, after).decode_seconds == 10.0
    assert delta(BEFORE, after).decode_seconds == 12.5
    assert delta(before, BEFORE).decode_seconds is None
    assert was_reset(after, before) and not was_reset(before, after)


def test_absent_is_not_zero() -> None:
    without = "\n".join(line for line in SCRAPE.splitlines() if "spec_decode" not in line) + "\n"
    assert parse(without).drafts is None
    assert parse(without).per_position == {}
    zero = parse('vllm:spec_decode_num_drafts_total{engine="0"} 0.0\n')
    assert zero.drafts == 0
    assert parse("").generated is None


@pytest.mark.parametrize(
    "text", ["<html><body>It works!</body></html>\n", 'a{b="c} 1\n', "vllm:x notanumber\n"]
)
def test_other_text_is_an_error(text: str) -> None:
    with pytest.raises(MetricsError):
        parse(text)


BEFORE = Counters(100, 200, 90, {0: 60, 1: 30}, 300, 2, 0, 1000.0)


def test_delta() -> None:
    after = Counters(300, 600, 290, {0: 200, 1: 90}, 800, 6, 0, 1000.0)
    measured = delta(BEFORE, after)
    assert measured == Delta(200, 400, 200, (140, 60), 500, 4)
    assert measured.rates == (0.7, 0.3)
    assert measured.acceptance_rate == 0.7
    assert measured.mean_acceptance_length == 2.0
    assert measured.standard_error == pytest.approx(math.sqrt(0.7 * 0.3 / 200))
    assert measured.standard_error == pytest.approx(0.0324, abs=1e-4)
    assert measured.standard_errors == (measured.standard_error, math.sqrt(0.3 * 0.7 / 200))


def test_delta_without_drafts_has_rates_of_nothing() -> None:
    nothing = delta(BEFORE, BEFORE)
    assert (nothing.rates, nothing.acceptance_rate, nothing.mean_acceptance_length) == ((), 0.0, 1.0)
    assert nothing.standard_error == 0.0


def test_delta_keeps_a_position_that_was_never_accepted() -> None:
    after = replace(BEFORE, drafts=200, accepted=110, per_position={0: 80, 1: 30})
    assert delta(BEFORE, after).per_position == (20, 0)


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        (replace(BEFORE, drafts=101), False),
        (BEFORE, False),
        (replace(BEFORE, process_start=1001.0), True),
        (replace(BEFORE, drafts=99), True),
        (replace(BEFORE, generated=1), True),
        (replace(BEFORE, per_position={0: 61, 1: 29}), True),
        (replace(BEFORE, drafts=None), True),
        (replace(BEFORE, active=7), False),
    ],
)
def test_reset(after: Counters, expected: bool) -> None:
    assert was_reset(BEFORE, after) is expected


DRAFTS = "vllm:spec_decode_num_drafts_total"
POSITION = "vllm:spec_decode_num_accepted_tokens_per_pos_total"


@pytest.mark.parametrize(
    "line",
    [
        f"{DRAFTS} NaN",
        f"{DRAFTS} +Inf",
        f"{DRAFTS} -1",
        "vllm:num_requests_running NaN",
        "process_start_time_seconds NaN",
        f'{POSITION}{{position="0"}} +Inf',
        f'{POSITION}{{position="30000000"}} 1',
        f'{POSITION}{{position="1e11"}} 1',
        f'{POSITION}{{position="-1"}} 1',
        f'{POSITION}{{position="{"9" * 5000}"}} 1',
        f"{POSITION} 1",
        "<html>login</html>",
        f"{DRAFTS}{{a=" + '"b' * 3,
    ],
)
def test_what_counts_nothing_is_refused(line: str) -> None:
    with pytest.raises(MetricsError):
        parse(line + "\n")


def test_what_is_no_count_may_be_no_number() -> None:
    seen = parse(f'vllm:kv_cache_usage_perc NaN\nother_total NaN\nother{{quantile="0.5"}} NaN\n{DRAFTS} 7\n')
    assert (seen.kv_cache_usage, seen.drafts) == (None, 7)


def test_a_share_above_one_has_no_deviation() -> None:
    between = delta(Counters(drafts=4, per_position={0: 3}), Counters(drafts=5, per_position={0: 5}))
    assert between.rates == (2.0,) and between.standard_error == 0.0
