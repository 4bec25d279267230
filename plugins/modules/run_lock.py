#!/usr/bin/python
# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: run_lock
short_description: Let only one run at a time work on a host
version_added: "0.1.0"
author:
  - The sparkfleet.vllm authors (@sparkfleet)
description:
  - Takes the lock of a host for the run of this task, or fails and names the holder and the time.
  - The lock is the file C(run.json) on the host, so that runs from two controllers see each other. It holds no secret.
  - From then on a small process on the controller, the keeper, gives a sign of life four times a lease. It removes the lock as
    soon as the run has ended, however that happened, so no playbook has to.
  - The module recognises a stale lock. It judges a run on the same controller by its process. Any other run is over if it gave no
    sign of life for its O(lease), by the clock of the host alone.
  - A restart of the host keeps its lock.
  - A second task of the same run accepts the run's own lock. It fails if the run had it and lost it, see O(state).
  - Each module of this collection that changes a host begins only while its run holds the lock, and must end before another run
    gets it. So two runs never work at the same time, however long one was cut off.
options:
  state_dir:
    description: Directory of the lock on the host, created if it is missing. Not needed with O(state=held).
    type: path
  state:
    description:
      - V(taken) takes the lock.
      - V(held) fails if the run has lost a lock that it had taken, and gives a sign of life otherwise. Use it before a module of
        another collection that changes the host; modules of this collection do it themselves. A run that has taken no lock passes.
      - V(released) releases the lock before the run has ended. Only a controller whose processes all end with the run needs it, see
        RV(lasting); without it the next run waits for one O(lease).
    type: str
    choices: [taken, held, released]
    default: taken
  lease:
    description: Seconds without a sign of life after which the lock has expired.
    type: int
    default: 120
  dead:
    description: Set by the controller only. Id of a run whose process has ended.
    type: str
    default: ""
  run:
    description: Set by the controller only. The run of this task.
    type: dict
    suboptions:
      id:
        description: Same for all tasks and hosts of the run.
        type: str
        required: true
      holder:
        description: User and controller, as user@controller.
        type: str
        required: true
      controller:
        description: Boot and process namespace in which the process id is valid. Empty if unknown.
        type: str
        required: true
      pid:
        description: Process of the run on the controller.
        type: int
        required: true
      started:
        description: When that process started, in its controller's own count.
        type: str
        required: true
      playbook:
        description: Playbooks of the run.
        type: str
        required: true
      job:
        description: Job of an automation controller. Empty without one.
        type: str
        required: true
extends_documentation_fragment:
  - sparkfleet.vllm.internal
attributes:
  check_mode:
    description: A check changes nothing and needs no lock. It takes none, and warns if another run works on the host.
    support: full
  diff_mode:
    description: The lock is not part of a host's configuration.
    support: none
  idempotent:
    description: Never reports a change.
    support: full
"""

EXAMPLES = r"""
- name: Hold the lock of the host
  sparkfleet.vllm.run_lock:
    state_dir: /var/lib/sparkfleet
"""

RETURN = r"""
refused:
  description: Whether another run holds the lock. The task fails then.
  type: bool
  returned: always
  sample: false
lost:
  description: Whether this run had the lock and no longer has it. The task fails then.
  type: bool
  returned: when it is so
  sample: true
held:
  description: The lock of another run, if there was one. Empty for one that could not be read.
  type: dict
  returned: when there was one
  sample:
    version: 1
    run: 0b6a3f5e-6f0a-5a5e-9d3b-2f6f6f0c8f1e
    holder: alice@control
    controller: 5e0b6c5e-3c1f-4f0e-8a53-6a5b8f0c2f11 pid:[4026531836]
    pid: 4711
    started: "81234"
    playbook: site.yml
    job: ""
    lease: 120
    since: "2026-11-24T04:00:00Z"
age:
  description: Seconds since the last sign of life of that run.
  type: float
  returned: when there was one
  sample: 12.5
taken_over:
  description: The former holder and why its lock had expired. Empty if there was none.
  type: str
  returned: success
  sample: ""
lasting:
  description: Whether the keeper outlives the run and releases the lock. Not in a container, which may end with the run.
  type: bool
  returned: always
  sample: true
fresh:
  description: Whether the run did not hold the lock before this task.
  type: bool
  returned: success
  sample: true
"""

from pathlib import Path
from typing import Any

from ..module_utils._common.basic import AnsibleModule
from ..module_utils._run import run_lock
from ..module_utils._run.lock_file import LockFile


def work(module: AnsibleModule, lock: LockFile, run: dict[str, Any]) -> dict[str, Any]:
    nothing = {"changed": False, "refused": False, "fresh": False, "taken_over": ""}
    if module.check_mode:
        seen = lock.look()
        verdict = run_lock.decide(seen, run, module.params["dead"])
        if verdict == run_lock.HELD:
            module.warn(f"what a check says may not last: {run_lock.refusal(seen, run)}")
    elif module.params["state"] == "released":
        lock.release(run)
        return nothing
    elif module.params["state"] == "held":
        found = lock.enter(run["id"], stay=False)
        return nothing | ({"failed": True, "lost": True, "msg": run_lock.lost(found)} if found else {})
    else:
        seen, verdict = lock.take(run, module.params["lease"], module.params["dead"])
    refused = verdict in (run_lock.HELD, run_lock.BUSY) and not module.check_mode
    result: dict[str, Any] = {"changed": False, "refused": refused}
    if verdict not in (run_lock.FREE, run_lock.OURS):
        result |= {"held": dict(seen.record or {}), "age": seen.age}
    if refused:
        text = run_lock.busy(seen) if verdict == run_lock.BUSY else run_lock.refusal(seen, run)
        return result | {"failed": True, "msg": text}
    taken = not module.check_mode
    return result | {
        "fresh": taken and verdict != run_lock.OURS,
        "taken_over": run_lock.taken_over(seen, verdict) if taken else "",
    }


def argument_spec() -> dict[str, Any]:
    text, number = {"type": "str", "required": True}, {"type": "int", "required": True}
    run = dict.fromkeys(("id", "holder", "controller", "started", "playbook", "job"), text)
    return {
        "state_dir": {"type": "path"},
        "state": {"type": "str", "choices": ["taken", "held", "released"], "default": "taken"},
        "lease": {"type": "int", "default": run_lock.LEASE},
        "dead": {"type": "str", "default": ""},
        "run": {"type": "dict", "options": {**run, "pid": number}},
    }


def main() -> None:
    module = AnsibleModule(
        argument_spec=argument_spec(),
        required_if=[("state", "taken", ["state_dir"]), ("state", "released", ["state_dir"])],
        supports_check_mode=True,
    )
    directory, run = Path(module.params["state_dir"]), module.params["run"]
    if not run:
        module.fail_json(
            msg="run: expected what its action fills in, seen nothing; use sparkfleet.vllm.run_lock in a task"
        )
    if module.params["lease"] < 1:
        module.fail_json(msg=f"lease: expected a second or more, seen {module.params['lease']}")
    try:
        result = work(module, LockFile(directory), run)
    except OSError as error:
        module.fail_json(
            msg=f"expected a lock in {directory}, seen: {error}; run with become, or name a directory that can be written"
        )
    if result.get("failed"):
        module.fail_json(**result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
