from __future__ import annotations

import copy
from typing import Any

import pytest
from ansible_collections.sparkfleet.vllm.plugins.action import fabric_plan, fabric_report
from ansible_collections.sparkfleet.vllm.plugins.module_utils._host import fabric
from ansible_collections.sparkfleet.vllm.plugins.module_utils._host.request import Request
from helpers import actions
from helpers.fabric import ADDRESSES, spark

FLOORS: dict[str, Any] = {"mtu": 9000, "tcp_floor": 12.0, "rdma_floor": 90.0}
PEER = "192.168.100.12"


@pytest.fixture
def hosts(tmp_path) -> actions.Hosts:
    seen = fabric.look(Request(root=spark(tmp_path), addresses=lambda: dict(ADDRESSES)))
    made: actions.Hosts = {}
    for number in (1, 2):
        own = copy.deepcopy(seen)
        own["interfaces"]["enp1s0f0np0"]["address"] = f"192.168.100.1{number}"
        made[f"spark-{number}"] = {
            "spark_unit": "a",
            "spark_interface": "enp1s0f0np0",
            "spark_fabric": own,
        }
    return made


def measured(gigabits: Any) -> dict[str, Any]:
    one = {"peer": PEER, "tool": "iperf3", "device": "", "gigabits": gigabits, "problem": "", "absent": False}
    return {"measured": [one]}


def report(hosts: actions.Hosts, **play: Any) -> dict[str, Any]:
    return actions.run(fabric_report, hosts, **FLOORS, **play)


def test_each_host_gets_its_part_of_the_plan(hosts):
    made = actions.run(fabric_plan, hosts, port=5201)["hosts"]
    assert made["spark-1"]["peers"] == [PEER] and made["spark-2"]["measurements"] == []


def test_a_network_as_it_should_be_is_shown_and_refuses_nobody(hosts, capsys):
    hosts["spark-1"] |= {
        "__fabric_reached": {"reached": [{"peer": PEER, "problem": ""}]},
        "__fabric_listened": {"skipped": True},
        "__fabric_measured": measured(43.2),
    }
    result = report(hosts)
    assert result["refused"] == {}
    shown = capsys.readouterr().out
    assert "unit" in shown and "43.2 Gb/s" in shown and "9000 bytes in one piece" in shown


def test_a_host_below_the_floor_is_refused_with_expected_seen_and_do(hosts):
    hosts["spark-1"]["__fabric_measured"] = measured(9.4)
    refused = report(hosts)["refused"]
    assert list(refused) == ["spark-1"]
    assert refused["spark-1"].startswith(
        "TCP spark-2: expected 12 Gb/s or more, seen 9.4 Gb/s; do: see cable"
    )


def test_a_host_that_failed_or_is_lost_is_in_the_table(hosts):
    hosts["spark-1"]["spark_failure"] = {"task": "Install what measures", "msg": "no route"}
    result = report(hosts, lost="spark-2")
    assert [(row["from"], row["seen"]) for row in result["rows"]] == [
        ("spark-1", "Install what measures: no route"),
        ("spark-2", "the host did not answer"),
    ]


@pytest.mark.parametrize("value", [measured("fast"), {"measured": "x"}, {"measured": [{"peer": PEER}]}])
def test_what_a_host_returns_in_another_form_is_told_and_spoils_nothing(hosts, value):
    hosts["spark-1"]["__fabric_measured"] = value
    (row,) = report(hosts)["rows"]
    assert (row["check"], row["verdict"]) == ("look", "refused") and "expected" in row["seen"]


def test_without_units_there_is_nothing_to_measure(capsys):
    assert report({"spark-1": {}})["rows"] == []
    assert "no host is in a unit: set spark_unit" in capsys.readouterr().out
