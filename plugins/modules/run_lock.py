#!/usr/bin/python
# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: run_lock
short_description: Let one run at a time work on a host
version_added: "0.1.0"
author:
  - The sparkfleet.vllm authors (@sparkfleet)
description:
  - Takes the lock of a host for the run that the task is part of, or fails and says who holds it and since when.
  - The lock is the file C(run.json) on the host, so that runs from two controllers see each other. It holds no secret.
  - From then on a small process on the controller, the keeper, gives a sign of life four times a lease. It removes the lock as
    soon as the run has ended, however that was, so no playbook has to.
  - What nobody could remove is recognised. A run on the same controller is judged by its process. Any other is over when it
    gave no sign of life for its O(lease), by the clock of the host alone.
  - A host that is restarted meanwhile keeps its lock.
  - A second task of the same run finds the lock its own.
options:
  state_dir:
    description: Directory of the lock on the host, made if it is missing.
    type: path
    required: true
  state:
    description:
      - V(taken) takes the lock.
      - V(released) gives it back before the run has ended. Only a controller whose processes all end with the run needs
        it, see RV(lasting), and there is nothing lost without it but the time of a O(lease).
    type: str
    choices: [taken, released]
    default: taken
  lease:
    description: Seconds without a sign of life after which the lock holds nobody off.
    type: int
    default: 120
  dead:
    description: Set on the controller and nowhere else. Id of a run whose process was seen to have ended.
    type: str
    default: ""
  run:
    description: Set on the controller and nowhere else. The run that the task is part of.
    type: dict
    suboptions:
      id:
        description: Same for all tasks and hosts of the run.
        type: str
        required: true
      holder:
        description: Who runs it and where, user@controller.
        type: str
        required: true
      controller:
        description: Boot and process namespace in which the process id is valid. Empty where there is no telling.
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
attributes:
  check_mode:
    description: A check changes nothing and needs no lock. It takes none, and warns when a run is at work.
    support: full
  diff_mode:
    description: The lock is no part of what a host should be.
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
held:
  description: The lock that was found, when it is not this run's own. Empty for one that could not be read.
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
  description: Whose lock it was and why it is no longer one. Empty when there was none.
  type: str
  returned: success
  sample: ""
lasting:
  description: Whether the keeper outlives the run and gives the lock back. Not in a container, which may end with the run.
  type: bool
  returned: always
  sample: true
fresh:
  description: Whether the lock was not this run's own before.
  type: bool
  returned: success
  sample: true
"""

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.sparkfleet.vllm.plugins.module_utils import _file, _run_lock

PATIENCE = 10.0
"""Seconds for which whoever else is at the lock may take; a sign of life takes milliseconds."""


@contextlib.contextmanager
def guarded(path: Path) -> Iterator[None]:
    """Nobody else looks at the lock or changes it meanwhile.

    :raises OSError: the file cannot be opened, or stays held (BlockingIOError)
    """
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    deadline = time.monotonic() + PATIENCE
    try:
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
        yield
    finally:
        os.close(handle)


def look(path: Path) -> _run_lock.Seen:
    """The lock of the host.

    :raises OSError: it is there and cannot be read
    """
    try:
        with path.open("rb") as file:
            age = time.time() - os.fstat(file.fileno()).st_mtime
            content = file.read()
    except FileNotFoundError:
        return _run_lock.Seen()
    try:
        return _run_lock.Seen(_run_lock.parse(content.decode()), age=age)
    except ValueError as error:
        return _run_lock.Seen(damage=str(error), age=age)


def take(directory: Path, run: dict[str, Any], lease: int, dead: str) -> tuple[_run_lock.Seen, str]:
    """Take the lock if it may be had. Returns what was there, and what was made of it.

    :raises OSError: the directory cannot be made, read or written
    """
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / _run_lock.FILE
    with guarded(directory / _run_lock.GUARD):
        seen = look(path)
        verdict = _run_lock.decide(seen, run, dead)
        if verdict == _run_lock.OURS or (verdict == _run_lock.HELD and seen.age < 0):
            # Ahead of the clock: that was set back. From here on the lease of a dead run runs out; a live one says so anyway.
            os.utime(path)
        elif verdict != _run_lock.HELD:
            since = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
            text = json.dumps(_run_lock.record(run, lease, since), indent=2, sort_keys=True) + "\n"
            _file.write(path, text.encode())
    return seen, verdict


def release(directory: Path, run: dict[str, Any]) -> None:
    """Remove the lock if it is that of `run`.

    :raises OSError: the directory cannot be read or written
    """
    if not directory.is_dir():
        return
    path = directory / _run_lock.FILE
    with guarded(directory / _run_lock.GUARD):
        if _run_lock.decide(look(path), run) == _run_lock.OURS:
            path.unlink()


def work(module: AnsibleModule, directory: Path, run: dict[str, Any]) -> dict[str, Any]:
    if module.check_mode:
        seen = look(directory / _run_lock.FILE)
        verdict = _run_lock.decide(seen, run, module.params["dead"])
        if verdict == _run_lock.HELD:
            module.warn(f"what a check says may not last: {_run_lock.refusal(seen, run)}")
    elif module.params["state"] == "released":
        release(directory, run)
        return {"changed": False, "refused": False, "fresh": False, "taken_over": ""}
    else:
        seen, verdict = take(directory, run, module.params["lease"], module.params["dead"])
    refused = verdict == _run_lock.HELD and not module.check_mode
    result: dict[str, Any] = {"changed": False, "refused": refused}
    if verdict not in (_run_lock.FREE, _run_lock.OURS):
        result |= {"held": dict(seen.record or {}), "age": seen.age}
    if refused:
        return result | {"failed": True, "msg": _run_lock.refusal(seen, run)}
    taken = not module.check_mode
    return result | {
        "fresh": taken and verdict != _run_lock.OURS,
        "taken_over": _run_lock.taken_over(seen, verdict) if taken else "",
    }


def argument_spec() -> dict[str, Any]:
    text, number = {"type": "str", "required": True}, {"type": "int", "required": True}
    run = dict.fromkeys(("id", "holder", "controller", "started", "playbook", "job"), text)
    return {
        "state_dir": {"type": "path", "required": True},
        "state": {"type": "str", "choices": ["taken", "released"], "default": "taken"},
        "lease": {"type": "int", "default": _run_lock.LEASE},
        "dead": {"type": "str", "default": ""},
        "run": {"type": "dict", "options": {**run, "pid": number}},
    }


def main() -> None:
    module = AnsibleModule(argument_spec=argument_spec(), supports_check_mode=True)
    directory, run = Path(module.params["state_dir"]), module.params["run"]
    if not run:
        module.fail_json(
            msg="run: expected what its action fills in, seen nothing; use sparkfleet.vllm.run_lock in a task"
        )
    if module.params["lease"] < 1:
        module.fail_json(msg=f"lease: expected a second or more, seen {module.params['lease']}")
    try:
        result = work(module, directory, run)
    except OSError as error:
        module.fail_json(
            msg=f"expected a lock in {directory}, seen: {error}; run with become, or name a directory that can be written"
        )
    if result.get("failed"):
        module.fail_json(**result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
