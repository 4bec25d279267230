"""What an inventory asks of a gateway: what becomes of it, and what is refused with expected, seen and do."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from ansible_collections.sparkfleet.vllm.plugins.plugin_utils.gateway import plan
from ansible_collections.sparkfleet.vllm.plugins.plugin_utils.gateway.refusal import GatewayError
from helpers.gateway import KEY, OTHER_KEY, inputs, server


def data(**given: Any) -> dict[str, Any]:
    return plan.plan(inputs(**given)).as_data()


def refusal(**given: Any) -> str:
    with pytest.raises(GatewayError) as refused:
        data(**given)
    return str(refused.value)


def test_servers_are_pools_by_the_name_that_clients_ask_for() -> None:
    servers = [server("spark-2"), server("spark-3", model="org/other", recipe="second"), server("spark-1")]
    first, second = data(servers=servers)["pools"]
    assert (first["model"], [each["name"] for each in first["servers"]]) == ("chat", ["spark-1", "spark-2"])
    assert first["name"] == "chat"
    assert second["name"].startswith("org-other-")


def test_a_server_keeps_its_place_whoever_comes_and_goes() -> None:
    few = {each["name"]: each["id"] for each in data(servers=[server("spark-2")])["pools"][0]["servers"]}
    many = [server(f"spark-{number}") for number in (3, 1, 2)]
    every = {each["name"]: each["id"] for each in data(servers=many)["pools"][0]["servers"]}
    assert len(set(every.values())) == 3
    assert few["spark-2"] == every["spark-2"]


def test_an_address_of_version_6_is_in_brackets() -> None:
    made = data(servers=[server("spark-1", address="2001:db8::7")], addresses=["::1"])
    assert made["pools"][0]["servers"][0]["address"] == "[2001:db8::7]"
    assert made["binds"] == ["[::1]:8443"]


def test_the_list_of_models_is_the_union() -> None:
    servers = [server("spark-1"), server("spark-2", model="embed", recipe="second")]
    assert [each["id"] for each in data(servers=servers)["models"]["data"]] == ["chat", "embed"]


def test_the_buffer_holds_the_largest_body_and_the_headers() -> None:
    made = data(limits={"body": 1024 * 1024})
    assert made["buffer"] == 1024 * 1024 + plan.HEADERS


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"servers": []}, "at least one Spark that passed its gate, seen: none; do: run site.yml"),
        ({"servers": [server("a"), server("b", recipe="second")]}, "one recipe that serves chat"),
        ({"servers": [server("a"), server("a")]}, "each Spark once"),
        ({"servers": [server("a", address="192.0.2.9"), server("b", address="192.0.2.9")]}, "no other Spark has"),
        ({"servers": [server("a", address="spark-1.local")]}, "an IP address, seen: 'spark-1.local'; do: set spark_address"),
        ({"servers": [server("a", address=None)]}, "an IP address"),
        ({"servers": [server("a", port=0)]}, "from 1 to 65535"),
        ({"servers": [server("a", port=True)]}, "from 1 to 65535"),
        ({"servers": [server("a", port="9" * 30)]}, "from 1 to 65535"),
        ({"servers": [server("a", agent=0)]}, "a, agent: expected a whole number from 1 to 65535"),
        ({"servers": [server("a", agent="8000")]}, "another port for its watchdog than for its server, seen: 8000 for both"),
        ({"servers": [server("a b")]}, "a name of at most 64"),
        ({"servers": [server("a", model="two words")]}, "without spaces"),
        ({"servers": [server("a", model="")]}, "without spaces"),
        ({"servers": [server("a") | {"adress": "192.0.2.1"}]}, "do: write address"),
        ({"servers": ["a"]}, "a mapping"),
        ({"addresses": []}, "at least one address"),
        ({"addresses": ["gateway.example"]}, "an IP address"),
        ({"addresses": ["0.0.0.0"], "tls": False}, "a certificate for 0.0.0.0, seen: none; do: give gateway_certificate"),
        ({"port": 0}, "gateway_port"),
        ({"limits": {"body": 1}}, "gateway_limits, body: expected a whole number from 65536"),
        ({"limits": {"balance": 100}}, "gateway_limits, balance"),
        ({"timeouts": {"conect": 1}}, "do: write connect"),
    ],
)  # fmt: skip
def test_what_is_refused(given: dict[str, Any], said: str) -> None:
    text = refusal(**given)
    assert said in text
    assert ("expected" in text, "seen: " in text, "do: " in text) == (True, True, True)


def test_without_a_certificate_it_listens_on_loopback_or_where_that_is_wanted() -> None:
    assert data(tls=False, addresses=["127.0.0.1"])["binds"] == ["127.0.0.1:8443"]
    assert data(tls=False, addresses=["0.0.0.0"], plain=True)["binds"] == ["0.0.0.0:8443"]


def key(**given: Any) -> dict[str, Any]:
    return {"name": "anna", "key": KEY, **given}


def test_a_key_leaves_as_its_hash() -> None:
    (only,) = data(keys=[key(user="anna", concurrent=3)])["keys"]
    assert only == {
        "name": "anna",
        "user": "anna",
        "sha256": hashlib.sha256(KEY.encode()).hexdigest(),
        "concurrent": 3,
        "requests_per_minute": 600,
    }
    assert KEY not in json.dumps(data(keys=[key()]))


def test_a_hash_is_as_good_as_the_key() -> None:
    digest = hashlib.sha256(KEY.encode()).hexdigest()
    assert data(keys=[key()]) == data(keys=[{"name": "anna", "sha256": digest.upper()}])


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ([], "at least one key"),
        ([key(), key(key=OTHER_KEY)], "one key of each name"),
        ([key(), key(name="bob")], "a key of its own, seen: that of anna"),
        ([key(key="a" * 64)], "a random key of at least 128 bits"),
        ([key(key="0123456789abcdef0123456789abcde")], "of at least 128 bits, seen: one of 124 bits"),
        ([key(key="sk-0123456789abcdefghiJK")], "of at least 128 bits, seen: one of 126 bits"),
        ([key(key=KEY + " x")], "without spaces"),
        ([key(key=KEY + "\n")], "without spaces"),
        ([key(key=7)], "without spaces"),
        ([key(sha256="0" * 64)], "either key or sha256, seen: both"),
        ([{"name": "anna"}], "either key or sha256, seen: neither"),
        ([{"name": "anna", "sha256": "0" * 63}], "64 hexadecimal digits"),
        ([{"name": "anna", "sha256": KEY}], "64 hexadecimal digits"),
        ([key(name="anna:bob")], "a name of at most 64"),
        ([key(user="anna bob")], "a name of at most 64"),
        ([key(concurrent=0)], "from 1 to"),
        ([key(requests_per_minute="many")], "a whole number"),
        ([key(concurent=1)], "do: write concurrent"),
    ],
)
def test_which_keys_are_refused_and_that_no_message_shows_one(keys: list[Any], said: str) -> None:
    text = refusal(keys=keys)
    assert said in text
    assert ("seen: " in text, "do: " in text) == (True, True)
    shown = [str(each.get(name, "")) for each in keys for name in ("key", "sha256")]
    assert [secret for secret in shown if len(secret) > 1 and secret in text] == []


@pytest.mark.parametrize("kind", ["answers", "failures"])
def test_an_answer_is_json_as_the_openai_api_words_it(kind: str) -> None:
    for rule, answer in data()[kind].items():
        text = answer["body"]
        assert (text[0], text[-1]) == ("'", "'"), rule
        error = json.loads(text[1:-1].replace(r"'\''", "'"))["error"]
        assert set(error) == {"message", "type", "param", "code"}
        assert bool(answer["retry_after"]) == (answer["status"] in (429, 503)), rule


def test_its_numbers_are_for_the_monitoring() -> None:
    assert data()["metrics"] is None
    watchers = {"watch-1": "192.0.2.9", "watch-2": "192.0.2.10", "gate-1": "192.0.2.9"}
    assert data(monitoring=watchers)["metrics"] == {
        "bind": "0.0.0.0:8405",
        "sources": ("192.0.2.9", "192.0.2.10"),
    }
    six = data(monitoring=watchers, gateways={"gate-1": "2001:db8::7"}, metrics_port="9405")
    assert six["metrics"]["bind"] == "[::]:9405 v4v6"


def test_numbers_without_a_place_or_a_reader_are_refused() -> None:
    watchers = {"watch-1": "watch-1.example.com"}
    assert "monitoring, watch-1: expected an IP address" in refusal(monitoring=watchers)
    said = refusal(monitoring={"watch-1": "192.0.2.9"}, metrics_port=8443)
    assert said.startswith(
        "spark_gateway_metrics_port: expected another port than that of the clients, seen: 8443"
    )
