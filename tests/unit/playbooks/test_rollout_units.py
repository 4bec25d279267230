# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""ansible-playbook changes units of two hosts: they start, pass and go back as one, and the next unit waits for them.

The real playbooks and roles, on hosts that are directories; see helpers/rollout.py.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
from helpers.rollout import Fleet, until
from playbooks.test_rollout import MORE, collections, fleet, served

__all__ = ["collections", "fleet", "served"]
FIRST, SECOND = ("spark-1", "spark-2"), ("spark-3", "spark-4")


def inputs(*units: tuple[str, ...], nodes: int = 2) -> dict[str, dict[str, Any]]:
    """Variables of the hosts that make them units."""
    return {
        name: {
            "spark_unit": f"pair-{number}",
            "spark_interface": "fabric0",
            "spark_fabric": {"interfaces": {"fabric0": {"address": f"198.51.100.{name[-1]}"}}, "rdma": []},
            "vllm_serve_topology": {"nodes": nodes, "tensor_parallel": nodes, "pipeline_parallel": 1},
            "vllm_serve_entrypoint": ["vllm", "serve"],
        }
        for number, names in enumerate(units)
        for name in names
    }


@pytest.fixture
def sparks(fleet: Callable[[int], Fleet]) -> Fleet:
    """Four hosts that serve alone, and shall be two units."""
    made = fleet(4)
    made.describe(inputs(FIRST, SECOND))
    for host in made.hosts.values():
        host.tell()
    return made


def site(sparks: Fleet, *options: str) -> Any:
    return sparks.run("site", *options, vllm_serve_extra_arguments=MORE)


def test_two_units_one_after_the_other_and_a_second_run_starts_nothing(sparks: Fleet) -> None:
    change = site(sparks)
    after = sparks.look(change.began)
    assert not change.failed, change.output
    ends = {name: seen.at("die") for name, seen in after.items()}
    starts = {name: seen.at("start") for name, seen in after.items()}
    passes = {name: seen.recorded_at for name, seen in after.items()}
    for unit in (FIRST, SECOND):
        # No worker of before is there when one of the new ones starts.
        assert max(ends[name] for name in unit) < min(starts[name] for name in unit)
        assert [sparks.hosts[name].steps().count("start") for name in unit] == [1, 1]
    assert max(passes[name] for name in FIRST) < min(ends[name] for name in SECOND)
    head, worker = (sparks.hosts[name].steps() for name in FIRST)
    look = "look at the member"
    assert [step for step in head if step in ("gate", look, "record")] == [look, "gate", look, "record"]
    of_gate = ("gate", look, "record")
    assert [step for step in worker if step in of_gate] == ["gate", look, "gate", look, "record"]
    assert change.row("spark-2").split()[1:4] == ["pair-0,", "rank", "1"]
    assert all(change.row(name).endswith(" pass") for name in sparks.names)

    until(lambda: not sparks.locks())
    again = site(sparks)
    assert not again.failed, again.output
    assert all(seen.events == [] for seen in sparks.look(again.began).values())


@pytest.mark.parametrize(
    ("who", "orders", "reason"),
    [
        ("spark-2", {"fail": "start"}, "the disk is full at: start"),
        ("spark-1", {"fail": "gate"}, "the disk is full at: gate"),
        ("spark-2", {"fail": "gate", "time": 2}, "the disk is full at: gate"),
        ("spark-2", {"look": {"phase": "waiting", "why": "rank 0: gone"}}, "spark-2 waiting; rank 0: gone"),
        ("spark-2", {"look": {"generation": "b2"}}, "spark-1 in a1, spark-2 in b2"),
    ],
    ids=["start", "gate of the head", "last check of the worker", "worker waits", "stale worker"],
)
def test_one_member_that_fails_takes_all_back_and_the_next_unit_is_untouched(
    sparks: Fleet, who: str, orders: dict[str, Any], reason: str
) -> None:
    before = sparks.look()
    sparks.hosts[who].tell(**orders)
    change = site(sparks)
    after = sparks.look(change.began)
    assert change.failed
    said = " ".join(change.output.split())
    assert reason in said
    for name in FIRST:
        assert "rolled back, and that passes" in change.row(name), change.output
        assert after[name].spec == before[name].spec and after[name].state == before[name].state
        assert after[name].passed()
    for name in SECOND:
        assert after[name].serves == before[name].serves and after[name].events == []
        assert change.row(name).endswith(" untouched")


def test_a_worker_that_is_lost_takes_its_head_back_and_the_next_unit_is_untouched(sparks: Fleet) -> None:
    before = sparks.look()
    sparks.hosts["spark-2"].tell(lose="start")
    change = site(sparks)
    after = sparks.look(change.began)
    assert change.failed and "seen spark-2: it gave no answer" in " ".join(change.output.split())
    assert "rolled back, and that passes" in change.row("spark-1") and after["spark-1"].passed()
    assert "did not answer" in change.row("spark-2") and after["spark-2"].state == before["spark-2"].state
    for name in SECOND:
        assert after[name].serves == before[name].serves and change.row(name).endswith(" untouched")


def test_a_unit_stops_and_goes_back_whole_and_a_part_of_it_is_refused(sparks: Fleet) -> None:
    """Back is what each of them served alone."""
    before = sparks.look()
    sparks.put_behind("gate-1")
    sparks.describe(inputs(FIRST, SECOND))
    change = sparks.run(
        "site", "--limit=spark-1,spark-2", vllm_serve_extra_arguments=MORE, spark_allow_outage=True
    )
    assert not change.failed, change.output
    whole = sparks.look()
    drained = {name: "drain at gate-1" in sparks.hosts[name].steps() for name in FIRST}
    assert drained == {"spark-1": True, "spark-2": True}, "both served alone until then"
    for name in FIRST:
        sparks.hosts[name].tell()

    refused = {"rollback": "spark-1 failed before or is not in this run", "stop": "seen none of spark-1"}
    for playbook, words in refused.items():
        part = sparks.run(playbook, "--limit=spark-2", spark_allow_outage=True)
        assert part.failed and words in " ".join(part.output.split())
        assert sparks.look(part.began)["spark-2"].events == []
        until(lambda: not sparks.locks())

    kept = {name: sparks.hosts[name].state.read_text() for name in FIRST}
    for name, argument in zip(FIRST, ("--seed=1", "--seed=2"), strict=True):
        state = json.loads(kept[name])
        state["last_good"] = copy.deepcopy(state["current"])
        state["last_good"]["serving"]["container"]["command"].append(argument)
        sparks.hosts[name].state.write_text(json.dumps(state))
    other = sparks.run("rollback", "--limit=spark-1,spark-2", spark_allow_outage=True)
    assert other.failed and "argument --seed: spark-1 1, spark-2 2" in " ".join(other.output.split())
    for name in FIRST:
        assert sparks.look(other.began)[name].events == []
        sparks.hosts[name].state.write_text(kept[name])
    until(lambda: not sparks.locks())

    measured = sparks.run("benchmark", "--limit=spark-1,spark-2", spark_allow_outage=True)
    assert measured.failed and "seen rank 0 of the unit pair-0" in " ".join(measured.output.split())
    assert all(sparks.look(measured.began)[name].events == [] for name in FIRST)
    until(lambda: not sparks.locks())

    back = sparks.run(
        "rollback", "--limit=spark-1,spark-2", spark_rollout_batches=[1], spark_allow_outage=True
    )
    assert not back.failed, back.output
    after = sparks.look(back.began)
    for name in FIRST:
        assert after[name].proven() == [before[name].proven()[0], whole[name].proven()[0]]
        assert after[name].passed()
    steps = {name: sparks.hosts[name].steps() for name in FIRST}
    assert "drain at gate-1" in steps["spark-1"] and "drain at gate-1" not in steps["spark-2"]
    assert max(after[name].at("die") for name in FIRST) < min(after[name].at("start") for name in FIRST)
