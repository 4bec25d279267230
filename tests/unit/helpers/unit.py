# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Two Sparks that serve one model as one, for tests that are about what follows from it."""

from __future__ import annotations

from typing import Any

SUPERVISOR = "/srv/s/supervisor/0123456789abcdef"
TOPOLOGY = {"nodes": 2, "tensor_parallel": 2, "pipeline_parallel": 1}


def fabric(address: str = "192.0.2.1", gid: int | None = 3, twin_gid: int | None = 3) -> dict[str, Any]:
    """The network of a Spark: a port with its twin, and one without a cable."""
    down = {"address": None, "mtu": 1500, "up": False, "speed": None, "driver": "mlx5_core"}
    there = {"mtu": 9000, "up": True, "speed": 200000, "driver": "mlx5_core"}
    port = {"port": 1, "rate": 100}
    return {
        "interfaces": {
            "enp1s0f0np0": {"address": address, **there},
            "enP2p1s0f0np0": {"address": "198.51.100.1", **there},
            "enp1s0f1np1": down,
            "enP7s7": {"address": "203.0.113.1", "mtu": 1500, "up": True, "speed": 10000, "driver": "r8127"},
        },
        "rdma": [
            {**port, "device": "rocep1s0f0", "interface": "enp1s0f0np0", "state": "ACTIVE", "gid_index": gid},
            {**port, "device": "rocep1s0f1", "interface": "enp1s0f1np1", "state": "DOWN", "gid_index": None},
            {**port, "device": "roceP2p1s0f0", "interface": "enP2p1s0f0np0", "state": "ACTIVE", "gid_index": twin_gid},
            {**port, "device": "roceP2p1s0f1", "interface": "enP2p1s0f1np1", "state": "ACTIVE", "gid_index": 3},
        ],
        "kernel": "6.14",
    }  # fmt: skip


def host(unit: Any = "pair", address: str = "192.0.2.1", **more: Any) -> dict[str, Any]:
    """The variables of a Spark in a unit."""
    known = {"spark_unit": unit, "spark_unit_interface": "enp1s0f0np0", "spark_fabric": fabric(address)}
    return known | more


def member(rank: int = 0, **more: Any) -> dict[str, Any]:
    """The fact spark_member of one of two Sparks."""
    interface = "enp1s0f0np0"
    addresses = ("192.0.2.1", "192.0.2.2")
    members = [
        {"host": f"spark-{n}", "address": address, "interface": interface}
        for n, address in enumerate(addresses, 1)
    ]
    environment = {
        "VLLM_HOST_IP": addresses[rank],
        "GLOO_SOCKET_IFNAME": interface,
        "NCCL_SOCKET_IFNAME": interface,
        "TP_SOCKET_IFNAME": interface,
        "NCCL_IB_DISABLE": "0",
        "NCCL_IB_HCA": "roceP2p1s0f0,rocep1s0f0",
        "NCCL_IB_GID_INDEX": "3",
    }
    given = {"name": "pair", "rank": rank, "nodes": 2, "members": members, "environment": environment}
    return given | {"supervisor": SUPERVISOR} | more
