# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What follows from the rank of a member and from the network of its host."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.sparkfleet.vllm.plugins.module_utils._vllm import ask_image
from ansible_collections.sparkfleet.vllm.plugins.plugin_utils.unit import derive
from helpers import unit

INTERFACE = "enp1s0f0np0"


def rdma(**over: Any) -> dict[str, str]:
    made = derive.network(unit.fabric(**over), host="spark-1", address="192.0.2.1", interface=INTERFACE)
    return {name: text for name, text in made.items() if name.startswith("NCCL_IB")}


def test_the_variables_are_those_of_the_host_itself() -> None:
    made = derive.network(unit.fabric(), host="spark-1", address="192.0.2.1", interface=INTERFACE)
    assert made == unit.member()["environment"]


def test_nccl_gets_a_device_and_its_twin_if_one_index_names_both() -> None:
    assert rdma()["NCCL_IB_HCA"] == "roceP2p1s0f0,rocep1s0f0"
    one = {"NCCL_IB_DISABLE": "0", "NCCL_IB_HCA": "rocep1s0f0", "NCCL_IB_GID_INDEX": "3"}
    assert rdma(twin_gid=5) == rdma(twin_gid=None) == one
    assert rdma(gid=5)["NCCL_IB_GID_INDEX"] == "5"


def test_a_device_that_is_down_is_not_nccls() -> None:
    network = unit.fabric()
    for port in network["rdma"][2:]:
        port["state"] = "DOWN"
    made = derive.network(network, host="spark-1", address="192.0.2.1", interface=INTERFACE)
    assert made["NCCL_IB_HCA"] == "rocep1s0f0"
    network["rdma"][0]["state"] = "INIT"
    made = derive.network(network, host="spark-1", address="192.0.2.1", interface=INTERFACE)
    assert made["NCCL_IB_DISABLE"] == "1"


@pytest.mark.parametrize("interface", ["enP7s7", "enp1s0f1np1", "eth0"])
def test_an_interface_without_rdma_is_no_reason_to_look_for_another(interface: str) -> None:
    made = derive.network(unit.fabric(), host="spark-1", address="192.0.2.1", interface=interface)
    assert {name: text for name, text in made.items() if "NCCL_IB" in name} == {"NCCL_IB_DISABLE": "1"}
    assert rdma(gid=None) == {"NCCL_IB_DISABLE": "1"}
    bare = derive.network({}, host="spark-1", address="192.0.2.1", interface=interface)
    assert bare["NCCL_IB_DISABLE"] == "1"


@pytest.mark.parametrize("devices", [["/dev/infiniband"], ["/dev/infiniband/uverbs0"]])
def test_a_container_with_the_devices_uses_them_and_waits_as_long_as_it_should(devices: list[str]) -> None:
    assert derive.environment(unit.member(), devices) == {
        **unit.member()["environment"],
        "VLLM_EXECUTE_MODEL_TIMEOUT_SECONDS": "120",
        "VLLM_ENGINE_READY_TIMEOUT_S": "3600",
        "NCCL_DEBUG": "INFO",
    }


@pytest.mark.parametrize("devices", [[], ["/dev/infinibandit"]])
def test_a_container_without_the_devices_is_told_so(devices: list[str]) -> None:
    made = derive.environment(unit.member(), devices)
    assert {name: text for name, text in made.items() if "NCCL_IB" in name} == {"NCCL_IB_DISABLE": "1"}
    assert "NCCL_DEBUG" not in made, "it has nothing to tell"
    assert made["NCCL_SOCKET_IFNAME"] == INTERFACE and made["VLLM_HOST_IP"] == "192.0.2.1"


def test_the_arguments_of_head_and_worker() -> None:
    head = {
        "tensor-parallel-size": 2,
        "pipeline-parallel-size": 1,
        "nnodes": 2,
        "node-rank": 0,
        "master-addr": "192.0.2.1",
        "master-port": 29501,
    }
    assert derive.arguments(unit.member(0), unit.TOPOLOGY, 29501) == head
    worker = head | {"node-rank": 1, "headless": True}
    assert derive.arguments(unit.member(1), unit.TOPOLOGY, 29501) == worker


def test_the_program_that_runs_the_server_meets_the_others_at_the_head() -> None:
    words = ["/entry.sh", "vllm", "serve"]
    made = derive.supervisor_command(unit.member(1), words, port=8622, stop_within=25)
    assert made == [
        "python3", "/opt/sparkfleet/unit", "--unit", "pair", "--rank", "1", "--nodes", "2", "--head", "192.0.2.1",
        "--port", "8622", "--key", "/run/sparkfleet/unit/key", "--status", "/run/sparkfleet/unit/status.json",
        "--stop-within", "25", "--", "/entry.sh", "vllm", "serve",
    ]  # fmt: skip
    assert ask_image.starting(made) == words
