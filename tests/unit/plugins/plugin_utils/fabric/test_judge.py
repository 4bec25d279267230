from __future__ import annotations

import copy
from typing import Any

import pytest
from ansible_collections.sparkfleet.vllm.plugins.module_utils._host import fabric
from ansible_collections.sparkfleet.vllm.plugins.module_utils._host.request import Request
from ansible_collections.sparkfleet.vllm.plugins.plugin_utils.fabric.judge import devices, judge, twins
from helpers.fabric import ADDRESSES, spark

MAIN, TWIN, OTHER = "enp1s0f0np0", "enP2p1s0f0np0", "enp1s0f1np1"


@pytest.fixture
def members(tmp_path) -> list[dict[str, Any]]:
    """Two Sparks of one unit, as they should be."""
    seen = fabric.look(Request(root=spark(tmp_path), addresses=lambda: dict(ADDRESSES)))
    return [
        {"host": host, "interface": MAIN, "fabric": copy.deepcopy(seen)} for host in ("spark-1", "spark-2")
    ]


def found(members) -> list[tuple[str, str, bool]]:
    return [(each["host"], each["check"], each["refuses"]) for each in judge(members)]


def test_sparks_that_are_as_they_should_be_have_no_finding(members):
    assert judge(members) == []


def test_twins_are_one_port_in_two_domains(members):
    seen = members[0]["fabric"]
    assert set(twins(MAIN, seen["interfaces"])) == set(twins(TWIN, seen["interfaces"])) == {MAIN, TWIN}
    assert twins("enP7s7", seen["interfaces"]) == ["enP7s7"]
    assert [port["device"] for port in devices(MAIN, seen)] == ["roceP2p1s0f0", "rocep1s0f0"]


def spoilt(members, interface, **values):
    members[1]["fabric"]["interfaces"][interface].update(values)
    return found(members)


def test_a_kernel_that_breaks_rdma_is_refused_where_there_is_rdma(members):
    members[1]["fabric"]["kernel"] = "7.0.0-1019-nvidia"
    (finding,) = judge(members)
    assert (finding["host"], finding["check"], finding["refuses"]) == ("spark-2", "kernel", True)
    assert "7.0.0-1019-nvidia: reg_mr of RDMA fails with ENOMEM" in finding["seen"]
    for member in members:
        member["fabric"]["rdma"] = []
    assert judge(members) == []


def test_lanes_that_were_not_trained(members):
    members[1]["fabric"]["bios"] = "2026-01-20"
    link = {"width": 2, "max_width": 4, "speed": 32.0, "max_speed": 32.0}
    members[1]["fabric"]["interfaces"][TWIN]["link"] = link
    (finding,) = judge(members)
    assert (finding["check"], finding["expected"]) == ("lanes", f"4 PCIe lanes below {TWIN}")
    assert finding["seen"] == "2, BIOS of 2026-01-20" and "2026-04 or later" in finding["do"]


@pytest.mark.parametrize(
    ("interface", "values", "expected"),
    [
        (MAIN, {"up": False}, [("spark-2", "interface", True)]),
        (TWIN, {"up": False}, [("spark-2", "twin", False)]),
        (TWIN, {"address": None}, [("spark-2", "twin", False)]),
        (TWIN, {"mtu": 1500}, [("spark-2", "mtu", False)]),
        (MAIN, {"mtu": 1500}, [("spark-2", "mtu", False), ("spark-2", "mtu", True)]),
        (MAIN, {"mtu": None, "link": None}, []),
        (OTHER, {"up": False, "mtu": 1500}, []),
    ],
)
def test_an_interface_that_is_not_as_it_should_be(members, interface, values, expected):
    assert spoilt(members, interface, **values) == expected


def test_small_frames_of_an_interface_without_hardware_are_no_finding(members):
    for member in members:
        member["interface"] = "eth0"
        member["fabric"] = {
            "interfaces": {
                "eth0": {"address": "10.0.0.1", "mtu": 1500, "up": True, "speed": None, "driver": None, "link": None}
            },
            "rdma": [],
        }  # fmt: skip
    assert judge(members) == []


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"state": "DOWN"}, "roceP2p1s0f0 port 1 ACTIVE"),
        ({"state": None}, "ACTIVE"),
        ({"gid_index": None}, "RoCE v2 over IPv4 in the table of roceP2p1s0f0 port 1"),
    ],
)
def test_rdma_that_does_not_work(members, values, words):
    devices(MAIN, members[1]["fabric"])[0].update(values)
    (finding,) = judge(members)
    assert (finding["host"], finding["check"]) == ("spark-2", "rdma") and words in finding["expected"]


def test_members_that_differ(members):
    members[1]["interface"] = OTHER
    for name in (OTHER, "enP2p1s0f1np1"):
        members[1]["fabric"]["interfaces"][name].update(up=True, mtu=9000, address="192.168.100.12")
    for port in members[1]["fabric"]["rdma"]:
        port.update(state="ACTIVE", gid_index=3)
    (finding,) = judge(members)
    assert (finding["check"], finding["expected"], finding["seen"]) == (
        "port",
        f"the port of spark-1, {MAIN}",
        OTHER,
    )


def test_a_member_without_the_rdma_that_another_has(members):
    members[1]["fabric"]["rdma"] = []
    (finding,) = judge(members)
    assert (finding["expected"], finding["seen"]) == ("2 RDMA ports, as spark-1 has", "0")


@pytest.mark.parametrize("seen", [{}, {"interfaces": {}, "rdma": [], "kernel": None, "bios": None}])
def test_a_host_that_could_not_be_looked_at_has_no_interface(members, seen):
    members[0]["fabric"] = seen
    assert found(members) == [("spark-1", "interface", True)]
