#!/usr/bin/python
# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: image_pull
version_added: "0.1.0"
author:
  - The sparkfleet.vllm authors (@sparkfleet)
short_description: Pull an image by digest with the Docker engine, and show the progress
description:
  - Makes the engine pull what it lacks, and checks the resulting digest.
  - The engine uses its own configuration (C(registry-mirrors)). If a mirror does not answer, it tries the next one, and at last the
    image's own registry. After wrong bytes too, unless it keeps its images in containerd. Then the pull fails. A run of C(site.yml) with
    the host of the fleet's registry repairs that registry.
  - An engine that keeps its images in containerd asks a mirror in each of its requests. One that swallows packets costs up to 30 seconds
    each time, three at a time. For the fleet's registry a warning says so.
  - Records the image in C(images.json) as brought by this collection, so that it can be pruned later.
  - On the controller it shows its progress.
options:
  image:
    description: The image, by digest.
    type: str
    required: true
  state_dir:
    description: Directory of C(images.json). Without it nothing is recorded.
    type: path
  registry:
    description:
      - Address of the fleet's registry, which the engine is configured to ask first. A warning says if it does not answer and the
        image comes from elsewhere, or if engines ask no mirror for this image.
    type: str
  retries:
    description: How often to repeat an interrupted pull.
    type: int
    default: 2
  timeout:
    description: Seconds the task may take.
    type: int
    default: 14400
  settled_only:
    description:
      - Look only. If anything is left to do, do nothing and return RV(settled=false).
    type: bool
    default: false
attributes:
  check_mode:
    description: Reports whether the image would be pulled.
    support: full
  diff_mode:
    description: Shows the digest that would appear, or did.
    support: full
  idempotent:
    description: A second run changes nothing.
    support: full
requirements:
  - docker (Python package) on the host
seealso:
  - module: sparkfleet.vllm.image_fetch
"""

EXAMPLES = r"""
- name: Bring the image of the loaded recipe
  sparkfleet.vllm.image_pull:
    image: "{{ recipe_lock.image.pinned }}"
    state_dir: /var/lib/sparkfleet
"""

RETURN = r"""
image:
  description: The image, by digest.
  returned: success
  type: str
  sample: vllm/vllm-openai@sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
id:
  description: Its ID on this host, if it is there.
  returned: success
  type: str
  sample: sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824
pulled_bytes:
  description: Bytes of layers that the engine transferred.
  returned: success
  type: int
  sample: 9800000000
mirrored:
  description: Whether engines ask their mirrors for this image. They do so for images of Docker Hub only.
  returned: success
  type: bool
  sample: true
settled:
  description: Whether everything was already in place.
  returned: success
  type: bool
  sample: true
"""

import time
from typing import Any

from ansible.module_utils.basic import missing_required_lib

from ..module_utils._common import upstream
from ..module_utils._common.basic import AnsibleModule
from ..module_utils._common.paths import ledger_path
from ..module_utils._common.progress import Progress
from ..module_utils._host import engine as host_engine
from ..module_utils._images import engine, ledger
from ..module_utils._images import image as images
from ..module_utils._images.reference import DOCKER_HUB, Reference, parse_reference
from ..module_utils._run.detached import in_background
from ..module_utils._run.lock_file import hold

if not images.DOCKER_IMPORT_ERROR:
    import docker
    import docker.errors

EVERY = 5.0
"""Seconds between two lines."""
SILENT = 1.0
"""Seconds without an answer after which an address counts as silent. One that refuses does so at once."""
WAITS = (
    ", and waits up to 30 s for it in each request of this pull, three at a time, which takes minutes: see why it does not answer "
    "(a host that is off, a firewall that drops packets)"
)

ARGUMENTS: dict[str, dict[str, Any]] = {
    "image": {"type": "str", "required": True},
    "state_dir": {"type": "path"},
    "registry": {"type": "str"},
    "retries": {"type": "int", "default": 2},
    "timeout": {"type": "int", "default": 14400},
    "settled_only": {"type": "bool", "default": False},
}


def look(client: Any, reference: Reference, image: str, state_dir: str | None) -> dict[str, Any]:
    """Whether the image is here and in the ledger: ``{id, settled, mirrored}``.

    :raises LedgerError: the ledger cannot be read. Checked before any pull: an image that is not in the ledger can never be pruned
    """
    identity = images.present(client, image, reference.digest or "")
    new = images.noted(state_dir, image, write=False)
    mirrored = reference.registry == DOCKER_HUB
    return {"id": identity, "settled": bool(identity) and not new, "mirrored": mirrored}


def pull(client: Any, reference: Reference, retries: int, say: Any) -> int:
    """Pull the image. Gives the bytes that were transferred.

    :raises PullError: the engine did not bring the image
    """
    transferred = 0
    for left in reversed(range(retries + 1)):
        progress, last = engine.Pull(), time.monotonic()
        try:
            for event in client.api.pull(reference.name, tag=reference.digest, stream=True, decode=True):
                progress.feed(event)
                now = time.monotonic()
                if now - last >= EVERY and (line := progress.line(now)):
                    say(line)
                    last = now
            return transferred + progress.pulled
        except docker.errors.APIError as error:
            problem = engine.refusal(str(error.explanation or error))
        except engine.PullError as error:
            problem = error
        except (docker.errors.DockerException, OSError) as error:
            problem = engine.refusal(f"{type(error).__name__}: {error}")
        transferred += progress.pulled
        if not (problem.again and left):
            raise problem
        say(f"{problem}; trying again")
        time.sleep(2)
    raise AssertionError("unreachable")


def other_way(registry: str, reference: Reference, in_containerd: bool) -> str:
    """Why the image does not come from the fleet's registry; empty if it does.

    :param in_containerd: whether the engine keeps its images in containerd; then it requests every part of an image anew
    """
    if reference.registry != DOCKER_HUB:
        return (
            f"{reference.name}: engines ask a mirror for images of Docker Hub only, and this one is of {reference.registry}: "
            "each host pulls it from there"
        )
    began = time.monotonic()
    try:
        answer = upstream.ask("GET", f"{registry.rstrip('/')}/v2/", attempts=1)
    except upstream.UpstreamError as error:
        seen = str(error)
    else:
        if answer.status in (200, 401):
            return ""
        seen = f"HTTP {answer.status}"
    waits = in_containerd and time.monotonic() - began >= SILENT
    return (
        f"expected the fleet's registry at {registry}, seen: {seen}; the engine asks the next mirror or Docker Hub instead"
        + (WAITS if waits else "")
    )


def main() -> None:
    in_background()
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    hold(module)
    if images.DOCKER_IMPORT_ERROR:
        module.fail_json(msg=missing_required_lib("docker"), exception=images.DOCKER_IMPORT_ERROR)
    params = module.params
    try:
        reference = parse_reference(params["image"])
        digest = reference.digest or ""
        if not digest:
            raise ValueError(
                f"image: expected a digest (name@sha256:…), seen {params['image']}; take that of a lock"
            )
        client = docker.from_env(timeout=300)
        seen = look(client, reference, params["image"], params["state_dir"])
        pulls = not (seen["id"] or params["settled_only"] or module.check_mode)
        if pulls and params["registry"]:
            in_containerd = host_engine.in_containerd(client.info())
            if warning := other_way(params["registry"], reference, in_containerd):
                module.warn(warning)
    except ValueError as error:
        where = f"{ledger_path(params['state_dir'])}: " if isinstance(error, ledger.LedgerError) else ""
        module.fail_json(msg=f"{where}{error}" + ("; move the file away and run again" if where else ""))
    except docker.errors.DockerException as error:
        module.fail_json(
            msg=f"expected a Docker engine that answers, seen: {error}; run the prerequisites role"
        )
    identity = seen["id"]
    result: dict[str, Any] = {"changed": False, "image": params["image"], "pulled_bytes": 0, **seen}
    if seen["settled"] or params["settled_only"]:
        module.exit_json(**result)
    result |= {"changed": True}
    if not identity:
        result["diff"] = {"before": "", "after": f"{params['image']}\n"}
    if module.check_mode:
        module.exit_json(**result)

    if not identity:
        progress = Progress.from_environment()
        try:
            result["pulled_bytes"] = pull(client, reference, params["retries"], progress.say)
        except engine.PullError as error:
            module.fail_json(msg=str(error))
        result["id"] = images.present(client, params["image"], digest)
        if not result["id"]:
            module.fail_json(
                msg=f"expected {digest} on the host after the pull, seen an image without it; look at "
                f"docker images --digests {reference.name}, and at who else changes images there"
            )
    try:
        images.noted(params["state_dir"], params["image"], write=True)
    except (OSError, ledger.LedgerError) as error:
        module.fail_json(
            msg=f"expected {ledger_path(params['state_dir'])} to be written, seen: {error}; mend that and run again"
        )
    module.exit_json(**result)


if __name__ == "__main__":
    main()
