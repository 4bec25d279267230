# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whole runs of the benchmark against the lab's stub in this process, and the figures that it makes of a load."""

from __future__ import annotations

import statistics
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
from ansible_collections.sparkfleet.vllm.plugins.module_utils._gate.bench import (
    Bench,
    Phase,
    Plan,
    kv_cache_peak,
    load,
    spread,
)
from ansible_collections.sparkfleet.vllm.plugins.module_utils._gate.container import NoContainer
from ansible_collections.sparkfleet.vllm.plugins.module_utils._gate.diagnosis import Wanted
from ansible_collections.sparkfleet.vllm.plugins.module_utils._gate.observed import Failed, Observer
from ansible_collections.sparkfleet.vllm.plugins.module_utils._vllm.client import (
    Completion,
    Server,
    ServerError,
)
from ansible_collections.sparkfleet.vllm.plugins.module_utils._vllm.metrics import Delta
from ansible_collections.sparkfleet.vllm.plugins.module_utils._vllm.prompts import KINDS, prompt_of
from helpers.gate import MTP, STATE, Clock, FakeContainer
from helpers.stub_server import serving

SHORT = Plan(("code", "prose"), 200, warmup=1, repeats=2, concurrency=(1,))


class Recorder:
    """A server that keeps what was streamed."""

    def __init__(self, url: str) -> None:
        self._server = Server(url)
        self.asked: list[tuple[list[str], int, int, bool]] = []

    def stream_all(
        self, model: str, texts: Any, max_tokens: int, concurrency: int, uncached: bool = False
    ) -> list[Completion]:
        self.asked.append((list(texts), max_tokens, concurrency, uncached))
        return self._server.stream_all(model, texts, max_tokens, concurrency, uncached)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._server, name)


@contextmanager
def bench(
    plan: Plan = SHORT, container: Any = None, wanted: dict[str, Any] | None = None, **settings: Any
) -> Iterator[Any]:
    """A benchmark in front of a stub with these settings."""
    options: dict[str, Any] = {"speculation": MTP, "minimum_drafts": 1} | (wanted or {})
    clock = Clock()
    with serving(**({"name": "huihui-gemma4"} | settings)) as (_, url):
        observer = Observer(
            Wanted("vllm", "huihui-gemma4", **options),
            container or FakeContainer(),
            Recorder(url),
            clock=clock,
            now=lambda: 1764026195.1,
            sleep=clock.sleep,
        )
        yield Bench(observer, plan)


def measured(run: Bench) -> dict[str, Any]:
    run.run()
    measurement: dict[str, Any] = run.observer.result["measurement"]
    return measurement


def fails(run: Bench) -> str:
    with pytest.raises(Failed) as failure:
        run.run()
    assert "measurement" not in run.observer.result
    return failure.value.finding.code


def test_a_measurement() -> None:
    with bench(step=0.002) as run:
        result = measured(run)
    assert {name: value for name, value in result.items() if name != "loads"} == {
        "served_model": "huihui-gemma4",
        "version": "0.32.0",
        "container": {"id": STATE.id, "started_at": STATE.started_at, "image": STATE.image},
        "speculation": MTP,
        "measured_at": "2025-11-24T23:16:35Z",
        "plan": {
            "kinds": ["code", "prose"],
            "max_tokens": 200,
            "warmup": 1,
            "repeats": 2,
            "concurrency": [1],
        },
    }
    (load,) = result["loads"]
    assert (load["concurrency"], load["requests"], load["tokens"]) == (1, 4, 800)
    assert load["rates"] == pytest.approx([0.69], abs=0.01)
    assert load["standard_errors"] == pytest.approx([(0.69 * 0.31 / load["drafts"]) ** 0.5], abs=0.001)
    assert load["mean_acceptance_length"] == pytest.approx(1 + load["accepted"] / load["drafts"], abs=1e-4)
    assert load["accepted_per_position"] == [load["accepted"]]
    assert load["foreign_share"] == 0.0
    assert len(load["decode_tokens_per_second"]["samples"]) == 4
    assert all(0 < seconds < 5 for seconds in load["time_to_first_token"]["samples"])
    assert list(load["kinds"]) == ["code", "prose"]
    # Drafts of the warm-up and of the first answer are nobody's: the kinds add up to the load.
    assert sum(kind["drafts"] for kind in load["kinds"].values()) == load["drafts"]
    assert load["drafts"] == pytest.approx(800 / 1.69, rel=0.02)


def test_without_speculation_there_are_no_drafts_and_the_same_is_asked() -> None:
    with bench() as on:
        measured(on)
    with bench(wanted={"speculation": None}, speculation=None) as off:
        result = measured(off)
    assert off.observer.server.asked == on.observer.server.asked
    assert result["speculation"] is None
    (load,) = result["loads"]
    assert (load["drafts"], load["draft_tokens"], load["accepted"]) == (0, 0, 0)
    assert (load["accepted_per_position"], load["rates"], load["standard_errors"]) == ([], [], [])
    assert load["mean_acceptance_length"] == 1.0
    assert load["tokens"] == 800


def test_streams_never_share_a_prompt_and_ask_one_kind_after_the_other() -> None:
    plan = Plan(KINDS, 200, warmup=1, repeats=2, concurrency=(3, 1))
    with bench(plan, step=0.002) as run:
        result = measured(run)
        asked = run.observer.server.asked
    assert [(len(texts), streams) for texts, _, streams, _ in asked] == [
        (3, 3), *[(6, 3)] * 4,
        (1, 1), *[(2, 1)] * 4,
    ]  # fmt: skip
    assert all(uncached and tokens == 200 for _, tokens, _, uncached in asked)
    assert [texts for texts, *_ in asked[1:5]] == [
        [prompt_of(kind, number) for number in range(6)] for kind in KINDS
    ]
    assert len({text for texts, *_ in asked[1:5] for text in texts}) == 24
    assert [load["concurrency"] for load in result["loads"]] == [3, 1]
    assert [load["requests"] for load in result["loads"]] == [24, 8]
    assert result["loads"][0]["tokens_per_second"] > 0


def test_the_peak_of_the_kv_cache_is_of_the_load() -> None:
    # Half a second passes between two looks; the load takes more than two seconds, so that a busy machine misses not all of them.
    plan = replace(SHORT, kinds=("code",), repeats=2)
    with bench(plan, kv_usage=0.31, step=0.01) as run:
        assert measured(run)["loads"][0]["kv_cache_usage"] == 0.31
    with bench(plan, no_stats=True, wanted={"speculation": None}, speculation=None) as run:
        assert measured(run)["loads"][0]["kv_cache_usage"] is None


def test_a_look_at_the_kv_cache_that_fails_is_no_failure() -> None:
    looks = threading.Semaphore(0)

    class Silent:
        def metrics(self) -> str:
            looks.release()
            raise ServerError("/metrics: refused")

    with kv_cache_peak(Silent(), every=0.001) as peak:  # type: ignore[arg-type]
        assert looks.acquire(timeout=5)
        assert looks.acquire(timeout=5)
    assert peak() is None


@pytest.mark.parametrize(
    ("settings", "wanted", "expected"),
    [
        ({"speculation": None}, {}, "speculation_ignored"),
        ({}, {"speculation": None}, "speculation_unexpected"),
        ({"speculation": MTP | {"num_speculative_tokens": 3}}, {}, "speculation_mismatch"),
        ({"no_drafts": True}, {}, "no_drafts"),
        ({"foreign": 100}, {}, "foreign_traffic"),
        ({"name": "other"}, {}, "wrong_model"),
        ({"die": "request"}, {}, "completion_failed"),
        ({"reset": 4}, {}, "counters_reset"),
        ({"api_key": "key-12345678"}, {}, "unauthorized"),
    ],
)
def test_what_is_refused(settings: dict[str, Any], wanted: dict[str, Any], expected: str) -> None:
    with bench(wanted=wanted, **settings) as run:
        assert fails(run) == expected


def test_foreign_traffic_can_be_a_warning() -> None:
    with bench(wanted={"foreign_traffic": "warn"}, foreign=100, step=0.004) as run:
        (load,) = measured(run)["loads"]
    assert load["foreign_share"] == pytest.approx(1 / 3, abs=0.01)
    assert load["rate"]["tokens_per_second"] == load["rate"]["client"] and load["rate"]["server"] is None
    assert "8 requests ended meanwhile, 4 of them ours" in load["rate"]["because"]
    assert len(run.observer.warnings) == 1


def test_positions_have_rates_of_their_own() -> None:
    three = MTP | {"num_speculative_tokens": 3}
    with bench(wanted={"speculation": three}, speculation=three, acceptance=[0.7, 0.7, 0.1]) as run:
        (load,) = measured(run)["loads"]
    assert load["rates"] == pytest.approx([0.7, 0.49, 0.049], abs=0.02)


def test_drafts_that_are_never_accepted_are_a_result() -> None:
    with bench(acceptance=0.0) as run:
        (load,) = measured(run)["loads"]
    assert load["rates"] == [0.0]
    assert load["drafts"] > 700


def test_the_time_limit_says_how_far_it_got() -> None:
    with bench(wanted={"measure_timeout": 10}) as run:

        def say(text: str, every: float = 0.0) -> None:
            if "code" in text:
                run.observer.clock.now += 11

        run.observer.say = say
        with pytest.raises(Failed, match="only 2 of 4 requests by then"):
            run.run()


def test_two_witnesses_of_a_rate() -> None:
    with bench(replace(SHORT, kinds=("code",)), step=0.004) as run:
        (load,) = measured(run)["loads"]
    assert load["rate"]["witnesses"] == 2 and load["rate"]["because"] == ""
    assert (
        load["rate"]["tokens_per_second"] == load["rate"]["server"] == load["kinds"]["code"]["rate"]["server"]
    )
    assert load["rate"]["server"] == pytest.approx(load["rate"]["client"], rel=0.2)
    assert load["rate"]["client"] == pytest.approx(
        statistics.harmonic_mean(load["decode_tokens_per_second"]["samples"]), rel=1e-3
    )
    assert run.observer.warnings == []


def test_a_server_without_histograms_is_measured_by_the_clients_clock() -> None:
    with bench(replace(SHORT, kinds=("code",)), step=0.004, no_times=True) as run:
        (load,) = measured(run)["loads"]
    assert load["rate"]["tokens_per_second"] == load["rate"]["client"] > 0
    assert (load["rate"]["witnesses"], load["rate"]["server"]) == (1, None)
    assert load["rate"]["because"].startswith("one witness")


@pytest.mark.parametrize("no_times", [False, True])
def test_answers_that_are_held_back_have_no_rate(no_times: bool) -> None:
    with bench(step=0.004, held_back=True, no_times=no_times) as run:
        (load,) = measured(run)["loads"]
    assert load["tokens_per_second"] is load["decode_tokens_per_second"] is None
    for shown in (load["rate"], load["kinds"]["code"]["rate"], load["kinds"]["prose"]["rate"]):
        assert shown["tokens_per_second"] is None
        assert "expected each answer in at least 10 pieces" in shown["because"]
    # What no clock says is there all the same.
    assert load["rates"] == pytest.approx([0.69], abs=0.01)
    (warning,) = run.observer.warnings
    assert warning.startswith("concurrency 1: tok/s not measurable: code: expected each answer")


def test_a_replacement_meanwhile_is_noticed() -> None:
    container = FakeContainer()
    with bench(container=container) as run:

        def say(text: str, every: float = 0.0) -> None:
            if "prose" in text:
                container.states = lambda look: replace(STATE, id="b" * 64)

        run.observer.say = say
        assert fails(run) == "server_replaced"


def test_a_server_without_a_container() -> None:
    with bench(container=NoContainer()) as run:
        assert measured(run)["container"] is None
    with bench(container=NoContainer(), reset=4) as run, pytest.raises(Failed) as failure:
        run.run()
    assert failure.value.finding.code == "counters_reset"
    assert "container" not in str(failure.value)


# -- the figures


def answered(sent: float, first: float, last: float, tokens: int = 201) -> Completion:
    return Completion(tokens, "text", first, last, sent, pieces=200)


def test_a_load_in_figures() -> None:
    phases = {
        # Two streams side by side, of 201 tokens each: 100 and 50 tok/s.
        "code": Phase([answered(0.0, 0.5, 2.5), answered(0.0, 1.0, 5.0)], Delta(100, 200, 90, (60, 30), 402, 2, 6.25)),
        # Thirty seconds later, which are not of the load.
        "prose": Phase([answered(35.0, 35.2, 45.2), answered(36.0, 36.1, 41.1)], Delta(100, 200, 50, (40, 10), 402, 2, 15.0)),
    }  # fmt: skip
    figures = load(2, phases, Delta(200, 400, 140, (100, 40), 804, 4, 21.25), 0.125)
    assert figures["requests"] == 4
    assert figures["tokens"] == 804
    assert figures["seconds"] == 5.0 + 10.2
    assert figures["tokens_per_second"] == round(804 / 15.2, 3)
    assert figures["decode_tokens_per_second"]["samples"] == [100.0, 50.0, 20.0, 40.0]
    assert figures["decode_tokens_per_second"]["median"] == 45.0
    assert figures["time_to_first_token"]["samples"] == [0.5, 1.0, 0.2, 0.1]
    assert figures["rates"] == [0.5, 0.2]
    assert figures["standard_errors"] == [0.0354, 0.0283]
    assert figures["mean_acceptance_length"] == 1.7
    assert figures["kv_cache_usage"] == 0.125
    assert figures["foreign_share"] == 0.0
    assert figures["rate"] == {
        "tokens_per_second": round(800 / 21.25, 3), "client": round(800 / 21.0, 3), "server": round(800 / 21.25, 3),
        "witnesses": 2, "because": "",
    }  # fmt: skip
    code, prose = figures["kinds"]["code"], figures["kinds"]["prose"]
    assert (code["rate"]["tokens_per_second"], code["drafts"], code["rates"]) == (64.0, 100, [0.6, 0.3])
    assert (prose["rate"]["tokens_per_second"], prose["drafts"], prose["rates"]) == (26.667, 100, [0.4, 0.1])


def test_a_kind_without_a_rate_leaves_its_load_without_one() -> None:
    good = Phase([answered(0.0, 0.5, 2.5)] * 11, Delta(100, 100, 60, (60,), 2211, 11, 22.0))
    held_back = replace(answered(2.5, 4.5, 4.5), pieces=1)
    bad = Phase([held_back], Delta(10, 10, 6, (6,), 201, 1, 2.0))
    figures = load(1, {"code": good, "prose": bad}, Delta(110, 110, 66, (66,), 2412, 12, 24.0), None)
    assert figures["kinds"]["code"]["rate"]["tokens_per_second"] == 100.0
    assert figures["kinds"]["prose"]["rate"]["tokens_per_second"] is None
    assert figures["rate"]["tokens_per_second"] is None and figures["rate"]["because"].startswith(
        "prose: expected"
    )


def test_spread() -> None:
    samples = [3.0, 1.0, 2.0, 4.0]
    assert spread(samples, 3) == {
        "median": 2.5,
        "mean": 2.5,
        "sd": round(statistics.stdev(samples), 3),
        "minimum": 1.0,
        "maximum": 4.0,
        "samples": samples,
    }
    assert spread([1.23456], 2) == {
        "median": 1.23,
        "mean": 1.23,
        "sd": 0.0,
        "minimum": 1.23,
        "maximum": 1.23,
        "samples": [1.23],
    }
