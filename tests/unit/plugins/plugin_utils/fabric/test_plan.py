from __future__ import annotations

import copy
from typing import Any

import pytest
from ansible_collections.sparkfleet.vllm.plugins.module_utils._host import fabric
from ansible_collections.sparkfleet.vllm.plugins.module_utils._host.request import Request
from ansible_collections.sparkfleet.vllm.plugins.plugin_utils.fabric import plan
from ansible_collections.sparkfleet.vllm.plugins.plugin_utils.report import table
from helpers.fabric import ADDRESSES, spark

FLOORS = {plan.TCP: 12.0, plan.RDMA: 90.0}


@pytest.fixture
def hosts(tmp_path) -> dict[str, dict[str, Any]]:
    """A unit of three Sparks, and one that is in none."""
    seen = fabric.look(Request(root=spark(tmp_path), addresses=lambda: dict(ADDRESSES)))
    made: dict[str, dict[str, Any]] = {"alone": {"spark_fabric": seen}}
    for number in (1, 2, 3):
        own = copy.deepcopy(seen)
        own["interfaces"]["enp1s0f0np0"]["address"] = f"192.168.100.1{number}"
        made[f"spark-{number}"] = {
            "spark_unit": "a",
            "spark_unit_interface": "enp1s0f0np0",
            "spark_fabric": own,
        }
    return made


def test_each_pair_is_measured_once_from_its_lower_rank(hosts):
    made = plan.plan(hosts, 5201)
    pairs = [
        (host, each["peer"])
        for host, part in made.items()
        for each in part["measurements"]
        if each["tool"] == plan.TCP
    ]
    assert sorted(pairs) == [
        ("spark-1", "192.168.100.12"),
        ("spark-1", "192.168.100.13"),
        ("spark-2", "192.168.100.13"),
    ]
    assert made["spark-1"]["peers"] == ["192.168.100.12", "192.168.100.13"]
    assert made["spark-1"]["listeners"] == [] and made["spark-3"]["measurements"] == []
    assert made["alone"]["peers"] == [] and made["alone"]["listeners"] == []


def test_rdma_is_measured_by_each_device_that_works_at_a_port_of_its_own(hosts):
    lanes = plan.plan(hosts, 5201)["spark-3"]["listeners"]
    assert [(lane["tool"], lane["port"], lane["device"], lane["gid_index"]) for lane in lanes] == [
        ("iperf3", 5201, "", 0),
        ("ib_write_bw", 5202, "roceP2p1s0f0", 3),
        ("ib_write_bw", 5203, "rocep1s0f0", 3),
    ]
    for port in hosts["spark-3"]["spark_fabric"]["rdma"]:
        port["state" if port["device"] == "rocep1s0f0" else "gid_index"] = None
    made = plan.plan(hosts, 5201)
    assert [lane["tool"] for lane in made["spark-3"]["listeners"]] == ["iperf3"]
    assert [each["tool"] for each in made["spark-2"]["measurements"]] == ["iperf3"], (
        "as far as the other has it"
    )


def test_a_member_without_an_address_measures_nothing_and_is_measured_by_nobody(hosts):
    hosts["spark-2"]["spark_fabric"] = {}
    made = plan.plan(hosts, 5201)
    assert made["spark-2"]["peers"] == []
    assert made["spark-1"]["peers"] == ["192.168.100.13"]


def test_the_interface_of_the_fleet_is_that_of_the_unit_unless_it_has_its_own(hosts):
    hosts["spark-1"] |= {"spark_interface": "enp1s0f0np0", "spark_unit_interface": ""}
    assert plan.plan(hosts, 5201)["spark-1"]["address"] == "192.168.100.11"


def measured(gigabits: float | None, tool: str = "iperf3", **values: Any) -> dict[str, Any]:
    made = {
        "peer": "192.168.100.12",
        "tool": tool,
        "device": "",
        "gigabits": gigabits,
        "problem": "",
        "absent": False,
    }
    return {"measured": [made | values]}  # fmt: skip


@pytest.mark.parametrize(
    ("seen", "words", "verdict"),
    [
        ({"reached": [{"peer": "192.168.100.12", "problem": ""}]}, ("reach", "9000 bytes in one piece", "answered"), plan.FINE),
        ({"reached": [{"peer": "192.168.100.12", "problem": "it answers to 84 bytes, and to 9000 not"}]},
         ("reach", "9000 bytes in one piece", "it answers to 84 bytes, and to 9000 not"), plan.REFUSED),
        (measured(43.21), ("TCP", "12 Gb/s or more", "43.2 Gb/s"), plan.FINE),
        (measured(9.4), ("TCP", "12 Gb/s or more", "9.4 Gb/s"), plan.REFUSED),
        (measured(55.1, "ib_write_bw", device="rocep1s0f0"), ("RDMA rocep1s0f0", "90 Gb/s or more", "55.1 Gb/s"), plan.REFUSED),
        (measured(None, problem="iperf3: refused"), ("TCP", "12 Gb/s or more", "iperf3: refused"), plan.REFUSED),
        (measured(None, problem="iperf3 is not there", absent=True), ("TCP", "12 Gb/s or more", "iperf3 is not there"), plan.WARNED),
    ],
)  # fmt: skip
def test_a_row_says_what_was_expected_and_seen(hosts, seen, words, verdict):
    (row,) = plan.rows(hosts, {"spark-1": seen}, 9000, FLOORS)
    assert (row["unit"], row["from"], row["to"]) == ("a", "spark-1", "spark-2")
    assert ((row["check"], row["expected"], row["seen"]), row["verdict"]) == (words, verdict)
    assert (row["do"] == "-") == (verdict == plan.FINE)


@pytest.mark.parametrize(
    ("seen", "check", "verdict"),
    [
        ({"failure": "Install what measures: no route"}, "look", plan.REFUSED),
        ({"silent": {"5201": "iperf3 is not there"}}, "listen", plan.WARNED),
    ],
)
def test_a_host_that_did_not_get_that_far_has_a_row(hosts, seen, check, verdict):
    (row,) = plan.rows(hosts, {"spark-2": seen}, 9000, FLOORS)
    assert (row["from"], row["check"], row["verdict"]) == ("spark-2", check, verdict)


def test_a_host_that_could_not_be_looked_at_has_one_row(hosts):
    hosts["spark-2"]["spark_fabric"] = {}
    (row,) = plan.rows(hosts, {"spark-2": {"failure": "Look at the host: no Python"}}, 9000, FLOORS)
    assert (row["check"], row["seen"]) == ("look", "Look at the host: no Python")
    (row,) = plan.rows(hosts, {}, 9000, FLOORS)
    assert (row["from"], row["check"]) == ("spark-2", "interface")


def test_traps_are_rows_and_the_table_holds_them(hosts):
    hosts["spark-3"]["spark_fabric"]["kernel"] = "7.0.0-1019-nvidia"
    hosts["spark-3"]["spark_fabric"]["interfaces"]["enP2p1s0f0np0"]["up"] = False
    rows = plan.rows(hosts, {}, 9000, FLOORS)
    assert [(row["check"], row["verdict"]) for row in rows] == [
        ("kernel", plan.REFUSED),
        ("twin", plan.WARNED),
    ]
    assert "ENOMEM" in table.render(rows, plan.COLUMNS)[2]


def test_a_unit_of_one_is_told(hosts):
    hosts["alone"]["spark_unit"] = "b"
    hosts["alone"]["spark_interface"] = "enp1s0f0np0"
    (row,) = plan.rows(hosts, {}, 9000, FLOORS)
    assert (row["unit"], row["check"], row["seen"], row["verdict"]) == ("b", "members", "one", plan.REFUSED)
