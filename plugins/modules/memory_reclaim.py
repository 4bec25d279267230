#!/usr/bin/python
# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: memory_reclaim
short_description: Make room in unified memory before vLLM starts
version_added: "0.1.0"
author:
  - The sparkfleet.vllm authors (@sparkfleet)
description:
  - On a Spark the GPU and the CPU share one memory, and the page cache counts as used. If a vLLM starts before its predecessor has
    freed its memory, or with a full page cache, it fails or freezes the host.
  - Stops the container that will be replaced, and its unit if there is one, so that nothing starts it again. Then drops clean caches,
    and waits until enough memory is available.
  - Refuses, before it stops the container, if memory would not suffice without it. GPU memory of other processes belongs to no
    process in the list, so a shortage of that kind shows only afterwards.
options:
  container:
    description: Container to stop first. It need not exist or run.
    type: str
  fraction:
    description:
      - Share of the total memory that must be available, as given to vLLM by C(--gpu-memory-utilization).
      - One of O(fraction) and O(minimum_bytes) is required.
    type: float
  minimum_bytes:
    description: Bytes that must be available.
    type: int
  drop_caches:
    description: Write back dirty pages and drop the page cache, dentries and inodes. Later reads are slower; no data is lost.
    type: bool
    default: true
  stop_timeout:
    description: Seconds that the container has to stop before it is killed. One that was created with more gets those.
    type: int
    default: 30
  timeout:
    description: Seconds to wait for memory to become available.
    type: int
    default: 60
attributes:
  check_mode:
    description: Stops nothing and drops nothing; reports what it would stop.
    support: full
  diff_mode:
    description: Nothing to compare.
    support: none
  idempotent:
    description: Changes nothing if there is no container to stop and enough memory.
    support: full
requirements:
  - docker (Python package) on the host, when O(container) is given
"""

EXAMPLES = r"""
- name: Make room for a server that takes 65 % of the memory
  sparkfleet.vllm.memory_reclaim:
    container: sparkfleet-vllm
    fraction: 0.65
"""

RETURN = r"""
total_bytes:
  description: MemTotal of the host.
  type: int
  returned: success
  sample: 128849018880
available_bytes:
  description: MemAvailable when the module ended.
  type: int
  returned: success
  sample: 120259084288
required_bytes:
  description: Required available memory.
  type: int
  returned: success
  sample: 83751862272
made:
  description: Whether the memory is available now; false in check mode.
  type: bool
  returned: success
  sample: true
stopped_at:
  description: When the stop began, Unix time in seconds by the host's clock; null if nothing was stopped.
  type: float
  returned: success
  sample: 1764026120.2
stopped:
  description: Whether a running container was stopped (in check mode, would be).
  type: bool
  returned: success
  sample: true
"""

import os
import time
import traceback
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import missing_required_lib

from ..module_utils._common.basic import AnsibleModule
from ..module_utils._host import unit
from ..module_utils._host.request import ProbeError
from ..module_utils._run.lock_file import hold
from ..module_utils._serve import memory

try:
    import docker
    import docker.errors
except ImportError:
    DOCKER_IMPORT_ERROR: str | None = traceback.format_exc()
else:
    DOCKER_IMPORT_ERROR = None

PROC = Path("/proc")


def find(module: AnsibleModule, name: str) -> Any:
    """The container if it runs, or is about to start by itself; None if there is nothing to stop."""
    if DOCKER_IMPORT_ERROR:
        module.fail_json(msg=missing_required_lib("docker"), exception=DOCKER_IMPORT_ERROR)
    try:
        container = docker.from_env(timeout=module.params["stop_timeout"] + 60).containers.get(name)
    except docker.errors.NotFound:
        return None
    except docker.errors.DockerException as error:
        module.fail_json(
            msg=f"expected a Docker engine that answers, seen: {error}; look at 'docker ps' on the host"
        )
    return container if container.status in ("running", "paused", "restarting") else None


def grace(module: AnsibleModule, container: Any) -> int:
    """Seconds for a stop. The old server may give running answers more time to end than the new one."""
    created_with = container.attrs["Config"].get("StopTimeout") if container is not None else None
    return max(int(module.params["stop_timeout"]), created_with or 0)


def stop_unit(module: AnsibleModule, name: str, seconds: int) -> None:
    """Stop the unit of a container. That stops the container, or keeps the unit from starting it in a moment."""
    try:
        unit.stop(f"{name}.service", seconds + 60)
    except ProbeError as error:
        module.fail_json(
            msg=f"expected systemd to stop {name}.service, seen: {error}; look at 'systemctl status {name}' on the host"
        )


def stop(module: AnsibleModule, container: Any) -> None:
    """Stop the container, and wait for its removal if the engine removes it by itself."""
    try:
        container.stop(timeout=grace(module, container))
        if container.attrs["HostConfig"].get("AutoRemove"):
            container.wait(condition="removed")
    except docker.errors.NotFound:
        pass
    except docker.errors.DockerException as error:
        module.fail_json(
            msg=f"expected to stop container {container.name}, seen: {error}; look at 'docker ps' on the host"
        )


def wait_for(needed: int, timeout: int) -> int:
    """Wait until MemAvailable reaches `needed`, for `timeout` seconds at most. Gives the last value."""
    deadline = time.monotonic() + timeout
    while True:
        available = memory.meminfo(PROC)["MemAvailable"]
        if available >= needed or time.monotonic() >= deadline:
            return available
        time.sleep(1)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "container": {"type": "str"},
            "fraction": {"type": "float"},
            "minimum_bytes": {"type": "int"},
            "drop_caches": {"type": "bool", "default": True},
            "stop_timeout": {"type": "int", "default": 30},
            "timeout": {"type": "int", "default": 60},
        },
        required_one_of=[("fraction", "minimum_bytes")],
        supports_check_mode=True,
    )
    hold(module)
    params = module.params
    if params["fraction"] is not None and not 0 < params["fraction"] <= 1:
        module.fail_json(msg=f"fraction: expected more than 0 and at most 1, got {params['fraction']}")
    try:
        sizes = memory.meminfo(PROC)
    except memory.MeminfoError as error:
        module.fail_json(msg=str(error))
    total = sizes["MemTotal"]
    needed = memory.required(total, fraction=params["fraction"], minimum=params["minimum_bytes"])
    container = find(module, params["container"]) if params["container"] else None
    leaving = container.attrs["State"]["Pid"] if container else None
    reachable = memory.ceiling(memory.usable(sizes), memory.holders(PROC), leaving)
    problem = memory.out_of_reach(reachable, needed, memory.largest(PROC))
    if problem:
        module.fail_json(msg=problem, changed=False, total_bytes=total, required_bytes=needed)
    stopped, stopped_at = container is not None, None
    if stopped and not module.check_mode:
        stopped_at = time.time()
    if params["container"] and not module.check_mode:
        stop_unit(module, params["container"], grace(module, container))
    if container is not None and not module.check_mode:
        stop(module, container)
    if params["drop_caches"] and not module.check_mode:
        os.sync()
        (PROC / "sys/vm/drop_caches").write_text("3")
    available = wait_for(needed, 0 if module.check_mode else params["timeout"])
    result = {
        "changed": stopped,
        "made": not module.check_mode,
        "stopped": stopped,
        "stopped_at": stopped_at,
        "total_bytes": total,
        "required_bytes": needed,
        "available_bytes": available,
    }
    problem = memory.shortage(available, needed, memory.largest(PROC))
    # In check mode the old container still holds memory that a run would free. Only a real run can judge.
    if problem and not (module.check_mode and stopped):
        module.fail_json(msg=problem, **result | {"made": False})
    module.exit_json(**result)


if __name__ == "__main__":
    main()
