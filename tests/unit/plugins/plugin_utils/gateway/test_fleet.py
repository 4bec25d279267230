"""Which Sparks a gateway may send requests to, by what they have on record."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.sparkfleet.vllm.plugins.filter.gateway import FilterModule

SERVERS = FilterModule().filters()["gateway_servers"]


def record(**given: Any) -> dict[str, Any]:
    return {
        "recipe": "first",
        "container": {"image": "vllm@sha256:0", "published_ports": ["192.0.2.7:8001:8001"]},
        "models": {},
        "files": [],
        "gate": {"served_model": "chat", "base_url": "http://127.0.0.1:8001"},
    } | given


def spark(serving: Any = None, **variables: Any) -> dict[str, Any]:
    current = None if serving is None else {"serving": serving, "gate": {}}
    state = {"version": 1, "current": current, "last_good": None}
    content = base64.b64encode(json.dumps(state).encode()).decode()
    return {"__gateway_record": content, "ansible_host": "192.0.2.7"} | variables


def servers(**hosts: Any) -> Any:
    return SERVERS(list(hosts), hosts)


def test_a_spark_that_passed_is_a_server() -> None:
    assert servers(a=spark(record())) == [
        {
            "name": "a",
            "model": "chat",
            "recipe": "first",
            "address": "192.0.2.7",
            "port": 8001,
            "agent": 8621,
        }
    ]


@pytest.mark.parametrize(
    ("given", "port"),
    [
        ({"spark_watchdog": "act"}, 8621),
        ({"spark_watchdog": "", "spark_watchdog_port": ""}, 8621),
        ({"spark_watchdog": "observe", "spark_watchdog_port": 9000}, 9000),
        ({"spark_watchdog": "off"}, None),
        ({"spark_watchdog": False}, None),
    ],
)
def test_the_watchdog_of_a_spark_is_asked_unless_it_has_none(given: dict[str, Any], port: int | None) -> None:
    """YAML reads a bare off as false. A question of a controller that was left blank is an empty text."""
    assert servers(a=spark(record(), **given))[0].get("agent") == port


def test_the_address_of_the_fleet_comes_before_that_of_ansible() -> None:
    assert servers(a=spark(record(), spark_address="192.0.2.8"))[0]["address"] == "192.0.2.8"


def test_of_a_unit_only_the_head_is_a_server() -> None:
    """Also if the record of a worker names no address at which it answers."""
    worker = record(unit={"name": "pair", "rank": 1}, gate={"served_model": "chat", "base_url": None})
    found = servers(a=spark(record(unit={"name": "pair", "rank": 0})), b=spark(worker), c=spark(record()))
    assert [server["name"] for server in found] == ["a", "c"]


def test_what_has_not_passed_or_gave_no_state_is_none() -> None:
    assert servers(a=spark(None), b={"__gateway_record": ""}) == []


FORMER = [{"name": "a", "model": "chat", "recipe": "first", "address": "192.0.2.9", "port": 8002}]


def former(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def test_one_that_does_not_answer_stays_as_the_gateway_had_it() -> None:
    """The network between controller and Spark is down, and that between gateway and Spark may not be."""
    lost = {"a": {"__gateway_record": None}, "b": {"__gateway_record": None}}
    assert SERVERS(list(lost), lost, former(json.dumps(FORMER))) == FORMER
    assert SERVERS(list(lost), lost, "") == []
    passed = {"a": spark(record())}
    assert SERVERS(["a"], passed, former(json.dumps(FORMER)))[0]["port"] == 8001
    left = {"a": spark(None)}
    assert SERVERS(["a"], left, former(json.dumps(FORMER))) == []


@pytest.mark.parametrize("text", ["", "{}", "[1]", "[", "[" * 100_000])
def test_a_damaged_file_of_former_servers_is_refused_only_when_it_is_needed(text: str) -> None:
    lost, passed = {"a": {"__gateway_record": None}}, {"a": spark(record())}
    given = former(text) or "!"
    assert len(SERVERS(["a"], passed, given)) == 1
    with pytest.raises(AnsibleFilterError, match="servers.json of this gateway: expected"):
        SERVERS(["a"], lost, given)


def test_a_record_is_read_once_a_run() -> None:
    hosts: dict[str, Any] = {"a": spark(record()), "b": {}, "c": {"__gateway_record": None}}
    assert FilterModule().filters()["gateway_unread"](list(hosts), hosts) == ["b"]


def test_an_open_port_of_the_host_network_is_taken() -> None:
    assert servers(a=spark(record(container={"image": "vllm@sha256:0"})))[0]["port"] == 8001


CLOSED = record(container={"image": "vllm@sha256:0", "published_ports": ["127.0.0.1:8001:8001"]})


def test_a_port_on_loopback_is_open_to_a_gateway_on_the_spark_itself() -> None:
    assert servers(a=spark(CLOSED, spark_address="127.0.0.1"))[0]["address"] == "127.0.0.1"


@pytest.mark.parametrize(
    ("host", "said"),
    [
        (spark(CLOSED), "do: set vllm_serve_bind"),
        (spark(record(gate={"served_model": "chat"})), "current.serving.gate.base_url"),
        (spark({"container": 1}), "move the file away"),
        ({"__gateway_record": "!"}, "move the file away"),
        ({"__gateway_record": base64.b64encode(b"\xff").decode()}, "move the file away"),
    ],
)
def test_what_is_refused(host: dict[str, Any], said: str) -> None:
    with pytest.raises(AnsibleFilterError) as refused:
        servers(a=host)
    assert said in str(refused.value)
    assert "expected" in str(refused.value)
