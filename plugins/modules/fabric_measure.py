#!/usr/bin/python
# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: fabric_measure
version_added: "0.1.0"
author:
  - The sparkfleet.vllm authors (@sparkfleet)
short_description: Measure the network between the members of a unit
description:
  - Does one of the four steps of a measurement, each bounded in time. The tasks of the role C(fabric) keep the order.
  - V(reach) sends packets that may not be fragmented. It needs root and no program.
  - V(listen) starts servers as transient units of systemd, for the peers alone. Systemd ends them when the time is over.
  - V(load) measures against the servers of peers, one after the other. V(end) ends those of this host.
  - What could not be measured is in the result, and no failure.
options:
  step:
    description: Which step.
    type: str
    choices: [reach, listen, load, end]
    required: true
  address:
    description: IPv4 address of this host, at which the servers listen.
    type: str
    default: ""
  interface:
    description: Its interface.
    type: str
    default: ""
  peers:
    description: IPv4 addresses of the other members.
    type: list
    elements: str
    default: []
  mtu:
    description: Bytes of an IP packet that must pass in one piece.
    type: int
    default: 9000
  listeners:
    description: Servers, each with C(tool) (V(iperf3) or V(ib_write_bw)), C(port), C(device) and C(gid_index).
    type: list
    elements: dict
    default: []
    suboptions: &lane
      tool:
        description: Program that measures.
        type: str
        choices: [iperf3, ib_write_bw]
        required: true
      port:
        description: TCP port of its server.
        type: int
        required: true
      device:
        description: RDMA device of this host.
        type: str
        default: ""
      gid_index:
        description: Where its table of addresses has RoCE v2 over IPv4.
        type: int
        default: 0
  measurements:
    description: What to measure, each like one of O(listeners), with its C(peer).
    type: list
    elements: dict
    default: []
    suboptions:
      <<: *lane
      peer:
        description: IPv4 address of the other member.
        type: str
        required: true
  seconds:
    description: Seconds of each measurement.
    type: int
    default: 5
  lifetime:
    description: Seconds after which systemd ends a server.
    type: int
    default: 900
extends_documentation_fragment:
  - sparkfleet.vllm.internal
attributes:
  check_mode:
    description: Reaches the peers, and starts and measures nothing.
    support: full
  diff_mode:
    description: There is no difference to show.
    support: none
  idempotent:
    description: Each run measures again. Nothing stays on the host.
    support: full
"""

EXAMPLES = r"""
- name: Reach the other members at jumbo size
  sparkfleet.vllm.fabric_measure:
    step: reach
    address: 192.168.100.11
    interface: enp1s0f0np0
    peers: [192.168.100.12]
  become: true
"""

RETURN = r"""
reached:
  description: For each peer the C(problem), empty if a packet of that size came back in one piece.
  returned: with O(step=reach)
  type: list
  elements: dict
  sample: [{peer: 192.168.100.12, problem: ""}]
measured:
  description:
    - For each measurement C(peer), C(tool), C(device) and C(gigabits) a second. These are null with a C(problem), C(absent) if the
      program is not there.
  returned: with O(step=load)
  type: list
  elements: dict
  sample: [{peer: 192.168.100.12, tool: iperf3, device: "", gigabits: 43.1, problem: "", absent: false}]
silent:
  description: Why a server does not listen, by port.
  returned: with O(step=listen)
  type: dict
  sample: {"5201": iperf3 is not there}
"""

import contextlib
import ipaddress
import re
from collections.abc import Mapping
from typing import Any

from ..module_utils._common.basic import AnsibleModule
from ..module_utils._host import bandwidth, echo
from ..module_utils._host.bandwidth import Lane
from ..module_utils._host.request import CommandAbsentError, ProbeError

LANE: dict[str, dict[str, Any]] = {
    "tool": {"type": "str", "choices": [bandwidth.TCP, bandwidth.RDMA], "required": True},
    "port": {"type": "int", "required": True},
    "device": {"type": "str", "default": ""},
    "gid_index": {"type": "int", "default": 0},
}
ARGUMENTS: dict[str, dict[str, Any]] = {
    "step": {"type": "str", "choices": ["reach", "listen", "load", "end"], "required": True},
    "address": {"type": "str", "default": ""},
    "interface": {"type": "str", "default": ""},
    "peers": {"type": "list", "elements": "str", "default": []},
    "mtu": {"type": "int", "default": 9000},
    "listeners": {"type": "list", "elements": "dict", "default": [], "options": LANE},
    "measurements": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {**LANE, "peer": {"type": "str", "required": True}},
    },
    "seconds": {"type": "int", "default": 5},
    "lifetime": {"type": "int", "default": 900},
}
BOUNDS = {"mtu": (576, 65535), "seconds": (1, 60), "lifetime": (1, 7200)}


def invalid(params: Mapping[str, Any]) -> str:
    """What an argument spec does not find; empty for nothing. All of it goes into commands."""
    for name, (low, high) in BOUNDS.items():
        if not low <= params[name] <= high:
            return f"{name}: expected {low} to {high}, got {params[name]}"
    lanes = [*params["listeners"], *params["measurements"]]
    for address in (params["address"], *params["peers"], *(each["peer"] for each in params["measurements"])):
        try:
            ipaddress.IPv4Address(address)
        except ValueError:
            return f"expected IPv4 addresses, got {address!r:.60}"
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,14}", params["interface"]):
        return f"interface: expected the name of one, got {params['interface']!r:.60}"
    for lane in lanes:
        if not 1024 <= lane["port"] <= 65535:
            return f"port: expected 1024 to 65535, got {lane['port']}"
        if lane["tool"] == bandwidth.RDMA and not re.fullmatch(
            r"[A-Za-z0-9_][A-Za-z0-9_-]{0,63}", lane["device"]
        ):
            return f"device: expected the name of an RDMA device, got {lane['device']!r:.60}"
    return ""


def lane_of(option: Mapping[str, Any]) -> Lane:
    return Lane(option["tool"], option["port"], option["device"], option["gid_index"])


def listen(params: Mapping[str, Any]) -> dict[str, Any]:
    silent = {}
    for option in params["listeners"]:
        try:
            bandwidth.listen(lane_of(option), params["address"], params["peers"], params["lifetime"])
        except ProbeError as error:
            silent[str(option["port"])] = str(error)
    return {"silent": silent}


def load(params: Mapping[str, Any]) -> dict[str, Any]:
    measured = []
    for option in params["measurements"]:
        result: dict[str, Any] = {"gigabits": None, "problem": "", "absent": False}
        try:
            result["gigabits"] = round(
                bandwidth.measure(lane_of(option), params["address"], option["peer"], params["seconds"]), 2
            )
        except ProbeError as error:
            result |= {"problem": str(error), "absent": isinstance(error, CommandAbsentError)}
        measured.append({name: option[name] for name in ("peer", "tool", "device")} | result)
    return {"measured": measured}


def end(params: Mapping[str, Any]) -> dict[str, Any]:
    for option in params["listeners"]:
        with contextlib.suppress(CommandAbsentError):  # without systemd nothing was started
            bandwidth.end(lane_of(option))
    return {}


def reach(params: Mapping[str, Any]) -> dict[str, Any]:
    own, interface, mtu = (params[name] for name in ("address", "interface", "mtu"))
    return {
        "reached": [
            {"peer": peer, "problem": echo.problem(own, peer, interface, mtu)} for peer in params["peers"]
        ]
    }


STEPS = {"reach": reach, "listen": listen, "load": load, "end": end}


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    params = module.params
    if problem := invalid(params):
        module.fail_json(msg=problem)
    if module.check_mode and params["step"] != "reach":
        params["listeners"], params["measurements"] = [], []
    try:
        module.exit_json(changed=False, **STEPS[params["step"]](params))
    except ProbeError as error:
        module.fail_json(
            msg=f"expected systemd to end what measures, seen: {error}; do: systemctl stop 'sparkfleet-fabric-*'"
        )


if __name__ == "__main__":
    main()
