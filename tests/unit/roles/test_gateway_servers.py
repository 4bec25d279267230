"""What the role gateway writes, in a real HAProxy: which server gets a request, and what happens when one is gone."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from helpers.gateway import KEY, OTHER_KEY
from helpers.haproxy import CHAT, Gateway, behind, eventually, gateway, needs_haproxy, stubs
from helpers.vllm_stub import Stub

pytestmark = needs_haproxy
NAMES = ("s1", "s2", "s3")
MANY = {"concurrent": 1000, "requests_per_minute": 100_000}
KEYS = [{"name": "team", "key": KEY, **MANY}, {"name": "anna", "user": "anna", "key": OTHER_KEY, **MANY}]


@pytest.fixture(scope="module")
def sparks() -> Iterator[list[Stub]]:
    with stubs(*NAMES) as made:
        yield made


@pytest.fixture(scope="module")
def api(sparks: list[Stub]) -> Iterator[Gateway]:
    with gateway(servers=behind(sparks), keys=KEYS) as made:
        yield made


def who(api: Gateway, content: str = "hello", **given: Any) -> str:
    api.wait_until_idle()
    answer = api.chat(content, **given)
    assert answer.status == 200, answer
    name: str = answer.json["server"]
    return name


def conversation(opening: list[dict[str, Any]], turns: int) -> list[dict[str, Any]]:
    more = [{"role": ("assistant", "user")[turn % 2], "content": f"turn {turn}"} for turn in range(turns * 2)]
    return opening + more


def test_a_session_stays_where_it_is_and_many_are_everywhere(api: Gateway) -> None:
    of_session = {
        session: {who(api, f"{turn}", headers={"x-session-id": session}) for turn in range(3)}
        for session in map(str, range(20))
    }
    assert [session for session, names in of_session.items() if len(names) != 1] == []
    assert set.union(*of_session.values()) == set(NAMES)


def test_a_user_stays_where_they_are(api: Gateway) -> None:
    assert len({who(api, f"about {number}", key=OTHER_KEY) for number in range(12)}) == 1


def test_a_session_comes_before_the_user(api: Gateway) -> None:
    found = {who(api, key=OTHER_KEY, headers={"x-session-id": str(number)}) for number in range(20)}
    assert found == set(NAMES)


PART = [{"type": "text", "text": "in parts"}]


@pytest.mark.parametrize(
    "opening",
    [
        [{"role": "user", "content": "tell me of the sea"}],
        [{"role": "user", "content": PART}],
        [{"role": "user", "content": "x" * 1000}],
        [{"role": "system", "content": "be kind"}, {"role": "user", "content": "tell me of the sea"}],
        [{"role": "user", "content": "你好，世界 \U0001f600"}],
    ],
)
def test_a_conversation_returns_to_the_server_that_has_its_beginning(
    api: Gateway, opening: list[dict[str, Any]]
) -> None:
    found = {who(api, messages=conversation(opening, turns)) for turns in range(6)}
    assert len(found) == 1


SYSTEM = {"role": "system", "content": "the same words of one system for all"}


@pytest.mark.parametrize(
    ("opening", "begins"), [([], "question {}"), ([], "你好 {}"), ([SYSTEM], "question {}")]
)
def test_conversations_are_spread(api: Gateway, opening: list[dict[str, Any]], begins: str) -> None:
    found = {
        who(api, messages=[*opening, {"role": "user", "content": begins.format(number)}])
        for number in range(25)
    }
    assert found == set(NAMES)


@pytest.mark.parametrize(
    ("path", "name", "value"),
    [
        ("/v1/completions", "prompt", "{}"),
        ("/v1/completions", "prompt", ["{}"]),
        ("/v1/responses", "input", "{}"),
        ("/v1/responses", "input", [{"role": "user", "content": "{}"}]),
    ],
)
def test_other_paths_know_their_conversations(api: Gateway, path: str, name: str, value: Any) -> None:
    found = {}
    for number in range(20):
        asked = json.loads(json.dumps({"model": "chat", name: value}).replace("{}", f"words {number}"))
        names = set()
        for _ in range(2):
            api.wait_until_idle()
            names.add(api.request("POST", path, asked).json["server"])
        found[number] = names
    assert {len(names) for names in found.values()} == {1}
    assert set.union(*found.values()) == set(NAMES)


def test_what_is_no_conversation_goes_around(api: Gateway) -> None:
    asked = {"model": "chat", "input": "the same text"}
    found = Counter(api.request("POST", "/v1/embeddings", asked).json["server"] for _ in range(90))
    assert set(found) == set(NAMES)
    assert max(found.values()) < 50, found


def test_sessions_are_spread_evenly() -> None:
    names = [f"spark-{number}" for number in range(1, 5)]
    with stubs(*names) as four, gateway(servers=behind(four), keys=KEYS, limits={"balance": 1000}) as api:
        shares = Counter(
            api.chat(headers={"x-session-id": f"session {number}"}).json["server"] for number in range(200)
        )
    assert set(shares) == set(names)
    assert max(shares.values()) < 1.3 * 200 / 4, shares


def at_once(count: int, ask: Any) -> list[Any]:
    found: list[Any] = [None] * count

    def one(number: int) -> None:
        found[number] = ask(number)

    threads = [threading.Thread(target=one, args=[number]) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


@pytest.mark.parametrize("balance", [150, 250])
def test_no_server_gets_more_than_its_share_times_the_factor(sparks: list[Stub], balance: int) -> None:
    session = {"x-session-id": "one"}
    with gateway(servers=behind(sparks), keys=KEYS, limits={"balance": balance}) as api:
        shares = Counter(at_once(24, lambda number: api.chat(seconds=1, headers=session).json["server"]))
    assert sum(shares.values()) == 24
    assert max(shares.values()) <= 24 / len(sparks) * balance / 100 + 1, shares


def test_a_server_that_has_gone_costs_no_request(sparks: list[Stub]) -> None:
    with gateway(servers=behind(sparks), keys=KEYS) as api:
        home = who(api, headers={"x-session-id": "one"})
        (gone,) = (each for each in sparks if each.name == home)
        gone.stop()
        try:
            others = {who(api, headers={"x-session-id": "one"}) for _ in range(4)}
            assert others.isdisjoint({home})
        finally:
            gone.start()
        eventually(lambda: who(api, headers={"x-session-id": "one"}) == home, api)


def test_what_a_dying_server_had_is_lost_and_asked_of_no_other(api: Gateway, sparks: list[Stub]) -> None:
    home = who(api, headers={"x-session-id": "one"})
    (breaking,) = (each for each in sparks if each.name == home)
    for each in sparks:
        each.seen.clear()
    breaking.breaks = True
    try:
        answer = api.chat(headers={"x-session-id": "one"})
    finally:
        breaking.breaks = False
    assert answer.status == 502
    assert answer.error["type"] == "server_error"
    assert sum(len(each.seen) for each in sparks) == 0


def test_nothing_is_asked_again_once_the_client_has_got_some_of_it(api: Gateway, sparks: list[Stub]) -> None:
    for each in sparks:
        each.seen.clear()
    connection = api.connect()
    asked = {"model": "chat", "user": "cut me"}
    connection.request("POST", CHAT, json.dumps(asked), {"authorization": f"Bearer {KEY}"})
    answer = connection.getresponse()
    with pytest.raises(Exception, match="IncompleteRead"):
        answer.read()
    connection.close()
    assert sum(len(each.seen) for each in sparks) == 1


def test_without_a_server_it_says_so_at_once_and_when_to_ask_again() -> None:
    with (
        stubs("s1", "e1") as (one, other),
        gateway(servers=behind([one]) + behind([other], "embed", "second"), timeouts={"interval": 1}) as api,
    ):
        one.healthy = False
        eventually(lambda: "s1 is DOWN" in api.log, api)
        began = time.monotonic()
        answer = api.chat()
        assert time.monotonic() - began < 0.5
        assert answer.status == 503
        assert answer.error["type"] == "service_unavailable_error"
        assert int(answer.headers["retry-after"]) >= 1
        assert answer.headers["content-type"] == "application/json"
        assert api.chat(model="embed").status == 200
        one.healthy = True
        eventually(lambda: api.chat().status == 200, api)
