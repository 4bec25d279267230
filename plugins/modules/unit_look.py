#!/usr/bin/python
# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: unit_look
version_added: "0.1.0"
author:
  - The sparkfleet.vllm authors (@sparkfleet)
short_description: Look at a member of a unit
description:
  - Reads what the supervisor of the member says of itself and of the others, and asks the engine for the container.
  - A supervisor that is not at work does not fail the module; RV(problem) says so.
options:
  state_dir:
    description: Directory of C(state.json). The folder C(unit) in it has the status.
    type: path
    default: /var/lib/sparkfleet
  container:
    description: Name of the container. Empty to ask no engine.
    type: str
    default: ""
  wait:
    description: Seconds to wait until the member runs. It does not wait for a unit that is down.
    type: int
    default: 0
  socket:
    description: Socket of the Docker engine.
    type: path
    default: /var/run/docker.sock
extends_documentation_fragment:
  - sparkfleet.vllm.internal
  - sparkfleet.vllm.attributes.looks
"""

EXAMPLES = r"""
- name: Wait until the member runs
  sparkfleet.vllm.unit_look:
    container: vllm
    wait: 60
  become: true
"""

RETURN = r"""
phase:
  description: V(waiting), V(starting), V(running), V(ending) or V(down). Empty if no supervisor says one now.
  returned: success
  type: str
  sample: running
generation:
  description: The generation that the member runs in, or ran in last where no supervisor is at work. Empty without one.
  returned: success
  type: str
  sample: 26b73c5de516ae26
age:
  description: Seconds since the supervisor has said so; null if it never did.
  returned: success
  type: float
  sample: 0.4
unit:
  description: Name of the unit.
  returned: success
  type: str
  sample: pair
rank:
  description: Rank of the member. The head has 0; -1 if unknown.
  returned: success
  type: int
  sample: 1
nodes:
  description: Members of the unit; 0 if unknown.
  returned: success
  type: int
  sample: 2
restarts:
  description: Failures within the last hour, as the head counts them.
  returned: success
  type: int
  sample: 0
why:
  description: Why the last generation ended.
  returned: success
  type: str
  sample: "rank 1: its server ended with status 0"
members:
  description: By rank, those that the member knows of, with phase, generation and seconds since they were heard.
  returned: success
  type: dict
  sample: {"0": {"phase": "running", "generation": "26b73c5de516ae26", "age": 0.4}}
problem:
  description: Why there is no phase; empty with one.
  returned: success
  type: str
container:
  description: State of the container as the engine has it; empty if there is none, or the engine was not asked.
  returned: success
  type: str
  sample: running
waited:
  description: Seconds for which the module waited.
  returned: success
  type: float
  sample: 0.0
"""

import time
import urllib.parse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..module_utils._common.basic import AnsibleModule
from ..module_utils._common.paths import unit_path
from ..module_utils._host import engine_socket
from ..module_utils._unit import status, words

PAUSE = 0.5
"""Seconds between two looks."""


def look(folder: Path) -> dict[str, Any]:
    """:raises OSError: the status is there and cannot be read"""
    found, why_not = status.read(folder)
    return status.judged(found, why_not, time.time())


def wait(look_again: Callable[[], dict[str, Any]], timeout: float) -> tuple[dict[str, Any], float]:
    """The last look, and the seconds waited."""
    began = time.monotonic()
    while True:
        found, waited = look_again(), time.monotonic() - began
        if found["phase"] in (words.RUNNING, words.DOWN) or waited >= timeout:
            return found, waited
        time.sleep(PAUSE)


def container(socket: str, name: str) -> str:
    """:raises EngineError: the engine does not tell"""
    try:
        url = f"/containers/{urllib.parse.quote(name, safe='')}/json"
        return str(engine_socket.get(socket, url, expected={"State": {"Status": str}})["State"]["Status"])
    except engine_socket.EngineError as error:
        if error.status == 404:
            return ""
        raise


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "state_dir": {"type": "path", "default": "/var/lib/sparkfleet"},
            "container": {"type": "str", "default": ""},
            "wait": {"type": "int", "default": 0},
            "socket": {"type": "path", "default": "/var/run/docker.sock"},
        },
        supports_check_mode=True,
    )
    params = module.params
    folder = Path(unit_path(params["state_dir"]))
    try:
        found, waited = wait(lambda: look(folder), params["wait"])
        state = container(params["socket"], params["container"]) if params["container"] else ""
    except OSError as error:
        module.fail_json(
            msg=f"expected to read {folder / status.FILE}, seen: {error.strerror or error}; do: run it as root"
        )
    except engine_socket.EngineError as error:
        module.fail_json(
            msg=f"expected the engine to tell of {params['container']}, seen: {error}; do: systemctl status docker"
        )
    module.exit_json(changed=False, container=state, waited=round(waited, 1), **found)


if __name__ == "__main__":
    main()
