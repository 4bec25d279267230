#!/usr/bin/python
# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: image_build
version_added: "0.1.0"
author:
  - The sparkfleet.vllm authors (@sparkfleet)
short_description: Build an image from a commit, and put it into the fleet's registry
description:
  - Fetches the source at a commit with git, builds it with the Docker engine's BuildKit, and puts the image into the storage of
    the fleet's registry, or pushes it to another one. An image that the registry already has under that name, from the same source,
    is not built again.
  - The tag is written last, so a partly built or partly pushed image has no name anywhere.
  - The image carries the label C(sparkfleet.build), a fingerprint of its source.
  - On the controller it shows its progress.
options:
  name:
    description: Name and tag of the image.
    type: str
    required: true
  repository:
    description: Repository of the source.
    type: str
    required: true
  commit:
    description: Commit of the source, 40 hex digits.
    type: str
    required: true
  dockerfile:
    description: Path of the Dockerfile in the repository.
    type: str
    default: Dockerfile
  target:
    description: Stage of the Dockerfile. Empty for its last one.
    type: str
    default: ""
  arguments:
    description: Build arguments that make the image what it is.
    type: dict
    default: {}
  host_arguments:
    description: Further build arguments that do not change the image's identity, such as the number of parallel compilers.
    type: dict
    default: {}
  git_endpoint:
    description: Base address of the repository, fetched as C(<git_endpoint>/<repository>).
    type: str
    default: https://github.com
  directory:
    description:
      - Directory for source, log and staging, used by this module only. Only the log stays.
      - It is locked during a build, so that no other build runs there and M(sparkfleet.vllm.store_prune) removes nothing from it.
    type: path
    required: true
  storage:
    description: Root of the storage that the fleet's registry serves (C(rootdirectory) of its configuration).
    type: path
  registry_program:
    description: Program of that registry. It runs on the loopback address during the push.
    type: path
    default: /usr/bin/docker-registry
  push_to:
    description: Address of another registry, with C(http://) in front if it has no TLS.
    type: str
  username:
    description: User name at O(push_to). Without one the engine's own login (C(docker login)) is used.
    type: str
  password:
    description: Password or access token of O(username).
    type: str
  minimum_memory_gib:
    description: Memory in GiB that must be available before the build begins.
    type: int
    default: 32
  minimum_docker_gib:
    description: Space in GiB that must be free in Docker's image storage.
    type: int
    default: 80
  minimum_store_gib:
    description: Space in GiB that must be free where O(directory) and O(storage) are.
    type: int
    default: 40
  timeout:
    description: Seconds the task may take.
    type: int
    default: 21600
  settled_only:
    description:
      - Look only. If anything is left to do, do nothing and return RV(settled=false).
    type: bool
    default: false
extends_documentation_fragment:
  - sparkfleet.vllm.internal
attributes:
  check_mode:
    description: Says whether the image would be built. Fetches nothing and writes nothing.
    support: full
  diff_mode:
    description: Shows what was built, or would be.
    support: full
  idempotent:
    description: A second run changes nothing.
    support: full
requirements:
  - git, the engine's client C(docker) with BuildKit, and the program of a registry on the host
  - docker (Python package) on the host, except in check mode
  - requests (Python package) on the host, with O(push_to)
seealso:
  - module: sparkfleet.vllm.image_fetch
"""

EXAMPLES = r"""
- name: Build the image of the loaded recipe
  sparkfleet.vllm.image_build:
    name: "{{ recipe.image.reference }}"
    repository: "{{ recipe.image.build.repository }}"
    commit: "{{ recipe.image.build.commit }}"
    dockerfile: "{{ recipe.image.build.dockerfile }}"
    target: vllm-openai
    arguments: "{{ recipe.image.build.arguments }}"
    host_arguments: {max_jobs: "16", nvcc_threads: "2"}
    directory: /srv/sparkfleet/build
    storage: /srv/sparkfleet/registry
"""

RETURN = r"""
digest:
  description: Digest of the image in the registry. Empty in check mode if it would be built.
  type: str
  returned: success, except when RV(settled=false)
  sample: sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
state:
  description: V(present), the registry had it. V(built), it was built, or would be.
  type: str
  returned: success, except when RV(settled=false)
  sample: built
todo:
  description: What is built, one part a line. Empty if nothing is.
  type: list
  elements: str
  returned: success, except when RV(settled=false)
  sample: [sparkfleet/vllm-openai:main-dee37d89115d from vllm-project/vllm at dee37d89115db4c94a820a79a78a7828e141c910]
where:
  description: The registry, by the path of its storage or by its address.
  type: str
  returned: success, except when RV(settled=false)
  sample: /srv/sparkfleet/registry
settled:
  description: Whether everything was already in place.
  type: bool
  returned: success
  sample: true
"""

import contextlib
import os
import platform
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import missing_required_lib

from ..module_utils._build import buildkit, destination, git, program
from ..module_utils._build import staging as build_staging
from ..module_utils._common import upstream
from ..module_utils._common.basic import AnsibleModule
from ..module_utils._common.files import remove
from ..module_utils._common.progress import Progress
from ..module_utils._common.store import StoreError, locked
from ..module_utils._host import engine
from ..module_utils._host.request import Request
from ..module_utils._images import image, oci, registry, storage
from ..module_utils._images import push as image_push
from ..module_utils._images.reference import parse_reference
from ..module_utils._run.detached import in_background
from ..module_utils._run.lock_file import hold
from ..module_utils._serve import memory

ENGINE_ERRORS: tuple[type[Exception], ...] = ()
if not image.DOCKER_IMPORT_ERROR:
    import docker
    import docker.errors

    ENGINE_ERRORS = (docker.errors.DockerException,)

EVERY = 10.0
"""Seconds between two lines."""
LOCK_TIMEOUT = 60.0
"""Seconds. A prune removes what an earlier build left within them. Another build takes longer, and this one does not wait for it."""
PROC = Path("/proc")
ENVIRONMENT = {"DOCKER_BUILDKIT": "1", "BUILDX_NO_DEFAULT_ATTESTATIONS": "1"}
"""The first is for engines before 23, the second for later ones: they would add an attestation, a second image beside ours."""

ARGUMENTS: dict[str, dict[str, Any]] = {
    "name": {"type": "str", "required": True},
    "repository": {"type": "str", "required": True},
    "commit": {"type": "str", "required": True},
    "dockerfile": {"type": "str", "default": "Dockerfile"},
    "target": {"type": "str", "default": ""},
    "arguments": {"type": "dict", "default": {}},
    "host_arguments": {"type": "dict", "default": {}},
    "git_endpoint": {"type": "str", "default": "https://github.com"},
    "directory": {"type": "path", "required": True},
    "storage": {"type": "path"},
    "registry_program": {"type": "path", "default": "/usr/bin/docker-registry"},
    "push_to": {"type": "str"},
    "username": {"type": "str"},
    "password": {"type": "str", "no_log": True},
    "minimum_memory_gib": {"type": "int", "default": 32},
    "minimum_docker_gib": {"type": "int", "default": 80},
    "minimum_store_gib": {"type": "int", "default": 40},
    "timeout": {"type": "int", "default": 21600},
    "settled_only": {"type": "bool", "default": False},
}


class BuildError(Exception):
    """The image was not built. The text says expected, seen and what to do."""


def place(params: dict[str, Any]) -> destination.Storage | destination.Registry:
    """The destination of the image."""
    machine = platform.machine()
    architecture = oci.ARCHITECTURES.get(machine, machine)
    reference = parse_reference(params["name"])
    if not reference.tag or reference.digest:
        raise ValueError(f"name: expected a name with a tag and no digest, seen {params['name']}")
    if params["storage"]:
        return destination.Storage(params["storage"], reference, architecture)
    known = registry.Credentials(params["username"], params["password"] or "") if params["username"] else None
    return destination.Registry(params["push_to"], reference, architecture, known)


def source(params: dict[str, Any]) -> buildkit.Source:
    if not re.fullmatch(r"[0-9a-f]{40}", params["commit"]):
        raise ValueError(f"commit: expected 40 lower-case hex digits, seen {params['commit']}")
    arguments = {name: str(value) for name, value in params["arguments"].items()}
    return buildkit.Source(
        params["repository"], params["commit"], params["dockerfile"], params["target"], arguments
    )


def short(params: dict[str, Any], images_root: str) -> list[str]:
    """What the host lacks for a build, before anything has begun."""
    problems = []
    places = {images_root: params["minimum_docker_gib"], params["directory"]: params["minimum_store_gib"]}
    for path, minimum in places.items():
        there = next(parent for parent in (Path(path), *Path(path).parents) if parent.exists())
        free = shutil.disk_usage(there).free / memory.GIB
        if free < minimum:
            problems.append(f"{path}: expected {minimum} GiB free, seen {free:.1f}; make room")
    available = memory.meminfo(PROC)["MemAvailable"] / memory.GIB
    if available < params["minimum_memory_gib"]:
        problems.append(
            f"memory: expected {params['minimum_memory_gib']} GiB available, seen {available:.1f}; stop what serves there for as "
            "long (playbook stop), or compile less at a time (image_build_host_arguments) and ask for less "
            "(image_build_minimum_memory_gib)"
        )
    return problems


def build(module: AnsibleModule, wanted: buildkit.Source, context: Path, name: str, say: Any) -> None:
    """Have the engine build the image under this name."""
    path = Path(module.params["directory"]) / buildkit.LOG
    argv = buildkit.command("docker", wanted, module.params["host_arguments"], str(context), name)
    log, began, last = buildkit.Log(), time.monotonic(), 0.0
    try:
        process = program.start(argv, ENVIRONMENT)
    except OSError as error:
        raise BuildError(
            f"expected the engine's client docker on the host, seen {error.strerror}; install it"
        ) from None
    with process, path.open("w") as file:
        for line in process.stdout or ():
            file.write(line)
            log.feed(line)
            now = time.monotonic()
            if now - last >= EVERY and (said := log.line(now - began)):
                say(said)
                last = now
    if process.returncode:
        raise BuildError(buildkit.refusal(process.returncode, log, str(path)))


@contextlib.contextmanager
def passing(module: AnsibleModule, client: Any, name: str) -> Iterator[str]:
    """A name for an image that exists only inside the block. Removes what a killed run left, too."""
    forget(module, client, name)
    try:
        yield name
    finally:
        forget(module, client, name)


def forget(module: AnsibleModule, client: Any, name: str) -> None:
    """Remove a name, and an image with its last name. A failure here never fails the run."""
    try:
        client.images.remove(name, noprune=True)
    except docker.errors.ImageNotFound:
        pass
    except (docker.errors.DockerException, OSError) as error:
        module.warn(
            f"expected to remove the image {name} from this host, seen: {error}; do: docker rmi {name}"
        )


def push(
    module: AnsibleModule, client: Any, built: str, name: str, auth: dict[str, str] | None, say: Any
) -> str:
    """Push the image. Gives its digest in the registry; on this host the name is removed afterwards."""
    repository, _sep, tag = name.rpartition(":")
    progress, last = image_push.Push(), time.monotonic()
    try:
        client.images.get(built).tag(repository, tag)
    except docker.errors.ImageNotFound:
        raise BuildError(
            f"expected the built image {built} in the engine, seen none: its client builds somewhere else; have it build in the "
            "engine (docker buildx use default) and run again"
        ) from None
    try:
        for event in client.api.push(repository, tag=tag, stream=True, decode=True, auth_config=auth):
            progress.feed(event)
            now = time.monotonic()
            if now - last >= EVERY and (line := progress.line()):
                say(line)
                last = now
    except docker.errors.APIError as error:
        raise image_push.refusal(str(error.explanation or error)) from None
    finally:
        forget(module, client, name)
    if not progress.digest:
        raise image_push.refusal("no digest")
    if progress.instead:
        module.warn(
            f"expected {progress.instead} to be pushed, an index, seen {progress.digest}, the image of this platform in it: the engine "
            "lacks the rest. The image is whole, and is locked by the digest that was pushed"
        )
    return progress.digest


def make(
    module: AnsibleModule, wanted: buildkit.Source, goal: destination.Storage | destination.Registry
) -> str:
    """Build the image and bring it to its place. Gives its digest."""
    params = module.params
    if params["storage"] and not Path(params["storage"]).is_dir():
        raise BuildError(
            f"expected the fleet's registry on this host, which serves {params['storage']}, seen no such directory; build on the "
            "host that serves (-e build_host=…), or push to a registry of yours (-e build_push_to=…)"
        )
    progress = Progress.from_environment()
    client = docker.from_env(timeout=600)
    problems = short(
        params, engine.images_root(client.info(), Request().text(engine.CONTAINERD_CONFIG) or "")
    )
    if problems:
        raise BuildError("the host has no room for a build:\n" + "\n".join(f"  {line}" for line in problems))
    directory = Path(params["directory"])
    with locked(directory, LOCK_TIMEOUT, progress.say):
        clear(directory)
        try:
            return bring(module, wanted, goal, client, progress.say)
        finally:
            clear(directory)


def clear(directory: Path) -> None:
    """Remove everything of a build but its log, however it ended."""
    for name in buildkit.PASSING:
        with contextlib.suppress(OSError):
            remove(directory / name)


def bring(
    module: AnsibleModule,
    wanted: buildkit.Source,
    goal: destination.Storage | destination.Registry,
    client: Any,
    say: Any,
) -> str:
    """Do what `make` does, in a directory that only this run uses."""
    params = module.params
    directory = Path(params["directory"])
    context, staging = directory / buildkit.SOURCE, directory / buildkit.STAGING
    url = f"{params['git_endpoint'].rstrip('/')}/{params['repository']}"
    git.checkout(url, params["commit"], context, say)
    with passing(module, client, buildkit.passing_name(params["directory"])) as built:
        build(module, wanted, context, built, say)
        if isinstance(goal, destination.Registry):
            known = {"username": params["username"], "password": params["password"]}
            return push(module, client, built, goal.name, known if params["username"] else None, say)
        with build_staging.registry(params["registry_program"], staging) as address:
            name = f"{address}/{goal.reference.repository}:{goal.reference.tag}"
            digest = push(module, client, built, name, None, say)
    goal.take(str(staging / "storage"), digest, say)
    return digest


def main() -> None:
    in_background()
    module = AnsibleModule(
        argument_spec=ARGUMENTS,
        mutually_exclusive=[("storage", "push_to")],
        required_one_of=[("storage", "push_to")],
        required_by={"password": "username"},
        supports_check_mode=True,
    )
    hold(module)
    os.umask(0o022)
    params = module.params
    if params["push_to"] and not upstream.HAS_REQUESTS:
        module.fail_json(msg=missing_required_lib("requests"))
    try:
        goal, wanted = place(params), source(params)
        digest = goal.find(wanted.fingerprint)
        if params["settled_only"] and not digest:
            module.exit_json(changed=False, settled=False)
        settled = bool(digest)
        if not settled and not module.check_mode:
            if image.DOCKER_IMPORT_ERROR:
                module.fail_json(msg=missing_required_lib("docker"), exception=image.DOCKER_IMPORT_ERROR)
            digest = make(module, wanted, goal)
    except (
        ValueError,
        BuildError,
        git.CheckoutError,
        image_push.PushError,
        build_staging.StagingError,
    ) as error:
        module.fail_json(msg=str(error))
    except (upstream.UpstreamError, storage.ImageStoreError, StoreError) as error:
        module.fail_json(msg=str(error))
    except ENGINE_ERRORS as error:
        module.fail_json(
            msg=f"expected a Docker engine that answers, seen: {error}; run the prerequisites role"
        )
    except OSError as error:
        module.fail_json(msg=f"expected to write {params['directory']}, seen {error}; mend it and run again")
    todo = [] if settled else wanted.describe(params["name"])
    module.exit_json(
        changed=not settled,
        settled=settled,
        digest=digest,
        state="present" if settled else "built",
        todo=todo,
        where=goal.home,
        diff={"before": "", "after": "".join(f"{line}\n" for line in todo)},
    )


if __name__ == "__main__":
    main()
