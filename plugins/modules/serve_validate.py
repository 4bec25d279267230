#!/usr/bin/python
# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: serve_validate
short_description: Let vLLM check serve arguments before anything stops
version_added: "0.1.0"
author:
  - The sparkfleet.vllm authors (@sparkfleet)
description:
  - Starts C(vllm serve) in the new image, with the command, environment, mounts and GPU of the new container, and ends it once it
    has made its configuration. At that point vLLM has parsed its arguments, read the models' configs, resolved their architectures
    and checked the speculative config and the pairing. It reads no weights and takes no GPU memory, so the running server is not
    disturbed.
  - The container for this check has no network, no privileges, and limits on memory and time. It mounts what the server may only
    read, publishes nothing, and is always removed.
  - If the image's vLLM cannot be asked, the module does not fail; RV(asked) is false, and a warning gives the reason.
options:
  container:
    description:
      - The container that will serve, in the option names of M(community.docker.docker_container).
      - C(image), C(entrypoint), C(command), C(env), C(volumes), C(device_requests), C(devices) and C(ulimits) are read, and C(name) for
        the name of the probe.
    type: dict
    required: true
  timeout:
    description: Seconds that vLLM has to answer.
    type: int
    default: 180
  refused:
    description:
      - Releases of vLLM that cannot serve the recipe. The image reports its release, whatever its tag.
    type: list
    elements: dict
    default: []
    suboptions:
      vllm:
        description: Range of releases, such as C(>=0.25,<0.27).
        type: str
        required: true
      because:
        description: What goes wrong with them.
        type: str
        required: true
  mounts:
    description: Files and directories of the host that no run brings. One that is not there is refused.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: Where it lies on the host.
        type: path
        required: true
      mount:
        description: Where the container sees it.
        type: path
        required: true
  memory:
    description:
      - Memory limit of this check, in bytes or as C(4g).
      - On a CPU, vLLM 0.32.0 takes 1 GB.
    type: str
    default: 4g
extends_documentation_fragment:
  - sparkfleet.vllm.internal
  - sparkfleet.vllm.attributes.looks
attributes:
  check_mode:
    description: Makes the same check if image and models are there. It leaves nothing on the host.
requirements:
  - docker (Python package) on the host
  - packaging (Python package) on the host, which huggingface_hub brings, with O(refused)
seealso:
  - module: sparkfleet.vllm.spec_decode_assert
"""

EXAMPLES = r"""
- name: Have vLLM judge what will be served
  sparkfleet.vllm.serve_validate:
    container:
      name: sparkfleet-vllm
      image: vllm/vllm-openai@sha256:0fd21dda17a2a7ae0d37b0c2d53c7b2c4fd0a4e9d1f3d3f7c9c1a7ad7d2f3b11
      command: [/models/body, --max-model-len, "8192"]
      env: {HF_HUB_OFFLINE: "1"}
      volumes: ["/srv/sparkfleet/models/org--body/c4bb:/models/body:ro"]
      device_requests: [{driver: nvidia, count: -1, capabilities: [[gpu]]}]
"""

RETURN = r"""
asked:
  description: Whether vLLM could be asked.
  type: bool
  returned: always
  sample: true
accepted:
  description: Whether vLLM accepts these arguments. Also true if it could not be asked.
  type: bool
  returned: always
  sample: true
reason:
  description: What vLLM refuses, or why it could not be asked. Empty if it accepts.
  type: str
  returned: always
  sample: "argument --tool-call-parser: invalid choice"
diagnosis:
  description:
    - Stable name of the fault, as in M(sparkfleet.vllm.spec_decode_assert).
    - V(version_refused) if the image holds a vLLM of O(refused), V(arguments_refused) if vLLM refuses the arguments,
      V(devices_refused) if the engine cannot give a container the devices that the server asks for, V(entrypoint_refused) if what
      starts the image is not C(vllm serve), or is not in it, V(mount_refused) if one of O(mounts) is not there, or is no
      file or directory.
  type: str
  returned: when it is not to be served
  sample: arguments_refused
vllm_version:
  description: Version of vLLM in the image.
  type: str
  returned: when vLLM could say it
  sample: 0.20.2rc1
seconds:
  description: Time that vLLM took.
  type: float
  returned: when vLLM answered
  sample: 11.2
peak_bytes:
  description: Its peak memory.
  type: int
  returned: when vLLM answered
  sample: 1021042688
"""

import time
import traceback
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import missing_required_lib

from ..module_utils._common.basic import AnsibleModule
from ..module_utils._common.secrets import is_secret, mask
from ..module_utils._recipe import rules
from ..module_utils._run.lock_file import hold
from ..module_utils._serve import device_request, short_lived
from ..module_utils._vllm import ask_image, versions

try:
    import docker
    import docker.errors
    import docker.types
    import requests
except ImportError:
    LIBRARY_IMPORT_ERROR: str | None = traceback.format_exc()
else:
    LIBRARY_IMPORT_ERROR = None


def options(container: dict[str, Any], timeout: int) -> dict[str, Any]:
    """The options of docker-py for the probe: the container that will serve, without anything by which it could do harm.

    The probe can write only to its own layer, which is removed with it. It neither loads nor alters what was compiled for the server,
    and a program that wants to write there can.
    """
    return {
        "image": container["image"],
        "name": f"{container.get('name', 'vllm')}-probe",
        "entrypoint": ["python3", "-c", ask_image.PROBE],
        "command": [ask_image.request(container["command"], timeout, program(container))],
        "environment": dict(container.get("env") or {}),
        "mounts": [
            docker.types.Mount(target=target, source=source, type="bind", read_only=True)
            for source, target, mode in volumes(container)
            if mode == "ro"
        ],
        "device_requests": [
            docker.types.DeviceRequest(**request) for request in container.get("device_requests") or []
        ],
        "devices": list(container.get("devices") or []),
        "ulimits": [
            docker.types.Ulimit(name=name, soft=int(soft), hard=int(hard))
            for name, soft, hard in (limit.split(":") for limit in container.get("ulimits") or [])
        ],
        # A server that keeps its rights may read other users' files. Without the same right, the probe would miss a file.
        "cap_add": [] if "ALL" in (container.get("cap_drop") or []) else ["DAC_OVERRIDE"],
    }


def program(container: dict[str, Any]) -> str:
    """The program that replaces the image's own; empty if none does."""
    return next(iter(ask_image.starting(container.get("entrypoint") or [])), "")


def volumes(container: dict[str, Any]) -> list[tuple[str, str, str]]:
    """(path on the host, path in the container, mode) of each volume."""
    return [
        (source, target, mode)
        for source, _sep, rest in (volume.partition(":") for volume in container.get("volumes") or [])
        for target, _sep, mode in [rest.partition(":")]
    ]


def not_here_yet(client: Any, container: dict[str, Any]) -> str:
    """What the container still lacks; empty if nothing. Directories that it writes to are made before the start, so they do not count."""
    try:
        client.images.get(container["image"])
    except docker.errors.ImageNotFound:
        return "it"
    return next(
        (
            source
            for source, _target, mode in volumes(container)
            if mode == "ro" and not Path(source).exists()
        ),
        "",
    )


def unmountable(path: Path) -> str:
    """Why a path of the host may not be mounted; empty if it may. A program can talk to a socket, such as the engine's, even if it is
    mounted read-only. A device belongs into serve.devices."""
    if not path.exists():
        return f"nothing at {path}"
    if path.is_socket() or path.is_fifo() or path.is_char_device() or path.is_block_device():
        return f"no file or directory but a socket, pipe or device at {path}"
    return ""


class RefusedError(Exception):
    """The server would end as the probe did, whatever its arguments. `code` is the diagnosis."""

    def __init__(self, code: str, expected: str, seen: str, do: str) -> None:
        super().__init__(f"expected {expected}, seen: {seen}; do: {do}. Nothing was touched")
        self.code, self.seen = code, seen


def ask(client: Any, container: dict[str, Any], timeout: int, memory: str) -> ask_image.Verdict:
    """Run the probe to its end, or until its time is over.

    :raises RefusedError: the image does not start vLLM, or the engine has no GPU for it
    :raises DockerException: the engine does not run it, for another reason
    """
    brought = client.images.get(container["image"]).attrs.get("Config") or {}
    entrypoint = container.get("entrypoint") or brought.get("Entrypoint")
    if not ask_image.starts_vllm(entrypoint):
        raise RefusedError(
            "entrypoint_refused",
            f"{container['image']} to start vllm serve, which the command is for",
            f"the entrypoint {entrypoint or 'none'}",
            "name what starts it in image.entrypoint of the recipe, such as [vllm, serve], or serve another image",
        )
    try:
        ended = short_lived.run(
            client, container.get("name", ""), options(container, timeout), memory, timeout
        )
    except docker.errors.APIError as error:
        said = str(error.explanation or error)
        if cure := device_request.cure(said):
            what = "the engine to start a container with the devices that the server asks for"
            raise RefusedError("devices_refused", what, said, cure) from error
        raise
    log = ended.log.decode("utf-8", "replace")
    verdict = ask_image.judge([mask(line, []) for line in log.splitlines()], ended.code, ended.out_of_memory)
    if verdict.absent:
        raise RefusedError(
            "entrypoint_refused",
            f"{container['image']} to have the program that starts it",
            f"no {program(container)} in it",
            "correct image.entrypoint of the recipe, or take it away if the image starts vllm serve by itself",
        )
    return verdict


def secrets(container: dict[str, Any]) -> list[str]:
    """Secret values of the environment. Short values are words, not secrets."""
    environment = container.get("env") or {}
    return [value for name, value in environment.items() if is_secret(name) and len(str(value)) >= 8]


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "container": {"type": "dict", "required": True},
            "timeout": {"type": "int", "default": 180},
            "refused": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "vllm": {"type": "str", "required": True},
                    "because": {"type": "str", "required": True},
                },
            },
            "mounts": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "path": {"type": "path", "required": True},
                    "mount": {"type": "path", "required": True},
                },
            },
            "memory": {"type": "str", "default": "4g"},
        },
        supports_check_mode=True,
    )
    hold(module)
    if LIBRARY_IMPORT_ERROR:
        module.fail_json(msg=missing_required_lib("docker"), exception=LIBRARY_IMPORT_ERROR)
    if module.params["refused"] and not versions.HAS_PACKAGING:
        module.fail_json(msg=missing_required_lib("packaging"))
    container, timeout, memory = (module.params[name] for name in ("container", "timeout", "memory"))
    for rule in module.params["refused"]:
        if wrong := versions.complaint(rule["vllm"]):
            module.fail_json(msg=f"refused.vllm: {wrong}")
    for name in ("image", "command"):
        if not container.get(name):
            module.fail_json(msg=f"container.{name}: expected one, as docker_container takes it, got none")
    # In the environment of a container, and no option of this module.
    module.no_log_values.update(secrets(container))
    if faults := [fault for one in module.params["mounts"] if (fault := unmountable(Path(one["path"])))]:
        seen = ", ".join(faults)
        module.fail_json(
            msg=f"expected on this host what the recipe mounts (serve.mounts), seen {seen}; put a file or a directory there: no run "
            "brings it. Nothing was touched",
            changed=False,
            diagnosis="mount_refused",
            asked=False,
            accepted=False,
            reason=seen,
        )
    image = container["image"]
    began = time.monotonic()
    missing = ""
    try:
        client = docker.from_env(timeout=120)
        missing = not_here_yet(client, container)
        verdict = (
            ask_image.Verdict(False, True, f"{missing} is not on this host yet")
            if missing
            else ask(client, container, timeout, memory)
        )
    except RefusedError as error:
        module.fail_json(
            msg=str(error), changed=False, diagnosis=error.code, asked=True, accepted=False, reason=error.seen
        )
    except (docker.errors.DockerException, requests.exceptions.RequestException) as error:
        said = getattr(error, "explanation", None) or error
        verdict = ask_image.Verdict(False, True, f"the engine does not run it: {said}")
    result: dict[str, Any] = {"asked": verdict.asked, "accepted": verdict.accepted, "reason": verdict.reason}
    if verdict.version:
        result |= {"vllm_version": verdict.version}
    if verdict.peak_bytes:
        result |= {"seconds": round(time.monotonic() - began, 1), "peak_bytes": verdict.peak_bytes}
    if reason := rules.refused(module.params["refused"], verdict.version):
        module.fail_json(
            msg=f"{rules.refusal(image, verdict.version, reason)}. Nothing was touched",
            changed=False,
            diagnosis="version_refused",
            **result | {"accepted": False, "reason": reason},
        )
    if module.params["refused"] and verdict.version and not versions.release(verdict.version):
        module.warn(
            f"vLLM in {image} calls itself {verdict.version}, which tells of no release (built from a clone without tags):"
            " what the recipe refuses could not be held against it"
        )
    if not verdict.accepted:
        module.fail_json(
            msg=ask_image.refusal(image, verdict), changed=False, diagnosis="arguments_refused", **result
        )
    # In check mode, everybody knows that something is still to come.
    if not verdict.asked and not (module.check_mode and missing):
        module.warn(f"vLLM in {image} could not be asked about the serve arguments: {verdict.reason}")
    module.exit_json(changed=False, **result)


if __name__ == "__main__":
    main()
