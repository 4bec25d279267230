# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What differs by rank in a unit: arguments, environment, the program that runs the server. Pure.

All else is the same mapping for all members, so it cannot differ.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from ...module_utils._unit.install import MOUNT, RUN

STOP_WITHIN = 25
"""Seconds that vLLM has to end after it was asked to. Five less than the container has, so that the program can end it."""

ADDRESS = "VLLM_HOST_IP"
INTERFACES = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME", "TP_SOCKET_IFNAME")
OWN_VARIABLES = frozenset({ADDRESS, *INTERFACES})
"""Variables that are of one host alone, whatever a recipe says."""
BY_RANK = frozenset({*OWN_VARIABLES, "NCCL_IB_HCA", "NCCL_IB_GID_INDEX"})
"""Variables that may differ between members. Whether they use RDMA may not: those that do and those that do not never meet."""
BY_RANK_ARGUMENTS = frozenset({"node-rank", "headless", "host", "port"})
"""Options that may."""

ARGUMENTS: Mapping[str, Any] = {"distributed-timeout-seconds": 1800}
"""Unless somebody else says: how much later than the others a member may have loaded its weights. vLLM waits 600 s by itself."""
VARIABLES: Mapping[str, str] = {
    "VLLM_EXECUTE_MODEL_TIMEOUT_SECONDS": "120",
    "VLLM_ENGINE_READY_TIMEOUT_S": "3600",
}
"""Unless somebody else says: how long a step may take before the head gives the others up, which is 300 s otherwise, and how long an
engine may take until it is ready."""


def network(fabric: Mapping[str, Any], *, host: str, address: str, interface: str) -> dict[str, str]:
    """The variables by which vLLM, Gloo and NCCL of a host use its interface in the unit.

    :param fabric: C(spark_fabric) of that very host
    """
    return {ADDRESS: address, **dict.fromkeys(INTERFACES, interface), **_rdma(fabric, interface)}


def _rdma(fabric: Mapping[str, Any], interface: str) -> dict[str, str]:
    """NCCL's devices: that of the interface and its twin, which is the same port on the other half of the PCIe lanes. Each alone has half
    the rate. A device at another place of the address table cannot go with them: NCCL has one index for all.

    Without one NCCL is told so. It would look for others by itself, also on a network that nobody named.
    """
    ports = [port for port in fabric.get("rdma") or () if port["state"] == "ACTIVE" and port["interface"]]
    index = next((port["gid_index"] for port in ports if port["interface"] == interface), None)
    if index is None:
        return {"NCCL_IB_DISABLE": "1"}
    twins = [port for port in ports if _socket(port["interface"]) == _socket(interface)]
    devices = sorted({port["device"] for port in twins if port["gid_index"] == index})
    return {"NCCL_IB_DISABLE": "0", "NCCL_IB_HCA": ",".join(devices), "NCCL_IB_GID_INDEX": str(index)}


def _socket(interface: str) -> str:
    """The name of an interface without its PCIe domain, which alone tells twins apart: enp1s0f0np0 and enP2p1s0f0np0."""
    return re.sub(r"^enP[0-9]{1,5}p", "enp", interface)


def environment(unit: Mapping[str, Any], devices: Sequence[str]) -> dict[str, str]:
    """The variables of a member.

    :param unit: C(spark_member)
    :param devices: of the host that the container gets. Without those of RDMA it has none to use
    """
    own = dict(unit["environment"])
    if not any(f"{device}/".startswith("/dev/infiniband/") for device in devices):
        own = {name: text for name, text in own.items() if not name.startswith("NCCL_IB_")}
        own["NCCL_IB_DISABLE"] = "1"
    # The log is where NCCL tells that it fell back to TCP, and it tells so only here.
    told = {"NCCL_DEBUG": "INFO"} if "NCCL_IB_HCA" in own else {}
    return {**VARIABLES, **told, **own}


def arguments(unit: Mapping[str, Any], topology: Mapping[str, int], port: int) -> dict[str, Any]:
    """The serve arguments of a member, besides those of all.

    :param unit: C(spark_member)
    :param topology: with its defaults
    :param port: at which the head lets the others meet
    """
    made = {
        "tensor-parallel-size": topology["tensor_parallel"],
        "pipeline-parallel-size": topology["pipeline_parallel"],
        "nnodes": unit["nodes"],
        "node-rank": unit["rank"],
        "master-addr": unit["members"][0]["address"],
        "master-port": port,
    }
    return made | ({"headless": True} if unit["rank"] else {})


def supervisor_command(
    unit: Mapping[str, Any], entrypoint: Sequence[str], *, port: int, stop_within: int
) -> list[str]:
    """What starts the container of a member. It runs `entrypoint`, which gets the serve arguments, while all members run theirs.

    :param port: at which it listens on the head
    :param stop_within: seconds that vLLM has to end
    """
    options = {
        "--unit": unit["name"],
        "--rank": unit["rank"],
        "--nodes": unit["nodes"],
        "--head": unit["members"][0]["address"],
        "--port": port,
        "--key": f"{RUN}/key",
        "--status": f"{RUN}/status.json",
        "--stop-within": stop_within,
    }
    words = [str(word) for option in options.items() for word in option]
    return ["python3", MOUNT, *words, "--", *entrypoint]
