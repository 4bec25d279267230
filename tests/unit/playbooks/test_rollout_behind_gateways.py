# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""ansible-playbook changes a fleet behind gateways: no server stops before it is drained, and none gets a request before it has passed.

Hosts and gateways are directories. The scenario gateway does the same with HAProxy.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from helpers.rollout import Fleet
from playbooks.test_rollout import CHANGE, MORE, NEVER, collections, fleet, served, untouched

__all__ = ["collections", "fleet", "served"]
GATES = ("gate-1", "gate-2")
OUT = ["drain at gate-1", "drain at gate-2", "idle", "wait at gate-1", "wait at gate-2"]
IN = ["admit at gate-1", "admit at gate-2"]


@pytest.fixture
def behind(fleet: Callable[[int], Fleet]) -> Callable[[int], Fleet]:
    def make(count: int) -> Fleet:
        sparks = fleet(count)
        sparks.put_behind(*GATES)
        for host in sparks.hosts.values():
            host.tell()
        return sparks

    return make


def states(sparks: Fleet) -> list[set[str]]:
    """What the Sparks may get, by gateway."""
    return [set(gate.states().values()) for gate in sparks.gates.values()]


def test_each_is_drained_before_its_stop_and_let_in_after_its_gate(behind: Callable[[int], Fleet]) -> None:
    sparks = behind(3)
    sparks.hosts["spark-2"].tell(hold="gate")
    change = sparks.start("site", vllm_serve_extra_arguments=MORE)
    sparks.held("spark-2", change)
    during = [gate.states() for gate in sparks.gates.values()]
    sparks.hosts["spark-2"].let_go()
    change.end()

    assert not change.failed, change.output
    assert during == [{"spark-1": "ready", "spark-2": "drained", "spark-3": "ready"}] * 2
    for host in sparks.hosts.values():
        steps = host.steps()
        first = steps.index(OUT[0])
        assert steps[first:][: len(OUT + CHANGE + IN)] == [*OUT, *CHANGE, *IN]
    assert states(sparks) == [{"ready"}, {"ready"}]


def test_one_that_goes_back_is_let_in_when_that_has_passed(behind: Callable[[int], Fleet]) -> None:
    sparks = behind(2)
    sparks.describe({"spark-1": {"vllm_serve_extra_environment": NEVER}})
    change = sparks.run("site", vllm_serve_extra_arguments=MORE)
    assert change.failed
    assert "rolled back, and that passes" in change.row("spark-1")
    steps = sparks.hosts["spark-1"].steps()
    # Stays drained from the first stop to the second gate.
    assert (
        steps.index(OUT[0])
        < steps.index("gate")
        < len(steps) - steps[::-1].index("gate")
        < steps.index(IN[0])
    )
    assert states(sparks) == [{"ready"}, {"ready"}]


def test_the_last_server_of_a_model_is_taken_by_nobody_who_does_not_say_so(
    behind: Callable[[int], Fleet],
) -> None:
    sparks = behind(2)
    before = sparks.look()
    for playbook, extra in (("site", {"vllm_serve_extra_arguments": MORE}), ("stop", {}), ("rollback", {})):
        change = sparks.run(playbook, spark_rollout_batches=["100%"], **extra)
        assert change.failed and "an outage of {" in change.output, playbook
        untouched(before, sparks.look(change.began), list(sparks.names))
    assert states(sparks) == [{"ready"}, {"ready"}]
    stopped = sparks.run("stop", spark_allow_outage=True)
    assert not stopped.failed, stopped.output
    for host in sparks.hosts.values():
        assert host.steps()[-6:] == [*OUT, "stop"]
    assert states(sparks) == [{"drained"}, {"drained"}]


@pytest.mark.parametrize("moment", ["make room", "gate", "admit at gate-2"])
def test_what_a_killed_run_has_drained_the_next_one_lets_in(
    behind: Callable[[int], Fleet], moment: str
) -> None:
    sparks = behind(2)
    sparks.hosts["spark-1"].tell(hold=moment)
    killed = sparks.start("site", vllm_serve_extra_arguments=MORE)
    sparks.held("spark-1", killed)
    killed.kill()
    assert sparks.gates["gate-2"].states()["spark-1"] == "drained"
    sparks.hosts["spark-1"].let_go()
    after = sparks.run("site", vllm_serve_extra_arguments=MORE)
    assert not after.failed, after.output
    assert states(sparks) == [{"ready"}, {"ready"}]


def test_maintenance_outlives_a_run(behind: Callable[[int], Fleet]) -> None:
    sparks = behind(2)
    gate = sparks.gates["gate-1"]
    gate.give([each for each in gate.servers if each.name == "spark-2"], "maintenance")
    change = sparks.run(
        "site", vllm_serve_extra_arguments=MORE, spark_rollout_batches=[1], spark_allow_outage=True
    )
    assert not change.failed, change.output
    assert gate.states() == {"spark-1": "ready", "spark-2": "maintenance"}
    assert sparks.gates["gate-2"].states() == {"spark-1": "ready", "spark-2": "ready"}
