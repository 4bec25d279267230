# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who is in which unit, by inventory and network, and what makes no unit."""

from __future__ import annotations

import re
from typing import Any

import pytest
from ansible_collections.sparkfleet.vllm.plugins.plugin_utils.unit import members
from ansible_collections.sparkfleet.vllm.plugins.plugin_utils.unit.members import UnitError
from helpers import unit

SPARK_1, SPARK_2 = unit.host(), unit.host(address="192.0.2.2")
FLEET = {"spark-1": SPARK_1, "spark-0": {"spark_fabric": unit.fabric("192.0.2.9")}, "spark-2": SPARK_2}


def member(host: str, hosts: Any = FLEET, nodes: int = 2, played: Any = None) -> dict[str, Any]:
    return members.member(host, hosts, nodes, list(hosts) if played is None else played, unit.SUPERVISOR)


def test_the_order_of_the_hosts_gives_the_rank() -> None:
    assert member("spark-1") == unit.member(0)
    assert member("spark-2") == unit.member(1)
    turned = dict(reversed(FLEET.items()))
    assert member("spark-2", turned)["rank"] == 0
    assert [each["host"] for each in member("spark-1", turned)["members"]] == ["spark-2", "spark-1"]


def test_without_an_interface_of_the_unit_it_is_that_of_the_fleet() -> None:
    known = {name: value for name, value in SPARK_1.items() if name != "spark_unit_interface"}
    fleet = {**FLEET, "spark-1": known | {"spark_interface": "enP7s7"}}
    first = member("spark-2", fleet)["members"][0]
    assert (first["address"], first["interface"]) == ("203.0.113.1", "enP7s7")
    both = {**FLEET, "spark-1": SPARK_1 | {"spark_interface": "enP7s7"}}
    assert member("spark-1", both)["members"][0]["interface"] == "enp1s0f0np0"


def test_a_recipe_for_one_spark_is_served_by_each_alone() -> None:
    assert member("spark-1", nodes=1) == {}
    assert member("spark-9", nodes=1) == {}


def given(**hosts: Any) -> dict[str, Any]:
    return {**FLEET, **{name.replace("_", "-"): value for name, value in hosts.items()}}


@pytest.mark.parametrize(
    ("host", "hosts", "nodes", "says"),
    [
        ("spark-9", FLEET, 2, "expected spark-9 among the hosts that may be in a unit .* seen it elsewhere; put it into the group"),
        ("spark-0", FLEET, 2, "expected spark-0 in a unit of 2 Sparks, .* seen it in none; set spark_unit"),
        ("spark-1", FLEET, 3, "expected 3 Sparks in the unit pair .* seen 2: spark-1, spark-2; correct spark_unit"),
        ("spark-1", given(spark_3=unit.host(address="192.0.2.3")), 2, "seen 3: spark-1, spark-2, spark-3"),
        ("spark-1", given(spark_1=unit.host("Pair one")), 2, "small letters, digits and '-', seen 'Pair one'; rename"),
        ("spark-1", given(spark_1=unit.host("pair one")), 2, "seen 'pair one'"),
        ("spark-1", given(spark_1=unit.host("pair-")), 2, "seen 'pair-'"),
        ("spark-1", given(spark_1=unit.host(7)), 2, "seen 7"),
        ("spark-1", given(spark_2=unit.host(address="192.0.2.1")), 2, "address of its own .* 192.0.2.1 on spark-1 and spark-2; correct"),
        ("spark-1", given(spark_2=SPARK_2 | {"spark_fabric": {}}), 2, "expected to know the network of spark-2 .* it failed earlier"),
        ("spark-1", given(spark_2=SPARK_2 | {"spark_unit_interface": ""}), 2, "the interface by which spark-2 .* set spark_unit_interface"),
        ("spark-1", given(spark_2=SPARK_2 | {"spark_unit_interface": "eth9"}), 2, "of spark-2 on eth9, .* none there and enp1s0f0np0 192.0.2.2"),
        ("spark-1", given(spark_2=SPARK_2 | {"spark_unit_interface": "enp1s0f1np1"}), 2, "of spark-2 on enp1s0f1np1, .* seen none there"),
        ("spark-1", given(spark_2=unit.host(address="2001:db8::2")), 2, "expected an IPv4 address of spark-2"),
    ],
)  # fmt: skip
def test_what_makes_no_unit_is_refused_with_what_to_do(host: str, hosts: Any, nodes: int, says: str) -> None:
    with pytest.raises(UnitError, match=says):
        member(host, hosts, nodes)


def test_a_run_that_leaves_a_member_out_is_refused() -> None:
    with pytest.raises(
        UnitError, match=re.escape("expected all members of the unit pair in this run, seen none of spark-2")
    ):
        member("spark-1", played=["spark-1", "spark-0"])


def test_only_the_variables_that_it_names_are_read() -> None:
    class Watched(dict[str, Any]):
        def get(self, name: str, default: Any = None) -> Any:
            assert name in members.NAMES
            return super().get(name, default)

    fleet = {name: Watched(known) for name, known in FLEET.items()}
    assert member("spark-1", fleet) == unit.member(0)
