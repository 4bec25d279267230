# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whole runs of the gate: a real HTTP server (the lab's stub, in this process) in a container that is made up."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
from ansible_collections.sparkfleet.vllm.plugins.module_utils._gate import observed
from ansible_collections.sparkfleet.vllm.plugins.module_utils._gate.container import FileSeen, LogLine
from ansible_collections.sparkfleet.vllm.plugins.module_utils._gate.diagnosis import Wanted, WantedFile
from ansible_collections.sparkfleet.vllm.plugins.module_utils._gate.gate import Gate
from ansible_collections.sparkfleet.vllm.plugins.module_utils._gate.observed import Failed, Observer
from ansible_collections.sparkfleet.vllm.plugins.module_utils._vllm.client import Server, ServerError
from helpers.gate import GOOD_LOG, MTP, STATE, Clock, FakeContainer
from helpers.stub_server import serving

DEATH = "(EngineCore pid=2) ERROR 11-23 21:00:09 [core.py:1011] ValueError: the cause"


@contextmanager
def gate(
    container: FakeContainer | None = None, wanted: dict[str, Any] | None = None, **settings: Any
) -> Any:
    """A gate in front of a stub with these settings."""
    options: dict[str, Any] = {"speculation": MTP, "acceptance_floor": 0.4} | (wanted or {})
    clock = Clock()
    with serving(**({"name": "huihui-gemma4"} | settings)) as (_, url):
        yield Gate(
            Observer(
                Wanted("vllm", "huihui-gemma4", **options),
                container or FakeContainer(),
                Server(url),
                clock=clock,
                sleep=clock.sleep,
            )
        )


def fails(run: Gate) -> str:
    with pytest.raises(Failed) as failure:
        run.run()
    assert run.observer.result.get("verdict") != "pass"
    return failure.value.finding.code


def besides_the_rate(run: Gate) -> list[str]:
    """Warnings, without the one that steps which take no time cannot be timed."""
    return [warning for warning in run.observer.warnings if not warning.startswith("tok/s not measurable")]


def test_pass() -> None:
    with gate(step=0.004) as run:
        run.run()
        result = run.observer.result
    assert (result["verdict"], result["diagnosis"]) == ("pass", "ok")
    assert result["acceptance_rate"] == pytest.approx(0.69, abs=0.005)
    assert result["drafts"] == result["draft_tokens"] >= 200
    assert result["accepted_per_position"] == [result["accepted"]]
    assert result["mean_acceptance_length"] == pytest.approx(1.69, abs=0.005)
    assert result["container"] == {"id": "a" * 64, "started_at": STATE.started_at, "image": "vllm@sha256:1"}
    assert result["prompts"] == 4
    assert result["foreign_share"] == 0.0
    # Both are rounded from one figure, to one digit and to three.
    assert 0 < result["decode_tokens_per_second"] == pytest.approx(result["rate"]["server"], abs=0.051)
    assert (result["rate"]["witnesses"], result["rate"]["because"]) == (2, "")
    assert result["ready_seconds"] == 0.0
    assert run.observer.warnings == []


def test_a_worker_is_asked_nothing_and_its_container_and_files_are_checked() -> None:
    container = FakeContainer()
    container.files["/p.py"] = FileSeen("m", "s", 0.0)
    worker = {"headless": True, "speculation": None, "acceptance_floor": 0.0, "minimum_drafts": 0}
    wanted = worker | {"image": "other/vllm@sha256:1", "files": (WantedFile("/p.py", "m", "s"),)}
    with gate(container, wanted) as run:
        run.run()
    assert (run.observer.result["verdict"], run.observer.result["files"][0]["ok"]) == ("pass", True)
    assert "ready_at" not in run.observer.result and "drafts" not in run.observer.result
    with gate(container, wanted | {"image": "vllm@sha256:2"}) as run:
        assert fails(run) == "wrong_image"
    container.files["/p.py"] = FileSeen("m", "another", 0.0)
    with gate(container, wanted) as run:
        assert fails(run) == "patch_not_applied"
    container.states = lambda look: replace(STATE, status="exited")
    with gate(container, worker) as run:
        assert fails(run) == "server_died"


def test_a_stream_that_is_held_back_has_no_rate_and_passes() -> None:
    with gate(step=0.001, held_back=True) as run:
        run.run()
    assert run.observer.result["verdict"] == "pass"
    assert run.observer.result["decode_tokens_per_second"] is None
    assert "expected each answer in at least 10 pieces" in run.observer.result["rate"]["because"]
    (warning,) = run.observer.warnings
    assert warning == f"tok/s not measurable: {run.observer.result['rate']['because']}"


def test_pass_with_several_engines_and_positions() -> None:
    speculation = MTP | {"num_speculative_tokens": 3}
    with gate(wanted={"speculation": speculation}, speculation=speculation, engines=2) as run:
        run.run()
        rates = run.observer.result["rates"]
    assert rates == pytest.approx([0.69, 0.69**2, 0.69**3], abs=0.02)


def test_positions_that_are_of_no_use_are_a_warning() -> None:
    speculation = MTP | {"num_speculative_tokens": 3}
    wanted = {"speculation": speculation, "acceptance_floor": 0.1, "minimum_drafts": 400}
    with gate(wanted=wanted, speculation=speculation, acceptance=0.2) as run:
        run.run()
    (warning,) = besides_the_rate(run)
    assert "draft position 1 was right in" in warning and "num_speculative_tokens to 1" in warning


def unit_of_two(*lines: str) -> FakeContainer:
    container = FakeContainer([*GOOD_LOG, *lines])
    state = replace(STATE, argv=(*STATE.argv, "--nnodes", "2"), rdma="rocep1s0f0,roceP2p1s0f0")
    container.states = lambda look: state
    return container


def test_a_unit_that_fell_back_to_tcp_passes_with_a_warning() -> None:
    with gate(unit_of_two("spark-1:7:9 [0] NCCL INFO Using network Socket")) as run:
        run.run()
    (warning,) = besides_the_rate(run)
    assert "expected NET/IB alone" in warning and "seen NET/Socket" in warning
    assert run.observer.result["network"] == {"used": ["Socket"], "nccl": None}
    assert run.observer.result["verdict"] == "pass"


def test_a_unit_over_rdma_has_no_warning_and_one_spark_no_network() -> None:
    with gate(unit_of_two("spark-1:7:9 [0] NCCL INFO Using network IB")) as run:
        run.run()
    assert besides_the_rate(run) == []
    assert run.observer.result["network"] == {"used": ["IB"], "nccl": None}
    with gate() as run:
        run.run()
    assert "network" not in run.observer.result


def test_pass_without_speculation_asks_for_nothing_more_than_an_answer() -> None:
    with gate(wanted={"speculation": None}, speculation=None) as run:
        run.run()
        assert "drafts" not in run.observer.result
        assert run.observer.result["verdict"] == "pass"


@pytest.mark.parametrize(
    ("settings", "wanted", "expected"),
    [
        ({"acceptance": 0.0}, {}, "drafts_never_accepted"),
        ({"acceptance": 0.2}, {}, "acceptance_below_floor"),
        ({"no_drafts": True}, {}, "no_drafts"),
        ({"no_spec": True}, {}, "speculation_ignored"),
        ({"no_stats": True}, {}, "speculation_absent"),
        ({}, {"speculation": None}, "speculation_unexpected"),
        ({}, {"speculation": MTP | {"num_speculative_tokens": 2}}, "speculation_mismatch"),
        ({"name": "other"}, {}, "wrong_model"),
        ({"api_key": "not-ours-1"}, {}, "unauthorized"),
        ({"empty": True}, {}, "completion_failed"),
        ({"die": "request"}, {}, "completion_failed"),  # the container lives on: no death to tell of
        ({"foreign": 100}, {}, "foreign_traffic"),
        ({"reset": 3}, {}, "counters_reset"),
        ({}, {"measure_timeout": -1, "minimum_drafts": 100000}, "too_few_drafts"),
    ],
)
def test_failures_of_the_server(settings: dict[str, Any], wanted: dict[str, Any], expected: str) -> None:
    with gate(wanted=wanted, **settings) as run:
        assert fails(run) == expected


def test_foreign_traffic_can_be_a_warning() -> None:
    with gate(wanted={"foreign_traffic": "warn"}, foreign=100) as run:
        run.run()
        assert run.observer.result["foreign_share"] == pytest.approx(400 / 1424, abs=1e-3)
        assert len(besides_the_rate(run)) == 1


def test_what_was_measured_comes_with_the_failure() -> None:
    with gate(acceptance=0.2) as run:
        fails(run)
        assert run.observer.result["acceptance_rate"] == 0.2
        assert run.observer.result["served_model"] == "huihui-gemma4"


def test_an_undecided_rate_is_measured_longer() -> None:
    with gate(acceptance=0.41) as run:
        run.run()
        undecided = run.observer.result["drafts"]
    with gate(acceptance=0.69) as run:
        run.run()
        decided = run.observer.result["drafts"]
    assert undecided >= 800 > decided


# -- the container


def test_no_container() -> None:
    container = FakeContainer()
    container.states = lambda look: None
    with gate(container) as run:
        assert fails(run) == "container_missing"


def test_a_container_that_has_ended_is_not_waited_for() -> None:
    container = FakeContainer([*GOOD_LOG, DEATH])
    container.states = lambda look: replace(STATE, status="exited", exit_code=1)
    with gate(container) as run:
        assert fails(run) == "server_died"
        assert run.observer.clock.now == 0
        assert run.observer.result["log_tail"][-1] == DEATH


def test_a_death_after_a_failed_request_is_told_by_its_cause() -> None:
    container = FakeContainer([*GOOD_LOG, DEATH])
    # Bound, ready, seen alive after the failed answer, then gone: the engine dies before its API server.
    container.states = lambda look: STATE if look < 6 else replace(STATE, status="exited", exit_code=1)
    with (
        gate(container, die="request") as run,
        pytest.raises(Failed, match="vLLM died: ValueError: the cause"),
    ):
        run.run()


def test_a_restart_by_the_engine_is_a_death() -> None:
    container = FakeContainer([*GOOD_LOG, DEATH])
    restarted = replace(STATE, started_at="2026-11-23T21:00:30.000000000Z", restarts=1)
    container.states = lambda look: STATE if look < 3 else restarted
    with gate(container, die="request") as run:
        assert fails(run) == "server_died"


@pytest.mark.parametrize("look", [2, 3, 4])
def test_a_replacement_is_noticed_whenever_it_happens(look: int) -> None:
    container = FakeContainer()
    container.states = lambda now: STATE if now < look else replace(STATE, id="b" * 64)
    with gate(container) as run:
        assert fails(run) == "server_replaced"


# -- files

WANTED_FILE = WantedFile("/opt/p.py", "1" * 32, "2" * 64, "/srv/p.py")
LOCKED = FileSeen("1" * 32, "2" * 64, STATE.started - 1)


def test_the_locked_file_is_reported() -> None:
    container = FakeContainer()
    container.files = {"/opt/p.py": LOCKED, "host:/srv/p.py": LOCKED}
    with gate(container, wanted={"files": (WANTED_FILE,)}) as run:
        run.run()
        assert run.observer.result["files"][0]["ok"] is True
        assert run.observer.result["files"][0]["host_md5"] == "1" * 32


def test_a_wrong_file_fails_before_anything_is_waited_for() -> None:
    container = FakeContainer()
    container.files = {"/opt/p.py": FileSeen("8" * 32, "9" * 64, 0.0), "host:/srv/p.py": LOCKED}
    with gate(container, wanted={"files": (WANTED_FILE,)}, acceptance=0.0) as run:
        assert fails(run) == "patch_not_applied"
        assert container.looks == 1
        assert "drafts" not in run.observer.result


def test_a_file_that_changes_meanwhile_is_noticed() -> None:
    container = FakeContainer()
    container.files = {"/opt/p.py": LOCKED, "host:/srv/p.py": LOCKED}
    with gate(container, wanted={"files": (WANTED_FILE,)}) as run:

        def say(text: str, every: float = 0.0) -> None:
            if "drafts" in text:
                container.files["/opt/p.py"] = replace(LOCKED, changed=STATE.started + 500)

        run.observer.say = say
        assert fails(run) == "file_newer_than_process"


def test_an_unknown_age_is_a_warning() -> None:
    container = FakeContainer()
    container.files = {"/opt/p.py": replace(LOCKED, changed=None), "host:/srv/p.py": LOCKED}
    with gate(container, wanted={"files": (WANTED_FILE,)}) as run:
        run.run()
        assert besides_the_rate(run) == [
            "/opt/p.py: whether it changed after vLLM started is unknown; run as root to see"
        ]


# -- readiness


class Unready:
    """A server that gets ready after so many looks, or never."""

    def __init__(self, server: Any, looks: int) -> None:
        self._server = server
        self._looks = looks

    def healthy(self) -> bool:
        self._looks -= 1
        return self._looks < 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._server, name)


def test_waiting_says_what_vllm_does() -> None:
    said: list[str] = []
    with gate() as run:
        run.observer.say = lambda text, every=0.0: said.append(text)
        run.observer.server = Unready(run.observer.server, 20)
        run.observer.container.lines += [
            LogLine(
                "2026-11-23T21:00:10.000000000Z",
                "Loading safetensors checkpoint shards:  50% Completed | 3/6",
            ),
        ]
        run.run()
        assert "vLLM: loading weights 3/6" in said
        assert run.observer.result["ready_seconds"] == 20.0


def test_a_stuck_server_is_given_up_by_the_idle_limit() -> None:
    with gate(wanted={"idle_timeout": 30, "ready_timeout": 1000}) as run:
        run.observer.server = Unready(run.observer.server, 10**6)
        assert fails(run) == "not_ready"
        assert 30 < run.observer.clock.now < 40
        assert run.observer.result["log_tail"][-1].endswith("num_spec_tokens=1)")


class Talking(FakeContainer):
    """Says a new line every 10 seconds of the clock that it is given."""

    clock: Clock
    text = "Loading safetensors checkpoint shards:  10% Completed | 1/9"

    def log(self, since: float, until: float | None = None, tail: int | None = None) -> Sequence[LogLine]:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(STATE.started + self.clock.now // 10 * 10))
        return [LogLine(f"{stamp}.000000000Z", self.text)]


@pytest.mark.parametrize(
    ("text", "waited"),
    [
        (Talking.text, 200),  # progress keeps it going until the absolute limit
        (
            'INFO:     127.0.0.1:1 - "GET /health HTTP/1.1" 503 Service Unavailable',
            30,
        ),  # a clock is no progress
    ],
)
def test_progress_and_only_progress_postpones_the_idle_limit(text: str, waited: float) -> None:
    container = Talking()
    container.text = text
    with gate(container, wanted={"idle_timeout": 30, "ready_timeout": 200}) as run:
        container.clock = run.observer.clock
        run.observer.server = Unready(run.observer.server, 10**6)
        assert fails(run) == "not_ready"
        assert waited < run.observer.clock.now < waited + 5


def test_a_server_that_stops_answering_in_the_middle() -> None:
    with gate() as run:

        def break_off(*args: Any) -> Any:
            raise ServerError("/v1/chat/completions: ConnectionResetError: reset")

        run.observer.server.stream_all = break_off
        assert fails(run) == "completion_failed"
        assert run.observer.clock.now >= observed.DEATH_WATCH
