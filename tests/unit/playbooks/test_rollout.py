# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""ansible-playbook changes what a fleet serves: whose turn comes when, what is left alone, and what an interrupted run leaves.

The real playbooks and roles, on hosts that are directories; the scenario rollout does the same with engines and power switches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml
from helpers.once import made_once
from helpers.rollout import Fleet, Seen, collection, until
from playbook_pages import NAMES, PLAYBOOKS

MORE, MORE_STILL = {"max-num-seqs": 2}, {"max-num-seqs": 3}
NEVER = {"STUB_ACCEPTANCE": "0"}
CHANGE = ["make room", "stopped", "start", "gate", "record"]


def serve(folder: Path) -> None:
    """The collections, and a host that serves, and served something else before."""
    for name in ("collections", "served"):
        (folder / name).mkdir()
    fleet = Fleet(folder / "served", collection(folder / "collections"), ["first"])
    for sequences in (7, 1):
        run = fleet.run("site", vllm_serve_extra_arguments={"max-num-seqs": sequences})
        assert not run.failed, run.output
    until(lambda: not fleet.locks())


@pytest.fixture(scope="session")
def collections(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_once(tmp_path_factory, "rollout", serve) / "collections"


@pytest.fixture(scope="session")
def served(collections: Path) -> Path:
    return collections.parent / "served/first"


@pytest.fixture
def fleet(tmp_path: Path, collections: Path, served: Path) -> Iterator[Callable[[int], Fleet]]:
    """Makes one of that many hosts, spark-1 and so on, which serve."""
    made: list[Fleet] = []

    def make(count: int) -> Fleet:
        names = [f"spark-{number}" for number in range(1, count + 1)]
        made.append(Fleet(tmp_path, collections, names, served))
        return made[-1]

    yield make
    for each in made:
        each.end()


def untouched(before: Mapping[str, Seen], after: Mapping[str, Seen], names: Sequence[str]) -> None:
    """Not a second without the very process, and not a byte of what is recorded."""
    for name in names:
        assert after[name].serves == before[name].serves
        assert after[name].state == before[name].state
        assert after[name].recorded_at == before[name].recorded_at
        assert after[name].events == []


def test_a_canary_then_a_share_then_all_others_and_a_second_run_is_sent_away(
    fleet: Callable[[int], Fleet],
) -> None:
    """Whatever strategy the controller prefers: with another than linear, hosts would not wait for each other."""
    sparks = fleet(4)
    before = sparks.look()
    for host in sparks.hosts.values():
        host.tell()
    sparks.hosts["spark-1"].tell(hold="gate")
    change = sparks.start("site", vllm_serve_extra_arguments=MORE)
    sparks.held("spark-1", change)
    second = sparks.run("site", vllm_serve_extra_arguments=MORE_STILL)
    during = sparks.look(change.began)
    sparks.hosts["spark-1"].let_go()
    change.end()
    after = sparks.look(change.began)

    assert second.failed
    assert f"process {change.process.pid}" in second.output and "since 20" in second.output
    untouched(before, during, ["spark-2", "spark-3", "spark-4"])
    assert not change.failed, change.output
    for name, seen in after.items():
        assert seen.passed() and seen.spec["command"][-2:] == ["--max-num-seqs", "2"]
        # The old server was there until its turn, and nothing happened twice.
        assert [event["action"] for event in seen.events] == ["die", "start"]
        assert sparks.hosts[name].steps()[-6:] == [*CHANGE, "watch"]
        assert sparks.hosts[name].steps().count("make room") == 1
        away = float(change.row(name).split()[-3])
        assert 0 <= away <= seen.recorded_at - seen.at("die") + 1
    ends = {name: host.at("die") for name, host in after.items()}
    passes = {name: host.recorded_at for name, host in after.items()}
    # [1, '25%', '100%'] of four is one, one, two.
    assert passes["spark-1"] < ends["spark-2"] < passes["spark-2"] < min(ends["spark-3"], ends["spark-4"])
    assert max(ends["spark-3"], ends["spark-4"]) < min(passes["spark-3"], passes["spark-4"])


def test_behind_a_gateway_the_port_is_kept_before_a_server_is_on_it_and_once_more_when_it_is_on_record(
    fleet: Callable[[int], Fleet],
) -> None:
    sparks = fleet(1)
    sparks.hosts["spark-1"].tell()
    change = sparks.run("site", vllm_serve_extra_arguments=MORE, port_guard_gateways=["gate-1"])
    assert not change.failed, change.output
    steps = sparks.hosts["spark-1"].steps()
    assert [step for step in steps if step in ["guard", *CHANGE]] == ["guard", *CHANGE, "guard"]


def test_what_has_passed_is_watched_and_what_has_not_is_left_as_it_was(
    fleet: Callable[[int], Fleet],
) -> None:
    sparks = fleet(2)
    sparks.describe({"spark-2": {"vllm_serve_extra_environment": NEVER}})
    for host in sparks.hosts.values():
        host.tell()
    change = sparks.run("site", vllm_serve_extra_arguments=MORE)
    assert change.failed
    steps = {name: host.steps() for name, host in sparks.hosts.items()}
    assert [step for step in steps["spark-1"] if step in [*CHANGE, "watch"]] == [*CHANGE, "watch"]
    assert "watch" not in steps["spark-2"]
    for host in sparks.hosts.values():
        host.tell()
    until(lambda: not sparks.locks())
    back = sparks.run("rollback", "--limit", "spark-1")
    assert not back.failed, back.output
    assert sparks.hosts["spark-1"].steps()[-2:] == ["record", "watch"]


def test_one_that_does_not_pass_goes_back_and_one_that_is_lost_stays_away_and_no_further_host_is_touched(
    fleet: Callable[[int], Fleet],
) -> None:
    sparks = fleet(5)
    before = sparks.look()
    sparks.describe({"spark-3": {"vllm_serve_extra_environment": NEVER}})
    for host in sparks.hosts.values():
        host.tell()
    sparks.hosts["spark-4"].tell(lose="start")
    change = sparks.run("site", vllm_serve_extra_arguments=MORE, spark_rollout_batches=[1, 3, "100%"])
    after = sparks.look(change.began)

    assert change.failed
    for name in ("spark-1", "spark-2"):
        assert after[name].passed() and after[name].spec != before[name].spec
        assert change.row(name).endswith(" pass")
    third = after["spark-3"]
    assert [event["action"] for event in third.events] == ["die", "start", "die", "start"]
    assert third.spec == before["spark-3"].spec and third.serves != before["spark-3"].serves
    assert third.state == before["spark-3"].state and third.passed(), "it was measured again"
    assert sparks.hosts["spark-3"].steps()[4:8] == ["make room", "stopped", "start", "gate"]
    assert "drafts_never_accepted; rolled back, and that passes" in change.row("spark-3")
    assert after["spark-4"].state == before["spark-4"].state
    assert "did not answer" in change.row("spark-4")
    untouched(before, after, ["spark-5"])
    assert change.row("spark-5").endswith(" untouched")
    assert "untouched, since spark-3, spark-4 did not pass before" in " ".join(change.output.split())


def test_a_server_that_passed_is_not_taken_away_because_it_cannot_be_recorded(
    fleet: Callable[[int], Fleet],
) -> None:
    sparks = fleet(2)
    before = sparks.look()
    sparks.hosts["spark-1"].tell(full=True)
    change = sparks.run("site", vllm_serve_extra_arguments=MORE)
    after = sparks.look(change.began)

    assert change.failed
    first = after["spark-1"]
    assert [event["action"] for event in first.events] == ["die", "start"], "it did not go back"
    assert first.spec["command"][-2:] == ["--max-num-seqs", "2"] and first.state == before["spark-1"].state
    assert "The server has passed and keeps serving" in " ".join(change.output.split())
    untouched(before, after, ["spark-2"])

    sparks.hosts["spark-1"].let_go()
    mended = sparks.run("site", vllm_serve_extra_arguments=MORE)
    assert not mended.failed, mended.output
    again = sparks.look(mended.began)
    assert again["spark-1"].passed() and again["spark-1"].serves == first.serves, "it is recorded as it runs"


def test_a_canary_that_is_lost_ends_the_rollout(fleet: Callable[[int], Fleet]) -> None:
    """The first host of the play, too, which decides for all where one does."""
    sparks = fleet(3)
    before = sparks.look()
    sparks.hosts["spark-1"].tell(lose="start")
    change = sparks.run("site", vllm_serve_extra_arguments=MORE)
    after = sparks.look(change.began)
    assert change.failed
    assert [event["action"] for event in after["spark-1"].events] == ["die"]
    assert after["spark-1"].state == before["spark-1"].state
    assert "pass" not in change.row("spark-1")
    untouched(before, after, ["spark-2", "spark-3"])
    assert all(change.row(name).endswith(" untouched") for name in ("spark-2", "spark-3"))


def test_a_check_run_shows_exactly_the_argument_and_touches_nothing(fleet: Callable[[int], Fleet]) -> None:
    sparks = fleet(3)
    before = sparks.look()
    looked = sparks.run("site", "--check", "--diff", vllm_serve_extra_arguments=MORE)
    assert not looked.failed, looked.output
    lines = [
        line
        for line in looked.output.splitlines()
        if line[:1] in ("+", "-") and line[:4] not in ("+++ ", "--- ")
    ]
    assert lines == ["-argument --max-num-seqs 1", "+argument --max-num-seqs 2"] * 3, looked.output
    untouched(before, sparks.look(looked.began), sparks.names)
    assert sparks.locks() == [], "it takes none"


def test_back_by_hand_on_one_host_and_on_all_in_batches(fleet: Callable[[int], Fleet]) -> None:
    sparks = fleet(3)
    before = sparks.look()
    now, earlier = before["spark-2"].proven()
    one = sparks.run("rollback", "--limit=spark-2")
    assert not one.failed, one.output
    after = sparks.look(one.began)
    assert after["spark-2"].passed() and after["spark-2"].proven() == [earlier, now]
    untouched(before, after, ["spark-1", "spark-3"])

    # Back for all is back for each: where one was taken back already, that is undone.
    every = sparks.run("rollback", spark_rollout_batches=[2, "100%"])
    assert not every.failed, every.output
    back = sparks.look(every.began)
    assert all(host.passed() for host in back.values())
    assert {name: host.proven() for name, host in back.items()} == {
        "spark-1": [earlier, now], "spark-2": [now, earlier], "spark-3": [earlier, now],
    }  # fmt: skip
    assert max(back[name].recorded_at for name in ("spark-1", "spark-2")) < back["spark-3"].at("die")


@dataclass(frozen=True)
class Phase:
    """The step at which a run on one host ends, and whether the host loses its power with it."""

    hold: str
    time: int = 1
    environment: dict[str, str] = field(default_factory=dict)
    loses_power: bool = True


# The scenario rollout interrupts what depends on an engine and a disk: a measurement, a record, the way back.
PHASES = {
    "preparing": Phase("judge"),
    "just before the old server stops": Phase("make room"),
    "no server": Phase("start"),
    "started, not ready": Phase("gate"),
    "back, measuring": Phase("gate", 2, NEVER),
    "no server, and the host goes on": Phase("start", loses_power=False),
}


def test_a_run_that_ends_in_any_phase_leaves_nothing_half_done_and_the_next_one_finishes(
    fleet: Callable[[int], Fleet],
) -> None:
    sparks = fleet(len(PHASES))
    before = sparks.look()

    def interrupt(phase: Phase, name: str) -> None:
        host = sparks.hosts[name]
        host.tell(hold=phase.hold, time=phase.time)
        given = {"vllm_serve_extra_arguments": MORE, "vllm_serve_extra_environment": phase.environment}
        run = sparks.start("site", f"--limit={name}", **given)
        sparks.held(name, run)
        run.kill()
        if phase.loses_power:
            host.boot()
        assert sparks.look()[name].proven() == before[name].proven()

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(interrupt, PHASES.values(), sparks.names))
    steps = {what: sparks.hosts[name].steps()[-1] for what, name in zip(PHASES, sparks.names, strict=True)}
    assert steps == {what: phase.hold for what, phase in PHASES.items()}, "nothing happened after the end"
    until(lambda: not sparks.locks())

    for host in sparks.hosts.values():
        host.let_go()
    finishes = sparks.run("site", vllm_serve_extra_arguments=MORE)
    assert not finishes.failed, finishes.output
    finished = sparks.look()
    for what, name in zip(PHASES, sparks.names, strict=True):
        assert finished[name].passed(), what
        assert finishes.row(name).endswith(" pass"), what
    assert len({str(host.spec) for host in finished.values()}) == 1


@pytest.mark.parametrize("name", NAMES)
def test_every_play_on_hosts_has_them_wait_for_each_other(name: str) -> None:
    """Plans are made once for all hosts, and a lock that one host refuses stops all. A controller may prefer another strategy."""
    for play in yaml.safe_load((PLAYBOOKS / f"{name}.yml").read_text()):
        if "ansible.builtin.import_playbook" in play:
            continue  # whose own plays have their turn here
        alone = play["hosts"] == "localhost"
        assert play.get("strategy") == (None if alone else "ansible.builtin.linear"), play["name"]
