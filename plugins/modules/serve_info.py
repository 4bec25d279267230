#!/usr/bin/python
# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: serve_info
short_description: Report what serves on a host, what passed there before, and whether that could serve again
version_added: "0.1.0"
author:
  - The sparkfleet.vllm authors (@sparkfleet)
description:
  - Looks at the container, the recorded state and the unit that keeps the container running, in one execution.
  - Lists for each record what is missing on the host, so that nothing stops for an impossible rollback.
options:
  container:
    description: Name of the serving container.
    type: str
    required: true
  state_dir:
    description: Directory of C(state.json).
    type: path
    required: true
extends_documentation_fragment:
  - sparkfleet.vllm.attributes.looks
requirements:
  - docker (Python package) on the host
"""

EXAMPLES = r"""
- name: Look at what is here
  sparkfleet.vllm.serve_info:
    container: sparkfleet-vllm
    state_dir: /var/lib/sparkfleet
  vars:
    ansible_python_interpreter: /opt/sparkfleet/venv/bin/python
"""

RETURN = r"""
container:
  description: The container as the engine knows it; null without one.
  type: dict
  returned: success
  contains:
    id:
      description: Full id.
      type: str
    status:
      description: For example V(running), V(exited) or V(restarting).
      type: str
    image:
      description: Image as the container names it.
      type: str
    started_at:
      description: When it was started last, RFC 3339.
      type: str
    edited:
      description: Program files that somebody changed inside it. Only a new container is without them.
      type: list
      elements: str
    restart_policy:
      description: What the engine does by itself when it ends.
      type: str
state:
  description: The recorded state; null without one.
  type: dict
  returned: success
  sample: {version: 1, current: {serving: {recipe: huihui-gemma4-mtp-n1}, gate: {drafts: 236}}, last_good: null}
problem:
  description: Why the recorded state cannot be used. Empty if it can.
  type: str
  returned: success
recorded:
  description: For C(current) and C(last_good) of the state, whether it could start again.
  type: dict
  returned: success
  contains:
    missing:
      description: Its parts that are no longer on the host, in words.
      type: list
      elements: str
    stamps:
      description: The files at its mounted patches now, by inode and modification time.
      type: list
      elements: str
unit:
  description: The unit that keeps the container running.
  type: dict
  returned: success
  contains:
    text:
      description: Content of the unit file; empty without one.
      type: str
    enabled:
      description: Whether it starts at boot.
      type: bool
    watches:
      description: Whether it is active and waits for the end of the container, to start it again.
      type: bool
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import missing_required_lib

from ..module_utils._common import files
from ..module_utils._common.basic import AnsibleModule
from ..module_utils._common.inspected import CONTAINER, unfit
from ..module_utils._drift.server import program_files
from ..module_utils._gate import container as gate_container
from ..module_utils._host import unit
from ..module_utils._images import image as images
from ..module_utils._serve import state as serve_state

if not images.DOCKER_IMPORT_ERROR:
    import docker
    import docker.errors


def look_container(client: Any, name: str) -> dict[str, Any] | None:
    try:
        data = client.api.inspect_container(name)
    except docker.errors.NotFound:
        return None
    if said := unfit(name, data, CONTAINER):
        raise docker.errors.DockerException(said)
    return {
        "id": data["Id"],
        "status": data["State"]["Status"],
        "image": data["Config"]["Image"],
        "started_at": data["State"]["StartedAt"],
        "restart_policy": ((data.get("HostConfig") or {}).get("RestartPolicy") or {}).get("Name") or "no",
        "stale": gate_container.stale_mounts(data["State"].get("Pid") or 0, bound(data))
        if data["State"]["Status"] == "running"
        else [],
        # The engine lists a file as added if it is mounted where the image has none.
        "edited": sorted(program_files(client.api.diff(name)).keys() - bound(data).keys()),
    }


def bound(data: Mapping[str, Any]) -> dict[str, str]:
    """The paths of the host that a container mounts: mount point -> source."""
    mounts = (mount for mount in data.get("Mounts") or [] if mount.get("Type") == "bind")
    return {mount["Destination"]: mount["Source"] for mount in mounts if mount.get("Source")}


def look_recorded(client: Any, serving: dict[str, Any]) -> dict[str, Any]:
    """What is missing of a recorded spec, and its files' stamps: ``{missing, stamps}``."""
    missing = [] if "gate" in serving else ["how it was judged, which this version cannot know"]
    image = serving["container"]["image"]
    if not images.present(client, image, image.partition("@")[2]):
        missing.append(f"image {image}")
    missing += [
        f"{role} in {model['path']}"
        for role, model in serving["models"].items()
        if not Path(model["path"]).is_dir()
    ]
    missing += [
        f"mount {mount['path']}" for mount in serving.get("mounts") or [] if not Path(mount["path"]).exists()
    ]
    stamps = []
    for file in serving["files"]:
        path = file.get("host_path")
        if not path:
            continue
        if not Path(path).is_file():
            missing.append(f"patch {path}")
        elif hashlib.sha256(Path(path).read_bytes()).hexdigest() != file["sha256"]:
            missing.append(f"patch {path} (it is there, with other content)")
        else:
            stamps.append(files.stamp(path))
    return {"missing": missing, "stamps": stamps}


def look_unit(name: str) -> dict[str, Any]:
    seen = unit.look(f"{name}.service")
    return {"text": seen.text or "", "enabled": seen.enabled == "enabled", "watches": seen.watches}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "container": {"type": "str", "required": True},
            "state_dir": {"type": "path", "required": True},
        },
        supports_check_mode=True,
    )
    if images.DOCKER_IMPORT_ERROR:
        module.fail_json(msg=missing_required_lib("docker"), exception=images.DOCKER_IMPORT_ERROR)
    name = module.params["container"]
    path = Path(module.params["state_dir"]) / "state.json"
    state, problem = None, ""
    try:
        state = serve_state.parse(path.read_text() if path.exists() else None)
    except (ValueError, OSError) as error:
        problem = serve_state.unreadable(str(path), error)
    try:
        client = docker.from_env()
        result = {
            "container": look_container(client, name),
            "recorded": {
                which: look_recorded(client, (state or {})[which]["serving"])
                for which in serve_state.KEPT
                if (state or {}).get(which)
            },
        }
    except docker.errors.DockerException as error:
        module.fail_json(
            msg=f"expected a Docker engine that answers, seen: {error}; run the prerequisites role"
        )
    module.exit_json(changed=False, state=state, problem=problem, unit=look_unit(name), **result)


if __name__ == "__main__":
    main()
