# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A server over many looks: what is found, how soon, and what is not taken for a fault."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from ansible_collections.sparkfleet.vllm.plugins.module_utils._vllm.metrics import Counters
from ansible_collections.sparkfleet.vllm.plugins.module_utils._watchdog import judge
from ansible_collections.sparkfleet.vllm.plugins.module_utils._watchdog.judge import Judgement
from ansible_collections.sparkfleet.vllm.plugins.module_utils._watchdog.memory import Memory
from ansible_collections.sparkfleet.vllm.plugins.module_utils._watchdog.seen import (
    Canary,
    Container,
    Gpu,
    Look,
    Now,
    Record,
)
from ansible_collections.sparkfleet.vllm.plugins.module_utils._watchdog.settings import Settings

EVERY = 20.0
GIB = 1 << 30
RECORD = Record("gemma", "vllm", "http://127.0.0.1:8000", "gemma", 0.4, 200, speculates=True)
UNIT = {"there": True, "active": "active", "restarts": 0, "gave_up": False}
BROKEN = Canary("/v1/chat/completions: no end of the answer after 15 s", None, 15.0)


class Spark:
    """A Spark that is looked at every 20 seconds. The server does what a test makes of its counters."""

    def __init__(self, mode: str = "act") -> None:
        self.settings = Settings(mode=mode)
        self.memory = Memory()
        self.unix, self.steady, self.boot = 1_800_000_000.0, 5000.0, "one"
        self.container: Container | None = Container("c" * 64, "running", "2026-11-30T10:00:00Z")
        self.unit: dict[str, Any] = dict(UNIT)
        self.counters: Counters | None = Counters(
            drafts=1000,
            draft_tokens=1000,
            accepted=700,
            per_position={0: 700},
            generated=2000,
            iterations=1000,
            prompt=100,
            finished=5,
            running=0,
            waiting=0,
            process_start=1.0,
        )
        self.given: dict[str, Any] = {"available": 20 * GIB, "swapped_in": 0}
        self.answer = Canary("", 200, 0.1)
        """What a canary would be answered."""
        self.asked = 0
        """Canaries."""
        self.done: list[str] = []

    def look(self, **given: Any) -> Judgement:
        """One look, what is done about it, and the time until the next one."""
        now = Now(self.unix, self.steady, self.boot)
        unit: Mapping[str, Any] = self.unit
        look = Look(now, record=RECORD, container=self.container, unit=unit, counters=self.counters)
        look = replace(look, **{**self.given, **given})
        if judge.canary_due(self.memory, look, self.settings):
            self.asked += 1
            look = replace(look, canary=self.answer)
        judgement = judge.judge(self.memory, look, self.settings)
        self.memory = judgement.memory
        todo = judge.action(judgement, look, self.settings)
        if todo:
            self.done.append(todo)
            self.memory = judge.acted(self.memory, look, todo)
        self.pass_time(EVERY)
        return judgement

    def pass_time(self, seconds: float) -> None:
        self.unix += seconds
        self.steady += seconds

    def work(self, tokens: int = 400, drafts: int = 200, rate: float = 0.7, running: int = 4) -> None:
        """What a busy server does between two looks."""
        before = self.counters
        assert before
        accepted = round(drafts * rate)
        self.counters = replace(
            before,
            generated=(before.generated or 0) + tokens,
            iterations=(before.iterations or 0) + tokens // 2,
            finished=(before.finished or 0) + 1,
            drafts=(before.drafts or 0) + drafts,
            draft_tokens=(before.draft_tokens or 0) + drafts,
            accepted=(before.accepted or 0) + accepted,
            per_position={0: before.per_position[0] + accepted},
            running=running,
        )

    def start_anew(self, at: str) -> None:
        """Another life of the server, with counters from 0 on."""
        self.container = Container("c" * 64, "running", at)
        self.counters = Counters(
            drafts=0,
            draft_tokens=0,
            accepted=0,
            per_position={0: 0},
            generated=0,
            iterations=0,
            prompt=0,
            finished=0,
            running=0,
            waiting=0,
            process_start=hash(at) % 1000,
        )

    def wedge(self) -> None:
        """Requests come, and nothing is made."""
        self.work()
        self.look()

    def until_done(self, looks: int) -> tuple[Judgement, float]:
        """Looks until something is done, and the seconds that it took."""
        began, count = self.steady, len(self.done)
        for _each in range(looks):
            found = self.look()
            if len(self.done) > count:
                return found, self.steady - EVERY - began
        raise AssertionError(f"nothing was done in {looks} looks: {found.reason}")


def kinds(judgement: Judgement) -> list[str]:
    return [each.kind for each in judgement.findings]


# -- wedged


def test_a_healthy_loaded_server_over_ten_minutes() -> None:
    spark = Spark()
    for _each in range(31):
        spark.work()
        found = spark.look()
        assert (found.verdict, found.findings) == ("well", ())
    assert (spark.done, spark.asked) == ([], 0)


def test_a_healthy_idle_server_is_asked_once_a_minute() -> None:
    spark = Spark()
    for _each in range(31):
        assert spark.look().verdict == "well"
    assert spark.done == []
    assert 8 <= spark.asked <= 11


def test_frozen_counters_under_load_are_found_within_90_seconds() -> None:
    spark = Spark()
    spark.wedge()
    found, seconds = spark.until_done(10)
    assert (found.verdict, kinds(found), spark.done) == ("bad", ["wedged"], ["restart"])
    assert seconds + EVERY <= 90
    (wedged,) = found.findings
    assert (wedged.severity, wedged.seen) == ("act", "4 running, 0 waiting, no step for 40 s")


def test_a_long_prefill_moves_only_the_heartbeat() -> None:
    spark = Spark()
    spark.work()
    for _each in range(20):
        assert spark.counters
        spark.counters = replace(spark.counters, iterations=(spark.counters.iterations or 0) + 1)
        assert spark.look().findings == ()


def test_two_frozen_looks_are_not_enough_and_a_step_begins_anew() -> None:
    spark = Spark()
    for _each in range(10):
        spark.work()
        spark.look()
        assert spark.look().findings == ()  # frozen for 20 s
    assert spark.done == []


def test_without_requests_frozen_counters_mean_nothing() -> None:
    spark = Spark()
    for _each in range(10):
        assert spark.look().findings == ()


def test_what_waits_for_a_grammar_is_not_wedged() -> None:
    spark = Spark()
    assert spark.counters
    spark.counters = replace(spark.counters, waiting=1)
    for _each in range(10):
        assert spark.look().findings == ()


def test_observe_finds_the_same_and_does_nothing() -> None:
    spark = Spark("observe")
    spark.wedge()
    found = [spark.look() for _each in range(5)]
    assert kinds(found[-1]) == ["wedged"]
    assert "systemctl restart vllm.service" in found[-1].findings[0].do
    assert spark.done == []
    assert len({each.memory.since["wedged"] for each in found[2:]}) == 1


def test_a_server_without_a_unit_is_not_touched() -> None:
    spark = Spark()
    spark.unit = {"there": False, "active": "", "restarts": 0, "gave_up": False}
    spark.wedge()
    assert "by hand" in [spark.look() for _each in range(5)][-1].findings[0].do
    assert spark.done == []


def test_a_run_at_work_is_never_disturbed_and_what_was_frozen_meanwhile_begins_anew() -> None:
    spark = Spark()
    spark.wedge()
    for _each in range(10):
        found = spark.look(run="me@there (site.yml, process 1)")
        assert (found.verdict, kinds(found)) == ("held", [])
    assert (spark.done, spark.asked) == ([], 0)
    assert spark.look().verdict == "well"
    spark.until_done(5)


# -- restarts, and their bound


def served_again_and_wedged(spark: Spark, at: str) -> None:
    spark.start_anew(at)
    spark.counters, counters = None, spark.counters
    assert spark.look(silent="refused").verdict == "starting"
    spark.counters = counters
    spark.wedge()


def test_the_third_time_in_the_hour_it_stays_down_until_somebody_starts_it() -> None:
    spark = Spark()
    spark.wedge()
    spark.until_done(5)
    served_again_and_wedged(spark, "b")
    spark.until_done(5)
    served_again_and_wedged(spark, "c")
    spark.until_done(5)
    assert spark.done == ["restart", "restart", "stop"]
    # It still ends, and is told once more to.
    assert (spark.look().verdict, spark.done[-1]) == ("down", "stop")
    assert spark.container
    spark.container = replace(spark.container, status="exited")
    for _each in range(5):
        assert spark.look().verdict == "down"
    assert len(spark.done) == 4
    spark.start_anew("d")
    assert spark.look().verdict == "well"
    assert spark.memory.restarts == ()


def test_restarts_of_more_than_an_hour_ago_do_not_count() -> None:
    spark = Spark()
    for at in "abcd":
        spark.wedge()
        spark.until_done(5)
        spark.pass_time(3600)
        spark.start_anew(at)
        spark.look()
    assert spark.done == ["restart"] * 4


@pytest.mark.parametrize("jump", [-86400.0, 86400.0])
def test_a_clock_that_jumps_neither_forgets_restarts_nor_finds_anything(jump: float) -> None:
    spark = Spark()
    spark.wedge()
    spark.until_done(5)
    spark.start_anew("b")
    spark.look()
    spark.unix += jump
    for _each in range(5):
        spark.work()
        assert spark.look().findings == ()
    spark.wedge()
    spark.until_done(5)
    served_again_and_wedged(spark, "c")
    spark.until_done(5)
    assert spark.done == ["restart", "restart", "stop"]


def test_a_boot_begins_anew_but_for_restarts() -> None:
    spark = Spark()
    spark.wedge()
    spark.until_done(5)
    spark.boot, spark.steady = "two", 30.0
    spark.start_anew("after the boot")
    assert spark.look().verdict == "well"
    assert len(spark.memory.recent(Now(spark.unix, spark.steady, "two"))) == 1


# -- the canary


def test_a_canary_that_fails_three_times_restarts_an_idle_server() -> None:
    spark = Spark()
    spark.look()
    spark.answer = BROKEN
    found, seconds = spark.until_done(20)
    assert (kinds(found), spark.asked) == (["canary"], 3)
    assert "3 failed in a row" in found.findings[0].seen
    assert seconds <= 60 + 3 * EVERY


def test_tokens_of_others_say_that_it_works_whatever_canaries_said() -> None:
    spark = Spark()
    spark.look()
    spark.answer = BROKEN
    spark.look()
    spark.look()
    spark.work(running=0)
    for _each in range(3):
        assert spark.look().findings == ()
        spark.work(running=0)
    # The next failure is the first of a row again.
    for _each in range(3):
        spark.look()
    assert (spark.asked, spark.done, spark.memory.canary_failed) == (4, [], 2)


def test_a_refused_canary_is_told_and_never_restarts() -> None:
    spark = Spark()
    spark.look()
    spark.answer = Canary("/v1/chat/completions answers 401: Unauthorized", 401)
    found = [spark.look() for _each in range(20)][-1]
    assert [(each.kind, each.severity) for each in found.findings] == [("canary", "tell")]
    assert spark.done == []
    spark.answer = Canary("", 200)
    assert [spark.look() for _each in range(5)][-1].findings == ()


# -- a member of a unit


def says(phase: str, generation: str = "a1", **more: Any) -> dict[str, Any]:
    """What the supervisor of a member says."""
    known = {"phase": phase, "generation": generation, "unit": "pair", "rank": 1, "restarts": 0}
    return known | {"why": "", "problem": "" if phase else "none"} | more


WORKER = replace(RECORD, base_url="", rank=1, speculates=False)
HEAD = replace(RECORD, rank=0)


def test_a_worker_is_well_while_its_supervisor_runs_it_and_nobody_asks_it() -> None:
    spark = Spark()
    spark.counters = None
    for _each in range(100):
        found = spark.look(record=WORKER, member=says("running"))
        assert (found.verdict, found.findings) == ("well", ())
    assert (spark.asked, spark.done) == (0, [])
    assert found.reason == "runs as rank 1 of pair"


@pytest.mark.parametrize(
    ("member", "verdict", "word"),
    [
        (says("waiting", why="rank 0: gone"), "starting", "waiting, for all members of the unit; it ended: rank 0"),
        (says("starting"), "starting", "starting, for all"),
        (says("ending"), "starting", "ending, for all"),
        (says("down", restarts=5, why="rank 1: died"), "bad", "unit: down after 5 ends within an hour: rank 1: died"),
        (says(""), "bad", "unit: none (look 100)"),
    ],
)  # fmt: skip
def test_a_worker_is_never_restarted(member: dict[str, Any], verdict: str, word: str) -> None:
    spark = Spark()
    spark.counters = None
    found = [spark.look(record=WORKER, member=member) for _each in range(100)][-1]
    assert (found.verdict, spark.done) == (verdict, []) and word in found.reason
    assert [(each.kind, each.severity) for each in found.findings] == [("unit", "tell")] * (verdict == "bad")


def test_a_worker_that_says_nothing_once_is_not_judged() -> None:
    spark = Spark()
    for _each in range(5):
        assert spark.look(record=WORKER, member=says("")).verdict == "unknown"
        assert spark.look(record=WORKER, member=says("")).verdict == "unknown"
        assert spark.look(record=WORKER, member=says("running")).verdict == "well"


@pytest.mark.parametrize("phase", ["waiting", "ending", "down"])
def test_a_head_whose_worker_is_away_is_not_restarted(phase: str) -> None:
    """Two restarts an hour, and it would stay down when the worker is back."""
    spark = Spark()
    assert spark.look(record=HEAD, member=says("running")).verdict == "well"
    spark.counters = None
    verdicts = {spark.look(record=HEAD, member=says(phase, rank=0)).verdict for _each in range(100)}
    assert (verdicts, spark.done) == ({"bad" if phase == "down" else "starting"}, [])


def test_a_head_has_as_long_as_a_start_may_take_in_each_generation() -> None:
    spark = Spark()
    spark.look(record=HEAD, member=says("running"))
    spark.counters = None
    for _each in range(60):
        assert spark.look(record=HEAD, member=says("running", "b2")).verdict == "starting"
    assert spark.done == []
    for _each in range(3):
        spark.look(record=HEAD, member=says("running", "b2"))
    assert spark.done == ["restart"], "a server of its own that never answers is its fault"


def test_a_head_that_serves_is_judged_as_any_server() -> None:
    spark = Spark()
    spark.look(record=HEAD, member=says("running"))
    spark.answer = BROKEN
    for _each in range(10):
        spark.look(record=HEAD, member=says("running"))
    assert "restart" in spark.done


# -- no answer


def test_a_server_that_no_longer_answers_is_restarted_at_the_third_look() -> None:
    spark = Spark()
    spark.look()
    spark.counters = None
    found, seconds = spark.until_done(5)
    assert (kinds(found), spark.done, seconds) == (["not-answering"], ["restart"], 2 * EVERY)


def test_a_server_that_answers_now_and_then_is_left_alone() -> None:
    spark = Spark()
    for _each in range(6):
        spark.work()
        spark.look()
        counters, spark.counters = spark.counters, None
        assert spark.look(silent="timed out").verdict == "unknown"
        assert spark.look(silent="timed out").verdict == "unknown"
        spark.counters = counters
    assert spark.done == []


def test_a_start_may_take_as_long_as_it_may() -> None:
    spark = Spark()
    spark.counters = None
    for _each in range(60):
        assert spark.look().verdict == "starting"
    assert spark.done == []
    found, _seconds = spark.until_done(4)
    assert kinds(found) == ["not-answering"]


@pytest.mark.parametrize(
    ("container", "unit", "verdict"),
    [
        (None, {"active": "inactive"}, "stopped"),
        ("exited", {"active": "inactive"}, "stopped"),
        ("paused", {"active": "inactive"}, "stopped"),
        ("exited", {"active": "activating"}, "starting"),
        ("running", {"active": "deactivating"}, "stopped"),
        ("exited", {"active": "failed", "gave_up": True}, "bad"),
    ],
)
def test_a_server_that_nobody_wants_is_not_started(
    container: str | None, unit: dict[str, Any], verdict: str
) -> None:
    spark = Spark()
    spark.look()
    spark.unit |= unit
    spark.container = Container("c" * 64, container, "a") if container else None
    spark.counters = None
    for _each in range(5):
        found = spark.look()
        assert found.verdict == verdict
    assert spark.done == []
    assert kinds(found) == (["restarts"] if verdict == "bad" else [])


def test_without_a_record_nothing_is_watched() -> None:
    spark = Spark()
    assert spark.look(record=None, container=None, counters=None).verdict == "stopped"


# -- what is told


def test_acceptance_below_the_floor_is_told_until_it_is_back_and_nothing_is_restarted() -> None:
    spark = Spark()
    for _each in range(3):
        spark.work()
        found = spark.look()
    assert (found.verdict, found.speculation) == (
        "well",
        {"drafts": 200, "acceptance_rate": 0.7, "floor": 0.4},
    )
    for _each in range(3):
        spark.work(rate=0.1)
        found = spark.look()
    assert [(each.kind, each.severity) for each in found.findings] == [("acceptance", "tell")]
    assert found.findings[0].seen == "0.100 over 200 drafts"
    since = found.memory.since["acceptance"]
    spark.work(drafts=199, rate=1.0)
    assert spark.look().memory.since == {"acceptance": since}  # not enough drafts to say
    spark.work(rate=0.5)
    assert spark.look().findings == ()
    assert spark.done == []


def test_acceptance_of_a_new_process_is_not_beside_that_of_the_old_one() -> None:
    spark = Spark()
    spark.work()
    spark.look()
    spark.start_anew("b")
    spark.work(drafts=2000, rate=0.7)
    assert spark.look().findings == ()
    assert spark.memory.window == {"start": spark.counters and spark.counters.process_start} | {
        "drafts": 2000,
        "first": 1400,
    }


def test_a_server_process_that_began_anew_in_its_container_has_a_window_of_its_own() -> None:
    spark = Spark()
    spark.look()
    before = spark.counters
    spark.start_anew("b")
    spark.container = Container("c" * 64, "running", "2026-11-30T10:00:00Z")
    assert before and spark.counters and before.process_start != spark.counters.process_start
    spark.look()
    spark.work(drafts=300, rate=0.1)
    assert kinds(spark.look()) == ["acceptance"]


def test_what_a_run_measures_is_no_acceptance_of_users() -> None:
    spark = Spark()
    spark.look()
    for _each in range(3):
        spark.work(rate=0.0)
        spark.look(run="me")
    assert spark.look().findings == ()


def test_memory_and_swap_are_told() -> None:
    spark = Spark()
    spark.look()
    spark.given = {"available": 3 * GIB, "swapped_in": 400 << 20}
    found = spark.look()
    assert [(each.kind, each.severity) for each in found.findings] == [("memory", "tell"), ("swap", "tell")]
    assert [each.seen for each in found.findings] == ["3.0 GiB", "20 MiB a second"]
    spark.given = {"available": 4 * GIB, "swapped_in": 500 << 20}
    assert spark.look().findings == ()
    assert spark.done == []


def test_a_busy_gpu_without_power_and_lowered_clocks_are_told_at_the_second_look() -> None:
    spark = Spark()
    for gpu, seen in [
        (Gpu(96.0, 12.0, 208.0), "12.0 W at 96 % utilization"),
        (Gpu(96.0, 60.0, 900.0, ("heat",)), "lowered by heat at 900 MHz"),
    ]:
        spark.work()
        assert spark.look(gpu=gpu).findings == ()
        spark.work()
        assert [(each.kind, each.severity, each.seen) for each in spark.look(gpu=gpu).findings] == [
            ("gpu", "tell", seen)
        ]
        spark.work()
        assert spark.look(gpu=Gpu(96.0, 60.0, 2400.0)).findings == ()
    for _each in range(3):
        spark.work()
        assert spark.look(gpu=Gpu(None, None, None)).findings == ()


def test_a_hung_nvidia_smi_is_asked_again_after_ten_minutes() -> None:
    spark = Spark()
    at = spark.steady
    spark.look(gpu=Gpu(silent=True))
    spark.look(gpu=Gpu())
    assert spark.memory.ask_gpu_from == at + 600


def test_starts_by_systemd_are_told_but_not_those_of_a_run_or_of_the_watchdog() -> None:
    spark = Spark()
    spark.look()
    spark.unit["restarts"] = 1
    spark.look(run="me")
    assert spark.look().findings == ()
    spark.unit["restarts"] = 3
    found = spark.look()
    assert [(each.kind, each.severity) for each in found.findings] == [("restarts", "tell")]
    assert "2 times" in found.findings[0].seen
    spark.pass_time(3600)
    assert spark.look().findings == ()
    spark.wedge()
    spark.until_done(5)
    spark.unit["restarts"] = 4
    spark.start_anew("b")
    assert spark.look().findings == ()
