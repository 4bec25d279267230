"""Whom the monitoring asks, by inventory and records, and what is refused with expected, seen and do."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from ansible_collections.sparkfleet.vllm.plugins.plugin_utils.gateway.refusal import GatewayError
from ansible_collections.sparkfleet.vllm.plugins.plugin_utils.monitoring import plan
from helpers.monitoring import inputs, recorded

PASSED = {"spark-1": (recorded(), "192.0.2.1"), "spark-2": (recorded(9000), "192.0.2.2")}


def data(looks: dict[str, tuple[str | None, str]] | None = None, **given: Any) -> dict[str, Any]:
    return plan.plan(inputs(**given), PASSED if looks is None else looks).as_data()


def hosts(targets: list[dict[str, Any]]) -> dict[str, str]:
    """{address: name of the host}"""
    return {each["targets"][0]: each["labels"]["host"] for each in targets}


def test_a_server_is_asked_where_its_record_says() -> None:
    assert data()["targets"]["vllm"] == [
        {"targets": ["192.0.2.1:8000"], "labels": {"host": "spark-1", "spark": "spark-1"}},
        {"targets": ["192.0.2.2:9000"], "labels": {"host": "spark-2", "spark": "spark-2"}},
    ]


def test_every_host_is_asked_once_with_what_it_is() -> None:
    found = data(gateways={"gate-1": "192.0.2.9", "spark-2": "192.0.2.2"})["targets"]
    assert [(each["targets"][0], each["labels"]) for each in found["node"]] == [
        ("192.0.2.1:9100", {"host": "spark-1", "spark": "spark-1"}),
        ("192.0.2.2:9100", {"host": "spark-2", "spark": "spark-2", "gateway": "spark-2"}),
        ("192.0.2.9:9100", {"host": "gate-1", "gateway": "gate-1"}),
    ]
    assert hosts(found["haproxy"]) == {"192.0.2.9:8405": "gate-1", "192.0.2.2:8405": "spark-2"}


def test_a_spark_that_passed_nothing_has_no_server_to_ask() -> None:
    empty = base64.b64encode(b'{"version": 1, "current": null}').decode()
    assert data({"spark-1": ("", "192.0.2.1"), "spark-2": (empty, "192.0.2.2")})["targets"]["vllm"] == []


def test_a_worker_of_a_unit_has_no_server_to_ask_and_is_a_host_like_all() -> None:
    unit: dict[str, tuple[str | None, str]] = {
        name: (recorded(unit={"rank": rank}), at) for rank, (name, (_, at)) in enumerate(PASSED.items())
    }
    found = data(unit)
    assert list(hosts(found["targets"]["vllm"]).values()) == ["spark-1"] and found["left_out"] == []
    assert {"spark-1", "spark-2"} <= set(hosts(found["targets"]["node"]).values())


def test_a_spark_that_does_not_answer_is_asked_as_before() -> None:
    """The moment in which it has to be watched."""
    before = data()["targets"]["vllm"]
    former = base64.b64encode(json.dumps(before).encode()).decode()
    lost: dict[str, tuple[str | None, str]] = {"spark-1": ("", "192.0.2.1"), "spark-2": (None, "192.0.2.2")}
    assert data(lost, former=former)["targets"]["vllm"] == before[1:]


@pytest.mark.parametrize(
    "former", ["", "%", base64.b64encode(b'[{"targets": 1}]').decode(), base64.b64encode(b"{").decode()]
)
def test_damaged_targets_are_written_anew(former: str) -> None:
    assert data({"spark-1": (None, "192.0.2.1")}, former=former)["targets"]["vllm"] == []


def test_a_server_on_loopback_is_left_out_and_said() -> None:
    found = data(
        {"spark-1": (recorded(published=["127.0.0.1:8000:8000"]), "192.0.2.1"), "spark-2": PASSED["spark-2"]}
    )
    assert hosts(found["targets"]["vllm"]) == {"192.0.2.2:9000": "spark-2"}
    (said,) = found["left_out"]
    assert "spark-1: expected vLLM's port open at 192.0.2.1" in said
    assert "set vllm_serve_bind" in said


def test_a_spark_that_watches_itself_asks_its_server_on_loopback() -> None:
    looks: dict[str, tuple[str | None, str]] = {
        "spark-1": (recorded(published=["127.0.0.1:8000:8000"]), "192.0.2.1")
    }
    alone = data(looks, monitoring={"spark-1": "192.0.2.1"})
    assert (hosts(alone["targets"]["vllm"]), alone["left_out"]) == ({"127.0.0.1:8000": "spark-1"}, [])
    # The loopback of one is not that of the other.
    two = data(looks, monitoring={"spark-1": "192.0.2.1", "gate-1": "192.0.2.9"})
    assert two["targets"]["vllm"] == [] and len(two["left_out"]) == 1


def test_a_damaged_record_costs_only_its_spark() -> None:
    damaged = base64.b64encode(b"{").decode()
    found = data({"spark-1": (damaged, "192.0.2.1"), "spark-2": PASSED["spark-2"]})
    assert hosts(found["targets"]["vllm"]) == {"192.0.2.2:9000": "spark-2"}
    assert "spark-1, state.json" in found["left_out"][0]


def test_an_address_of_version_6_is_in_brackets() -> None:
    found = data({"spark-1": (recorded(), "2001:db8::1")}, sparks={"spark-1": "2001:db8::1"}, listen="::")
    assert hosts(found["targets"]["vllm"]) == {"[2001:db8::1]:8000": "spark-1"}
    assert (found["listens"], found["asks"]) == ("[::]:9090", "[::1]:9090")


def test_prometheus_asks_itself_where_it_listens() -> None:
    assert data()["asks"] == data(listen="0.0.0.0")["asks"] == "127.0.0.1:9090"
    assert data(listen="192.0.2.9", port="9999")["asks"] == "192.0.2.9:9999"


def test_a_scrape_ends_before_the_next_one() -> None:
    assert [data(interval=each)["timeout"] for each in (2, 10, 60)] == [2, 10, 10]


def test_numbers_that_are_given_take_the_place_of_the_defaults() -> None:
    found = data(thresholds={"queue": "20", "first_token": 0.5}, waits={"queue": 0})
    assert (found["thresholds"]["queue"], found["thresholds"]["first_token"]) == (20, 0.5)
    assert (found["thresholds"]["disk"], found["waits"]["queue"], found["waits"]["disk"]) == (10, 0, 900)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            {"thresholds": {"queue": -1}},
            "monitoring_thresholds, queue: expected a number from 0 to 10000, seen: -1",
        ),
        ({"thresholds": {"queue": True}}, "seen: True; do: correct the number"),
        ({"thresholds": {"queue": "nan"}}, "seen: 'nan'"),
        ({"thresholds": {"que": 1}}, "write queue"),
        ({"waits": {"queue": 1.5}}, "monitoring_waits, queue: expected a whole number"),
        ({"waits": {"drift": 100_000}}, "from 0 to 86400"),
        ({"waits": []}, "monitoring_waits: expected a mapping"),
        ({"listen": "gate-1"}, "monitoring_listen: expected an IP address"),
        ({"port": 0}, "monitoring_port: expected a whole number from 1 to 65535"),
        ({"exporter_port": 70_000}, "spark_exporter_port"),
        ({"gateway_metrics_port": "x"}, "spark_gateway_metrics_port"),
        ({"interval": 0}, "monitoring_interval"),
        ({"retention_days": 0}, "monitoring_retention_days"),
        ({"retention_gigabytes": 0}, "monitoring_retention_gigabytes"),
    ],
)
def test_what_nothing_is_made_of_is_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(GatewayError) as refused:
        data(**given)
    assert said in str(refused.value)
