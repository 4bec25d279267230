#!/usr/bin/python
# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: watchdog
version_added: "0.1.0"
author:
  - The sparkfleet.vllm authors (@sparkfleet)
short_description: Set up or remove what watches the served vLLM on its own host
description:
  - Writes the program, its settings and its units, and starts the timer. From then on the host watches itself, without a controller.
  - The program looks at the server on record, in C(state.json). It writes C(<state_dir>/watchdog/verdict.json) after each look.
  - In the mode V(act) it restarts a server that makes no tokens, within bounds, and keeps evidence first. It does nothing while a run
    holds the lock of the host.
options:
  mode:
    description: V(observe) looks and tells, V(act) also restarts. V(off) removes units, program, settings, key and evidence.
    type: str
    choices: ["off", observe, act]
    default: observe
  agent_address:
    description: IP address on which the agent for the gateways listens. Empty for no agent.
    type: str
    default: ""
  agent_port:
    description: TCP port of the agent.
    type: int
    default: 8621
  interval:
    description: Seconds between two looks.
    type: int
    default: 20
  api_key:
    description: Key of the server, for the canary. Kept in a file that only root reads.
    type: str
  ready_timeout:
    description: Seconds that a start may take before a silent server counts as one that does not answer.
    type: int
    default: 1200
  canary_interval:
    description: Seconds between two canary completions on an idle server. After one that failed, each look sends one.
    type: int
    default: 60
  canary_timeout:
    description: Seconds that a canary completion may take.
    type: int
    default: 15
  stall:
    description: Seconds without any token, while requests wait for one, after which the engine counts as wedged.
    type: int
    default: 35
  restarts:
    description: Restarts within an hour. Instead of one more, the server is stopped and stays down.
    type: int
    default: 2
  memory_floor:
    description: GiB of available memory below which it warns.
    type: float
    default: 4
  swap_in:
    description: MiB read back from swap in a second above which it warns.
    type: float
    default: 10
  idle_watts:
    description: Watts of the GPU below which it warns, while the GPU is busy and requests run.
    type: float
    default: 30
  state_dir:
    description: Directory of C(state.json), and of the folder C(watchdog).
    type: path
    default: /var/lib/sparkfleet
  python:
    description: Python with the packages requests and prometheus_client, for the program.
    type: path
    default: /opt/sparkfleet/venv/bin/python
extends_documentation_fragment:
  - sparkfleet.vllm.internal
attributes:
  check_mode:
    description: Reports what it would change.
    support: full
  diff_mode:
    description: Shows settings and units before and after; of the program its digest, of the key only whether it changes.
    support: full
  idempotent:
    description: Does nothing if files and units are as they should be.
    support: full
"""

EXAMPLES = r"""
- name: Watch the server, and restart it when it makes no tokens
  sparkfleet.vllm.watchdog:
    mode: act
    agent_address: 192.168.1.21
  become: true
"""

RETURN = r"""
changes:
  description: What was changed, or would be; V(program), V(settings), V(key), the names of units, V(evidence).
  returned: success
  type: list
  elements: str
  sample: [program, settings, sparkfleet-watchdog.timer]
"""

from pathlib import Path
from typing import Any

from ..module_utils._common import files, sources
from ..module_utils._common.basic import AnsibleModule
from ..module_utils._host.request import ProbeError
from ..module_utils._run.lock_file import hold
from ..module_utils._watchdog import install, units
from ..module_utils._watchdog.plan import ARGUMENT_SPEC, planned
from ..module_utils._watchdog.settings import SettingsError


def run(module: AnsibleModule) -> dict[str, Any]:
    """:raises SettingsError, SourceError, ProbeError, OSError: it cannot be set up or removed"""
    params = module.params
    plan = planned(params)
    before, after = install.look(plan.places, plan.program), plan.after
    changes = install.changes(before, after)
    if changes and not module.check_mode:
        if params["mode"] == "off":
            install.remove(plan.places, before)
        else:
            install.apply(plan.places, before, after, plan.content, Path(params["python"]))
    return {"changed": bool(changes), "changes": changes, "diff": install.differences(before, after)}


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    hold(module)
    try:
        result = run(module)
    except (SettingsError, sources.SourceError) as error:
        module.fail_json(msg=str(error))
    except ProbeError as error:
        module.fail_json(
            msg=f"expected systemd to follow {units.TIMER}, and {module.params['python']} to compile the program, seen: {error}; "
            f"do: systemctl status {units.TIMER}, and run again"
        )
    except OSError as error:
        module.fail_json(msg=files.unwritable(error.filename or str(install.PROGRAMS), error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
