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
  - V(drained) sends the Spark nothing new and waits until its streams have ended, also those of a worker that a reload has replaced.
  - Refuses to drain the last usable server of a pool, before it changes anything.
  - Writes the states of all servers to a file, so that a drained server stays drained when HAProxy is reloaded or started again.
options:
  name:
    description: Name of the Spark in the inventory.
    type: str
    required: true
  state:
    description:
      - What the gateway may send it, V(ready) for requests and V(drained) for nothing new.
      - Without it the module only looks.
    type: str
    choices: [drained, ready]
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
    description: What to do if the gateway does not know this Spark. V(ignore) for one that may not be behind it yet.
    type: str
    choices: [fail, ignore]
    default: fail
  socket:
    description: Socket of HAProxy's master.
    type: path
    default: /run/sparkfleet-gateway/master.sock
  state_file:
    description: Where HAProxy reads the states of its servers when it starts. Empty to keep none.
    type: path
    default: /var/lib/sparkfleet-gateway/servers
extends_documentation_fragment:
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
- name: Take the Spark out of the traffic
  sparkfleet.vllm.gateway_server:
    name: spark-3
    state: drained
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

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..module_utils._common import files
from ..module_utils._common.basic import AnsibleModule
from ..module_utils._common.spelling import nearest
from ..module_utils._gateway import drain
from ..module_utils._gateway.answers import DRAINED, HaproxyError, Server
from ..module_utils._gateway.haproxy import Haproxy
from ..module_utils._run.lock_file import hold

COMMANDS = {"drained": "drain", "ready": "ready"}
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
    if module.params["state"] != DRAINED or module.params["allow_outage"]:
        return
    if lost := drain.outages(servers, mine):
        module.fail_json(
            msg=f"expected another usable server in {', '.join(lost)} before {module.params['name']} is drained, seen: none; do: "
            "bring another one back first, or allow the outage. Nothing was changed",
            outage=lost,
        )


def keep(module: AnsibleModule, haproxy: Haproxy) -> None:
    if not module.params["state_file"]:
        return
    path = Path(module.params["state_file"])
    try:
        files.write(path, haproxy.states().encode(), 0o644)
    except OSError as error:
        module.fail_json(
            msg=f"{files.unwritable(path, error)}. The server has its state, and would lose it when HAProxy is reloaded"
        )


def settle(module: AnsibleModule, haproxy: Haproxy, mine: Sequence[Server]) -> None:
    """Give the state to those places that lack it, and keep it."""
    state = module.params["state"]
    if wrong := [server for server in mine if server.state != state]:
        for server in wrong:
            haproxy.set_state(server, COMMANDS[state])
        keep(module, haproxy)


def wait(module: AnsibleModule, haproxy: Haproxy, mine: Sequence[Server]) -> tuple[list[Server], float]:
    """The places of the Spark with the state, and with no request if it is drained; or as they are when the time is over."""
    began = time.monotonic()
    while True:
        # Again, if a reload has brought a worker that read the states before they were kept.
        settle(module, haproxy, mine)
        mine = drain.named(haproxy.servers(), module.params["name"], module.params["pools"])
        waited = time.monotonic() - began
        settled = all(server.state == module.params["state"] for server in mine)
        left = drain.sessions(mine) if module.params["state"] == DRAINED else 0
        if (settled and not left) or waited >= module.params["timeout"]:
            return list(mine), waited
        time.sleep(PAUSE)


def shown(servers: Sequence[Server]) -> dict[str, str]:
    return {server.key: server.state for server in servers}


def run(module: AnsibleModule, haproxy: Haproxy) -> dict[str, Any]:
    state = module.params["state"]
    servers = haproxy.servers()
    mine = chosen(module, servers)
    before = shown(mine)
    wrong = [server for server in mine if state and server.state != state]
    after = before | {server.key: str(state) for server in wrong}
    waited = 0.0
    if wrong:
        refuse_an_outage(module, servers, wrong)
    if state and not module.check_mode:
        mine, waited = wait(module, haproxy, mine)
    return {
        "changed": bool(wrong),
        "diff": {"before": before, "after": after},
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
            "state": {"type": "str", "choices": list(COMMANDS)},
            "pools": {"type": "list", "elements": "str", "default": []},
            "timeout": {"type": "int", "default": 300},
            "allow_outage": {"type": "bool", "default": False},
            "absent": {"type": "str", "choices": ["fail", "ignore"], "default": "fail"},
            "socket": {"type": "path", "default": "/run/sparkfleet-gateway/master.sock"},
            "state_file": {"type": "path", "default": "/var/lib/sparkfleet-gateway/servers"},
        },
        supports_check_mode=True,
    )
    hold(module)
    try:
        result = run(module, Haproxy(module.params["socket"]))
    except HaproxyError as error:
        module.fail_json(
            msg=f"expected an answer of HAProxy on this gateway, seen: {error}; do: look at journalctl -u sparkfleet-gateway, and run again"
        )
    module.exit_json(**result)


if __name__ == "__main__":
    main()
