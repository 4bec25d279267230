"""What the watchdog of a Spark tells its gateway, in a real HAProxy: who gets a request while it says that its server does not serve."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from ansible_collections.sparkfleet.vllm.plugins.module_utils._gateway.answers import Server
from ansible_collections.sparkfleet.vllm.plugins.module_utils._gateway.haproxy import Haproxy
from ansible_collections.sparkfleet.vllm.plugins.module_utils._gateway.states import States
from ansible_collections.sparkfleet.vllm.plugins.module_utils._serve import watched
from ansible_collections.sparkfleet.vllm.plugins.module_utils._watchdog import judge, verdict
from ansible_collections.sparkfleet.vllm.plugins.module_utils._watchdog.memory import Memory
from ansible_collections.sparkfleet.vllm.plugins.module_utils._watchdog.settings import ACT, Settings
from helpers.agent import Agent
from helpers.gateway import KEY
from helpers.haproxy import Gateway, behind, eventually, gateway, needs_haproxy, stubs

pytestmark = needs_haproxy
KEYS = [{"name": "team", "key": KEY, "concurrent": 1000, "requests_per_minute": 100_000}]
DOWN = verdict.agent(
    judge.Judgement(
        watched.BAD, "", Memory(), (judge.Finding(watched.WEDGED, judge.ACTED_ON, "tokens", "none", "wait"),)
    ),
    Settings(mode=ACT),
)
"""As the watchdog of a Spark words it."""


@dataclass
class Fleet:
    """Two Sparks behind a gateway. The first one has a watchdog with an agent."""

    api: Gateway
    agent: Agent

    @property
    def first(self) -> Server:
        return next(each for each in Haproxy(str(self.api.master)).servers() if each.name == "s1")

    def says(self, word: str) -> None:
        """From now on; returns when the gateway has asked twice, so that what comes of it has come."""
        self.agent.word = word
        self.asks(2)

    def asks(self, times: int) -> None:
        before = self.agent.asked
        eventually(lambda: self.agent.asked >= before + times, self.api)

    def who(self, count: int = 16) -> set[str]:
        """Those who get new conversations."""
        return {
            self.api.chat(headers={"x-session-id": f"session {number}"}).json["server"]
            for number in range(count)
        }

    def give(self, state: str) -> None:
        """As a run does it, kept for the next process."""
        States(Haproxy(str(self.api.master)), str(self.api.state_file)).give([self.first], state)


@pytest.fixture
def fleet() -> Iterator[Fleet]:
    agent = Agent()
    with stubs("s1", "s2") as two:
        first, second = behind(two)
        servers = [first | {"agent": agent.port}, second]
        with gateway(servers=servers, keys=KEYS, timeouts={"interval": 1}) as api:
            made = Fleet(api, agent)
            made.asks(1)
            yield made
    agent.stop()


def test_a_spark_whose_watchdog_says_down_gets_nothing_new_until_it_says_up(fleet: Fleet) -> None:
    assert fleet.who() == {"s1", "s2"}
    fleet.says(DOWN)
    assert fleet.who() == {"s2"}
    assert (fleet.first.usable, fleet.first.state, fleet.first.agent) == (False, "ready", "down (wedged)")
    fleet.says("up")
    assert fleet.who() == {"s1", "s2"}
    assert (fleet.first.usable, fleet.first.agent) == (True, None)


def test_a_stream_that_runs_lives_on(fleet: Fleet) -> None:
    """It is wedged, or slow: only the server knows, and its restart ends the stream anyway."""
    session = next(
        name
        for name in map(str, range(50))
        if fleet.api.chat(headers={"x-session-id": name}).json["server"] == "s1"
    )
    ended: list[tuple[str, int]] = []
    stream = threading.Thread(target=lambda: ended.append(fleet.api.stream(200, session)))
    stream.start()
    eventually(lambda: fleet.first.sessions == 1, fleet.api)
    fleet.says(DOWN)
    assert (fleet.first.usable, fleet.first.sessions) == (False, 1)
    stream.join()
    assert ended == [("s1", 200)]


@pytest.mark.parametrize("silent", ["says nothing", "is not there"])
def test_an_agent_that_does_not_answer_changes_nothing(fleet: Fleet, silent: str) -> None:
    fleet.says("")
    if silent == "is not there":
        fleet.agent.stop()
        # Twice the interval of its checks.
        assert not threading.Event().wait(2)
    assert fleet.first.usable
    assert fleet.who() == {"s1", "s2"}


def test_one_that_falls_silent_after_it_said_down_stays_down(fleet: Fleet) -> None:
    fleet.says(DOWN)
    fleet.says("")
    assert (fleet.first.usable, fleet.first.agent) == (False, "")


@pytest.mark.parametrize("word", ["up", DOWN])
def test_what_a_run_has_drained_stays_drained_whatever_the_watchdog_says(fleet: Fleet, word: str) -> None:
    fleet.give("drained")
    fleet.says(word)
    assert (fleet.first.state, fleet.first.usable, fleet.who()) == ("drained", False, {"s2"})
    fleet.says("up")
    assert (fleet.first.state, fleet.first.up, fleet.who()) == ("drained", True, {"s2"})


def test_a_run_ends_its_drain_and_the_watchdog_what_it_has_said(fleet: Fleet) -> None:
    fleet.says(DOWN)
    fleet.give("drained")
    fleet.give("ready")
    assert (fleet.first.state, fleet.first.usable) == ("ready", False)
    fleet.says("up")
    assert fleet.first.usable


def test_a_reload_lets_no_spark_in_of_which_its_watchdog_says_down(fleet: Fleet) -> None:
    fleet.says(DOWN)
    fleet.give("ready")
    passed: list[str] = []
    for _ in range(3):
        fleet.api.reload()
        passed += sorted(fleet.who(32))
        fleet.asks(2)
        passed += sorted(fleet.who())
    assert set(passed) == {"s2"}
    assert fleet.first.agent == "down (wedged)"


def test_after_a_reload_in_which_the_watchdog_has_gone_the_check_decides(fleet: Fleet) -> None:
    """Somebody has turned the watchdog off. Nobody would say up any more."""
    fleet.says(DOWN)
    fleet.give("ready")
    fleet.agent.stop()
    fleet.api.reload()
    eventually(lambda: fleet.first.usable, fleet.api)


def test_a_spark_without_a_watchdog_is_asked_for_none(fleet: Fleet) -> None:
    config = (fleet.api.folder / "haproxy.cfg").read_text()
    assert config.count("agent-check") == 1
    assert f"agent-check agent-port {fleet.agent.port}" in config
