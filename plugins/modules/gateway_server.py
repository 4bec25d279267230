#!/usr/bin/python
# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: gateway_server
version_added: "0.1.0"
author:
  - The sparkfleet.vllm authors (@sparkfleet)
short_description: Take a Spark out of a gateway's traffic without loss, and let it in again
description:
  - Runs on a gateway, and speaks with its HAProxy over the socket of the master.
  - V(drained) and V(maintenance) send the Spark nothing new, and wait until its streams have ended, also those of a worker that a reload has replaced.
  - Refuses to drain the last usable server of a pool, before it changes anything.
  - Writes the states of all servers to a file, so that a drained server stays drained when HAProxy is reloaded or started again.
options:
  name:
    description: Name of the Spark in the inventory.
    type: str
    required: true
  state:
    description:
      - What the gateway may send it, V(ready) for requests and V(drained) for nothing new. A run drains a Spark that it changes, and lets
        it in again when it has passed.
      - V(maintenance) is for people. The Spark gets nothing new, as when drained, and no run lets it in.
      - Without it the module only looks.
    type: str
    choices: [drained, maintenance, ready]
  pools:
    description: Pools to change. Empty for all that have this Spark.
    type: list
    elements: str
    default: []
  timeout:
    description:
      - Seconds to wait until it has no request any more, after which the module returns all the same, with RV(idle) false.
    type: int
    default: 300
  allow_outage:
    description: Drain it even if nothing is left in its pool. Clients get 503 then.
    type: bool
    default: false
  absent:
    description: What to do if the gateway does not know this Spark, or is not set up yet. V(ignore) for a Spark that may not be behind it.
    type: str
    choices: [fail, ignore]
    default: fail
extends_documentation_fragment:
  - sparkfleet.vllm.gateway
  - sparkfleet.vllm.internal
attributes:
  check_mode:
    description: Reports whether the state would change. A refusal fails here, too. Waits for nothing.
    support: full
  diff_mode:
    description: Shows the state in each pool before and after.
    support: full
  idempotent:
    description: Changes nothing if the Spark has the state, and still waits for its last requests.
    support: full
"""

EXAMPLES = r"""
- name: Take the Spark out of the traffic until somebody lets it in
  sparkfleet.vllm.gateway_server:
    name: spark-3
    state: maintenance
    timeout: 600
  become: true

- name: Let it in again
  sparkfleet.vllm.gateway_server:
    name: spark-3
    state: ready
  become: true
"""

RETURN = r"""
servers:
  description: The places of the Spark, one a pool, as they are at the end.
  returned: success
  type: list
  elements: dict
  contains:
    pool:
      description: Name of the pool.
      type: str
    state:
      description: What it may get, V(ready), V(drained) or V(maintenance).
      type: str
    up:
      description: Whether it passes its checks.
      type: bool
    sessions:
      description: Requests that it has now.
      type: int
  sample: [{pool: huihui-gemma4, state: drained, up: true, sessions: 0}]
idle:
  description: Whether it has no request.
  returned: success
  type: bool
  sample: true
waited:
  description: Seconds for which the module waited.
  returned: success
  type: float
  sample: 12.4
"""

import contextlib
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

from ..module_utils._common.basic import AnsibleModule
from ..module_utils._common.spelling import nearest
from ..module_utils._gateway import drain
from ..module_utils._gateway.answers import READY, Server
from ..module_utils._gateway.module import ARGUMENT_SPEC, ask
from ..module_utils._gateway.states import COMMANDS, States
from ..module_utils._run.lock_file import hold

PAUSE = 0.2
"""Seconds between two looks."""


def chosen(module: AnsibleModule, servers: Sequence[Server]) -> list[Server]:
    name, pools = module.params["name"], module.params["pools"]
    found = drain.named(servers, name, pools)
    if not found and module.params["absent"] == "fail":
        close = nearest(name, {server.name for server in servers})
        module.fail_json(
            msg=f"expected {name} behind this gateway{' in ' + ', '.join(pools) if pools else ''}, seen: "
            f"{', '.join(sorted(server.key for server in servers)) or 'no server'}; do: "
            + (f"name {close}, or " if close and close != name else "")
            + "let gateway.yml put it there"
        )
    return found


def refuse_an_outage(module: AnsibleModule, servers: Sequence[Server], mine: Sequence[Server]) -> None:
    if module.params["state"] == READY or module.params["allow_outage"]:
        return
    if lost := drain.outages(servers, mine):
        module.fail_json(
            msg=f"expected another usable server in {', '.join(lost)} before {module.params['name']} is drained, seen: none; do: "
            "bring another one back first, or allow the outage. Nothing was changed",
            outage=lost,
        )


def settle(module: AnsibleModule, states: States) -> tuple[list[Server], list[Server]]:
    """Give the state to those places that lack it. Returns all places of the Spark, as they were before, and those changed."""
    state, change = module.params["state"], bool(module.params["state"]) and not module.check_mode
    with states.alone() if change else contextlib.nullcontext():
        servers = states.haproxy.servers()
        mine = chosen(module, servers)
        lacking = drain.lacking(mine, state) if state else []
        if lacking:
            refuse_an_outage(module, servers, lacking)
        if lacking and change:
            states.give(lacking, state)
    return mine, lacking


def wait(module: AnsibleModule, states: States) -> tuple[list[Server], float]:
    """The places of the Spark when they have the state, and no request unless it is ready; or as they are when the time is over."""
    began = time.monotonic()
    while True:
        # Gives the state again, if a reload has brought a worker that read the states before they were kept.
        mine, lacking = settle(module, states)
        waited = time.monotonic() - began
        left = 0 if module.params["state"] == READY else drain.sessions(mine)
        if not (lacking or left) or waited >= module.params["timeout"]:
            return mine, waited
        time.sleep(PAUSE)


def run(module: AnsibleModule, states: States) -> dict[str, Any]:
    state = module.params["state"]
    first, changed = settle(module, states)
    mine, waited = (first, 0.0) if not state or module.check_mode else wait(module, states)
    before = {server.key: server.state for server in first}
    return {
        "changed": bool(changed),
        "diff": {"before": before, "after": before | {server.key: state for server in changed}},
        "servers": [
            {"pool": each.pool, "state": each.state, "up": each.up, "sessions": each.sessions}
            for each in mine
        ],
        "idle": not drain.sessions(mine),
        "waited": round(waited, 1),
    }


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "state": {"type": "str", "choices": sorted(COMMANDS)},
            "pools": {"type": "list", "elements": "str", "default": []},
            "timeout": {"type": "int", "default": 300},
            "allow_outage": {"type": "bool", "default": False},
            "absent": {"type": "str", "choices": ["fail", "ignore"], "default": "fail"},
            **ARGUMENT_SPEC,
        },
        supports_check_mode=True,
    )
    hold(module)
    nothing = {"servers": [], "idle": True, "waited": 0.0}
    ask(module, partial(run, module), nothing if module.params["absent"] == "ignore" else None)


if __name__ == "__main__":
    main()
