# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The members of a unit as data: who starts and ends when, whatever the order in which they hear of each other."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from dataclasses import replace

import pytest
from ansible_collections.sparkfleet.vllm.plugins.module_utils._unit.machine import (
    HOUR,
    QUICKLY,
    Head,
    Rules,
    Worker,
)

RULES = Rules(nodes=3, restarts=2, start_within=100, pause=5, stop_within=60)


def generations() -> Iterator[str]:
    return (f"{number:016x}" for number in itertools.count(1))


class Unit:
    """A head and two workers. Servers start and end at once; a test says when lines go."""

    def __init__(self, nodes: int = 3) -> None:
        self.now = 0.0
        drawn = generations()
        rules = Rules(nodes, RULES.restarts, RULES.start_within, RULES.pause, RULES.stop_within)
        self.rules, self._draw = rules, lambda: next(drawn)
        self.head = Head(rules, 0.0, self._draw)
        self.workers = {rank: Worker(rank, rules, 0.0) for rank in range(1, nodes)}
        self.cut: set[int] = set()
        """Ranks whose link is down."""
        self.slow: set[int] = set()
        """Ranks whose server takes its time to end."""
        self.ran: list[dict[int, str]] = []
        """Which servers there were, by rank, each time that this changed."""

    def members(self) -> list[Head | Worker]:
        return [self.head, *self.workers.values()]

    def act(self) -> None:
        for member in self.members():
            member.tick(self.now)
            if member.starts:
                member.started(self.now)
            elif member.phase == "ending" and member.rank not in self.slow:
                member.gone(self.now)
        there = {member.rank: member.generation for member in self.members() if member.there}
        if not self.ran or self.ran[-1] != there:
            self.ran.append(there)

    def talk(self, rank: int) -> None:
        if rank not in self.cut:
            self.head.heard(rank, self.workers[rank].says(self.now), self.now)
            self.workers[rank].heard(0, self.head.says(self.now), self.now)

    def pass_time(self, seconds: float = 1.0) -> None:
        """Each second, all act and all talk."""
        for _each in range(int(seconds)):
            self.now += 1
            self.act()
            for rank in self.workers:
                self.talk(rank)
            self.act()

    def lose(self, rank: int) -> None:
        """As both ends see it in the end."""
        self.cut.add(rank)
        self.head.lost(rank, "was silent for 15 s", self.now)
        self.workers[rank].lost(0, "was silent for 15 s", self.now)

    def phases(self) -> list[str]:
        return [member.phase for member in self.members()]

    def running(self) -> str:
        """The generation in which all run."""
        (found,) = {(member.phase, member.generation) for member in self.members()}
        assert found[0] == "running"
        return found[1]


@pytest.fixture
def unit() -> Unit:
    made = Unit()
    made.pass_time(5)
    return made


def test_all_start_in_one_generation_once_all_are_there():
    unit = Unit()
    unit.cut = {2}
    unit.pass_time(1000)
    assert unit.phases() == ["waiting"] * 3
    assert unit.head.restarts(unit.now) == 0
    unit.cut = set()
    unit.pass_time(5)
    assert unit.running() == f"{1:016x}"


@pytest.mark.parametrize("rank", [0, 1, 2])
def test_the_end_of_one_server_is_the_end_of_all_and_then_all_start_anew(unit: Unit, rank: int):
    first = unit.running()
    unit.members()[rank].end("its server ended with status 0", unit.now)
    unit.pass_time(2)
    assert unit.phases() == ["waiting"] * 3
    assert {member.why for member in unit.members()} == {
        "its server ended with status 0",
        f"rank {rank}: its server ended with status 0" if rank else "its server ended with status 0",
    }
    unit.pass_time(RULES.pause + 2)
    assert unit.running() != first
    assert unit.head.restarts(unit.now) == 1


def test_nobody_starts_before_the_last_server_has_gone(unit: Unit):
    unit.slow = {2}
    unit.head.end("its server was killed by signal 9", unit.now)
    unit.pass_time(100)
    assert unit.phases() == ["waiting", "waiting", "ending"]
    unit.slow = set()
    unit.pass_time(5)
    unit.running()


def test_a_lost_worker_ends_the_others_and_itself_and_comes_back_by_itself(unit: Unit):
    first = unit.running()
    unit.lose(1)
    assert unit.phases() == ["ending", "ending", "running"]
    unit.pass_time(30)
    assert unit.phases() == ["waiting"] * 3
    assert unit.workers[2].why == "rank 1 was silent for 15 s"
    unit.cut = set()
    unit.pass_time(5)
    assert unit.running() != first


def test_a_worker_joins_no_generation_a_second_time(unit: Unit):
    """It ended one, and a line of the head that was on its way still names it."""
    late = unit.head.says(unit.now)
    unit.workers[1].end("its server ended with status 1", unit.now)
    unit.workers[1].gone(unit.now)
    unit.workers[1].heard(0, late, unit.now)
    assert unit.workers[1].phase == "waiting"
    # It waited when the head heard of it next: that is the end of a generation, too.
    unit.talk(1)
    assert unit.head.phase == "ending"


def test_a_worker_ends_when_the_head_runs_without_it(unit: Unit):
    word = replace(unit.head.says(unit.now), run="f" * 16, generation="f" * 16, why="")
    unit.workers[1].heard(0, word, unit.now)
    assert (unit.workers[1].phase, unit.workers[1].why) == ("ending", "the head is in another generation")


def test_a_new_head_does_not_take_the_servers_of_the_old_one(unit: Unit):
    unit.head = Head(unit.rules, unit.now, lambda: "f" * 16)
    for rank in (1, 2):
        unit.talk(rank)
    assert unit.phases() == ["waiting", "ending", "ending"]
    unit.pass_time(5)
    assert unit.running() == "f" * 16


def test_no_two_generations_ever_run_at_once_whoever_fails_when():
    """A thousand seconds of bad luck, and then a calm in which all run."""
    chance = random.Random(7)
    unit = Unit()
    unit.rules = Rules(3, 10_000, RULES.start_within, 1, RULES.stop_within)
    unit.head = Head(unit.rules, 0.0, lambda: f"{chance.getrandbits(64):016x}")
    for _each in range(1000):
        rank = chance.randrange(3)
        what = chance.random()
        if what < 0.1:
            unit.members()[rank].end("its server ended with status 1", unit.now)
        elif what < 0.2 and rank:
            unit.lose(rank)
        elif what < 0.5:
            unit.cut.discard(rank)
        unit.slow = {rank} if what > 0.8 else set()
        unit.pass_time()
    unit.cut, unit.slow = set(), set()
    unit.pass_time(10)
    unit.running()
    assert len({generation for there in unit.ran for generation in there.values()}) > 30
    both = [there for there in unit.ran if len(set(there.values())) > 1]
    assert both == []


def test_after_too_many_failures_within_an_hour_the_unit_is_down_and_stays(unit: Unit):
    for _each in range(RULES.restarts):
        unit.workers[1].end("its server ended with status 1", unit.now)
        unit.pass_time(10)
        unit.running()
    unit.workers[1].end("its server ended with status 1", unit.now)
    unit.pass_time(2 * HOUR)
    assert unit.phases() == ["down"] * 3
    assert unit.workers[2].why == "rank 1: its server ended with status 1"
    unit.head = Head(unit.rules, unit.now, unit._draw)
    unit.pass_time(5)
    unit.running()


def test_failures_of_an_hour_ago_do_not_count(unit: Unit):
    for _each in range(3 * RULES.restarts):
        unit.head.end("its server ended with status 1", unit.now)
        unit.pass_time(HOUR / RULES.restarts + 1)
        unit.running()
    unit.pass_time(HOUR)
    assert unit.head.restarts(unit.now) == 0


def test_a_start_that_some_member_does_not_make_ends(unit: Unit):
    unit.head.end("its server ended with status 0", unit.now)
    unit.pass_time(2)
    unit.slow = {1}
    unit.pass_time(RULES.pause)
    unit.running()
    stuck = Unit()
    stuck.head.heard(1, stuck.workers[1].says(0), 0)
    stuck.head.heard(2, stuck.workers[2].says(0), 0)
    stuck.now = 1
    stuck.act()
    assert stuck.head.phase == "starting"
    stuck.now += RULES.start_within + 1
    stuck.head.tick(stuck.now)
    assert (stuck.head.phase, stuck.head.why) == ("ending", "not all members ran 100 s after the start")


def test_a_head_that_is_asked_to_stop_lets_its_answers_end_while_the_workers_go_on(unit: Unit):
    unit.slow = {0}
    unit.head.stop(unit.now)
    unit.pass_time(30)
    assert unit.phases() == ["ending", "running", "running"]
    assert unit.head.grace == RULES.stop_within
    unit.slow = set()
    unit.act()
    assert unit.head.finished


def test_a_stop_waits_for_no_answers_once_a_worker_is_gone(unit: Unit):
    unit.slow = {0}
    unit.head.stop(unit.now)
    unit.lose(1)
    assert unit.head.grace == QUICKLY
    unit.pass_time(1)
    assert unit.phases() == ["ending", "waiting", "waiting"]


def test_a_worker_that_is_asked_to_stop_is_no_failure(unit: Unit):
    unit.workers[1].stop(unit.now)
    unit.pass_time(2)
    assert unit.workers[1].finished
    assert unit.head.phase == "waiting"
    assert (unit.head.restarts(unit.now), unit.head.why) == (0, "rank 1: asked to stop")


@pytest.mark.parametrize("rank", [0, 1])
def test_a_stop_ends_one_that_waits_or_is_down_at_once(rank: int):
    member = Unit().members()[rank]
    member.stop(1.0)
    assert member.finished


def test_each_member_knows_of_all_that_are_there(unit: Unit):
    told = {rank: each.phase for rank, each in unit.workers[2].members(unit.now + 4).items()}
    assert told == {0: "running", 1: "running", 2: "running"}
    assert unit.workers[2].members(unit.now + 4)[1].age >= 4
    unit.lose(1)
    unit.pass_time(1)
    assert sorted(unit.workers[2].members(unit.now)) == [0, 2]
