#!/usr/bin/python
# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: gateway_admit
version_added: "0.1.0"
author:
  - The sparkfleet.vllm authors (@sparkfleet)
short_description: Let Sparks that have passed their gate in again
description:
  - Runs on a gateway. Ends what a run has drained, and no maintenance, which is somebody's decision.
  - Lets a Spark in only where the gateway leads to the very server that passed, by model, address and port. Where it does not, the Spark
    stays out until the role C(gateway) has written that place anew.
options:
  sparks:
    description: Names of the Sparks. Default, all of the play that have passed in this run. Filled in by the controller side.
    type: list
    elements: str
  servers:
    description: The servers that passed. Filled in by the controller side.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name of the Spark in the inventory.
        type: str
        required: true
      pool:
        description: Name of the pool of its model.
        type: str
        required: true
      address:
        description: IP address at which gateways meet it.
        type: str
        required: true
      port:
        description: Its TCP port.
        type: int
        required: true
extends_documentation_fragment:
  - sparkfleet.vllm.gateway
  - sparkfleet.vllm.internal
attributes:
  check_mode:
    description: Reports which would be let in.
    support: full
  diff_mode:
    description: Shows the states before and after.
    support: full
  idempotent:
    description: Changes nothing for a Spark that is in.
    support: full
"""

EXAMPLES = r"""
- name: Let the Sparks of the play that passed in again
  sparkfleet.vllm.gateway_admit:
  loop: "{{ groups['gateways'] }}"
  delegate_to: "{{ item }}"
  run_once: true
  become: true
"""

RETURN = r"""
admitted:
  description: Those let in, as pool/name.
  returned: success
  type: list
  elements: str
  sample: [huihui-gemma4/spark-3]
outside:
  description: Those that stay out, by name, with the reason.
  returned: success
  type: dict
  sample: {spark-4: in maintenance}
"""

import contextlib
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from ..module_utils._common.basic import AnsibleModule
from ..module_utils._gateway import drain
from ..module_utils._gateway.answers import DRAINED, MAINTENANCE, READY, Server
from ..module_utils._gateway.module import ARGUMENT_SPEC, ask
from ..module_utils._gateway.states import States
from ..module_utils._run.lock_file import hold


def sort(
    servers: Sequence[Server], wanted: Sequence[Mapping[str, Any]]
) -> tuple[list[Server], dict[str, str]]:
    """The places to let in, and why others stay out."""
    admitted, outside = [], {}
    for each in wanted:
        place = drain.place(servers, each)
        if place is None:
            outside[each["name"]] = f"not in {each['pool']} at {each['address']} port {each['port']}"
        elif place.state == MAINTENANCE:
            outside[each["name"]] = "in maintenance"
        elif place.state == DRAINED:
            admitted.append(place)
    return admitted, outside


def run(module: AnsibleModule, states: States) -> dict[str, Any]:
    with contextlib.nullcontext() if module.check_mode else states.alone():
        admitted, outside = sort(states.haproxy.servers(), module.params["servers"])
        if admitted and not module.check_mode:
            states.give(admitted, READY)
    return {
        "changed": bool(admitted),
        "admitted": [server.key for server in admitted],
        "outside": outside,
        "diff": {
            "before": {server.key: server.state for server in admitted},
            "after": {server.key: READY for server in admitted},
        },
    }


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "sparks": {"type": "list", "elements": "str"},
            "servers": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "name": {"type": "str", "required": True},
                    "pool": {"type": "str", "required": True},
                    "address": {"type": "str", "required": True},
                    "port": {"type": "int", "required": True},
                },
            },
            **ARGUMENT_SPEC,
        },
        supports_check_mode=True,
    )
    hold(module)
    outside = {each["name"]: "this gateway is not set up" for each in module.params["servers"]}
    ask(module, partial(run, module), {"admitted": [], "outside": outside})


if __name__ == "__main__":
    main()
