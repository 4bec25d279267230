#!/usr/bin/python
# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: patch_pin
short_description: Put pinned patches into the store and find their targets in the image
version_added: "0.1.0"
author:
  - The sparkfleet.vllm authors (@sparkfleet)
description:
  - Writes each patch under its sha256 into the content-addressed store, where it never changes.
  - Asks the image, without importing anything and without a GPU, where the file to replace is and what it holds. A
    patch that the image already contains needs no mount. The answer is kept under the image's ID, C(<store>/cache/images), because
    it never changes.
  - Refuses a patch that was not tried with the image.
options:
  store:
    description: Root of the content-addressed store on the host.
    type: path
    required: true
  image:
    description: Image that will serve, by digest. It must be on the host already, except in check mode.
    type: str
    required: true
  image_reference:
    description: The name the digest was resolved from; O(patches[].tried_with) may name it.
    type: str
  patches:
    description: The patches, as the lock holds them.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: File name.
        type: str
        required: true
      src:
        description: The file on the controller. It is read there and checked against O(patches[].sha256).
        type: path
        required: true
      content:
        description: The bytes, base64. Filled in by the controller side of this module.
        type: str
      md5:
        description: Locked MD5.
        type: str
        required: true
      sha256:
        description: Locked SHA-256.
        type: str
        required: true
      path:
        description: Path in the patch's repository, starting with the Python package.
        type: str
        required: true
      target:
        description: File to replace inside the image. Found in the image when not given.
        type: path
      tried_with:
        description: Image names or digests that the patch was tried with. Empty means any.
        type: list
        elements: str
        default: []
      repository:
        description: Where the patch comes from; for the record.
        type: str
      commit:
        description: Commit of O(patches[].repository); for the record.
        type: str
      size:
        description: Size in bytes; for the record.
        type: int
  allow_untried:
    description: Use a patch with an image that it was not tried with.
    type: bool
    default: false
  socket:
    description: Socket of the Docker engine.
    type: path
    default: /var/run/docker.sock
attributes:
  check_mode:
    description: Reports what would be stored. Asks the image only if it is on the host.
    support: full
  diff_mode:
    description: Shows the paths that would appear in the store.
    support: full
  idempotent:
    description: A second run changes nothing.
    support: full
requirements:
  - docker (Python package) on the host, to ask the image
"""

EXAMPLES = r"""
- name: Pin the patches of the loaded recipe
  sparkfleet.vllm.patch_pin:
    store: /srv/sparkfleet
    image: "{{ recipe_lock.image.pinned }}"
    image_reference: "{{ recipe_lock.image.reference }}"
    patches: "{{ recipe_lock.patches }}"
"""

RETURN = r"""
patches:
  description: The patches with their targets. Empty if the image could not be asked (check mode before the first pull).
  type: list
  elements: dict
  returned: success
  contains:
    name:
      description: File name.
      type: str
      sample: gemma4_mtp.py
    host_path:
      description: The file in the store.
      type: str
      sample: /srv/sparkfleet/patches/3b…/gemma4_mtp.py
    target:
      description: The file it replaces inside the image.
      type: str
      sample: /usr/local/lib/python3.12/dist-packages/vllm/model_executor/models/gemma4_mtp.py
    md5:
      description: Locked MD5.
      type: str
      sample: 9e107d9d372bb6826bd81d3542a419d6
    sha256:
      description: Locked SHA-256.
      type: str
      sample: d7a8fbb307d7809469ca9abcb0082e4f8d5651e46d3cdb762d02d0bf37c9e592
    mount:
      description: Whether it must be mounted; false if the image already contains exactly this file.
      type: bool
      sample: true
    stamp:
      description:
        - The file in the store now, by inode and modification time.
        - A container that started with another file still sees that one.
      type: str
      sample: 2c01d4-18d1f6a3f1c2b7e4
    image_md5:
      description: MD5 of the file that the image itself holds.
      type: str
      sample: e4d909c290d0fb1ca068ffaddf22cbd0
image:
  description: The image's answer about the patched package.
  type: dict
  returned: when the image was asked
  contains:
    version:
      description: Version of the package, from its metadata.
      type: str
      sample: 0.20.2rc1
    directory:
      description: Directory of the package.
      type: str
      sample: /usr/local/lib/python3.12/dist-packages/vllm
drift:
  description: What differs, as M(sparkfleet.vllm.drift_report) takes it. M(sparkfleet.vllm.serve_drift) has an example.
  type: dict
  returned: in check mode
"""

import base64
import json
import traceback
import urllib.parse
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import missing_required_lib

from ..module_utils._common import files
from ..module_utils._common.basic import AnsibleModule
from ..module_utils._common.paths import image_answer_path, patch_path
from ..module_utils._host import engine_socket
from ..module_utils._run.lock_file import hold
from ..module_utils._serve import patch as patches
from ..module_utils._serve import short_lived

MODE = 0o444
PROBE = "patch_pin"
MEMORY = "512m"
PROCESSES = 128
SECONDS = 120
"""Time limit of the probe: it starts Python, and reads a few files."""


def store(path: Path, content: bytes, *, write: bool) -> bool:
    """Make `path` hold `content`, read-only. True if it did not before."""
    if path.is_file() and path.stat().st_mode & 0o777 == MODE and path.read_bytes() == content:
        return False
    if write:
        _write(path, content, MODE)
    return True


def _write(path: Path, content: bytes, mode: int = 0o644) -> None:
    """:raises PatchError: the file cannot be written"""
    try:
        files.write(path, content, mode)
    except OSError as error:
        raise patches.PatchError(files.unwritable(path, error)) from error


def image_id(socket: str, image: str) -> str:
    """The image's own ID, which no other image has; empty if the host lacks the image.

    :raises EngineError: the engine does not answer
    """
    try:
        url = f"/images/{urllib.parse.quote(image, safe='')}/json"
        return str(engine_socket.get(socket, url, expected={"Id": str})["Id"])
    except engine_socket.EngineError as error:
        if error.status == 404:
            return ""
        raise


def ask_image(image: str, question: dict[str, Any]) -> dict[str, Any]:
    """Run the probe in the image: no network, no GPU, nothing mounted, removed afterwards.

    :raises PatchError: the image cannot run the probe, or answers something else
    :raises ImportError: the host's Python has no docker
    """
    # Not at the top of the file: these imports take as long as the rest of a run that asks nothing.
    import docker
    import docker.errors
    import requests

    options = {
        "image": image,
        "entrypoint": ["python3", "-c", patches.PROBE],
        "command": [json.dumps(question)],
        "read_only": True,
        "pids_limit": PROCESSES,
    }
    try:
        ended = short_lived.run(docker.from_env(), PROBE, options, MEMORY, SECONDS)
    except (docker.errors.DockerException, requests.exceptions.RequestException) as error:
        raise patches.no_answer(image, str(error)) from error
    if ended.code is None:
        raise patches.no_answer(image, f"no end within {SECONDS + short_lived.STARTING} s")
    if ended.code:
        why = "it was killed for want of memory" if ended.out_of_memory else last_line(ended.log)
        raise patches.no_answer(image, f"exit code {ended.code}: {why}")
    return patches.answer(ended.stdout.decode("utf-8", "replace"), question, image)


def last_line(log: bytes) -> str:
    lines = [line for line in log.decode("utf-8", "replace").splitlines() if line.strip()]
    return lines[-1][:300] if lines else "it said nothing"


def asked_before(path: Path, question: dict[str, Any]) -> dict[str, Any] | None:
    """The image's answer from an earlier time. One that cannot be read counts as none."""
    try:
        return patches.recalled(path.read_bytes(), question)
    except OSError:
        return None


def meet_image(module: AnsibleModule, wanted: list[dict[str, Any]], paths: list[str]) -> dict[str, Any]:
    """The keys ``image`` and ``patches`` of the result; in check mode a ``msg`` if there is no image to ask yet.

    :raises PatchError: the image does not take a patch
    """
    image = module.params["image"]
    try:
        identity = image_id(module.params["socket"], image)
    except engine_socket.EngineError as error:
        if module.check_mode:
            return {"msg": "the image is asked once the host is set up"}
        raise patches.PatchError(
            f"expected a Docker engine that answers, seen: {error}; run the prerequisites role"
        ) from error
    if not identity:
        if module.check_mode:
            return {"msg": "the image is asked once it is on the host"}
        raise patches.PatchError(f"expected image {image} on the host, seen none; pull it first")
    question = patches.question(wanted)
    known = Path(image_answer_path(module.params["store"], identity, patches.name_of(question)))
    seen = asked_before(known, question)
    new = seen is None
    if seen is None:
        try:
            seen = ask_image(image, question)
        except ImportError:
            if module.check_mode:
                return {"msg": "the image is asked once the host is set up"}
            module.fail_json(msg=missing_required_lib("docker"), exception=traceback.format_exc())
            raise  # never: fail_json has left
    placed = [
        patches.place(patch, seen["files"][patch["path"]], path)
        for patch, path in zip(wanted, paths, strict=True)
    ]
    # Only now that the image takes all patches: a refusal leaves nothing in the store.
    if new and not module.check_mode:
        _write(known, patches.remembered(question, seen).encode())
    return {"image": {"version": seen["version"], "directory": seen["directory"]}, "patches": placed}


def main() -> None:
    patch_options = {
        "name": {"type": "str", "required": True},
        "src": {"type": "path", "required": True},
        "content": {"type": "str"},
        "md5": {"type": "str", "required": True},
        "sha256": {"type": "str", "required": True},
        "path": {"type": "str", "required": True},
        "target": {"type": "path"},
        "tried_with": {"type": "list", "elements": "str", "default": []},
        "repository": {"type": "str"},
        "commit": {"type": "str"},
        "size": {"type": "int"},
    }
    module = AnsibleModule(
        argument_spec={
            "store": {"type": "path", "required": True},
            "image": {"type": "str", "required": True},
            "image_reference": {"type": "str"},
            "patches": {"type": "list", "elements": "dict", "required": True, "options": patch_options},
            "allow_untried": {"type": "bool", "default": False},
            "socket": {"type": "path", "default": "/var/run/docker.sock"},
        },
        supports_check_mode=True,
    )
    hold(module)
    wanted, image = module.params["patches"], module.params["image"]
    result: dict[str, Any] = {"changed": False, "patches": []}
    if not wanted:
        module.exit_json(**result)
    paths = [patch_path(module.params["store"], patch["sha256"], patch["name"]) for patch in wanted]
    contents = [base64.b64decode(patch["content"] or "") for patch in wanted]
    try:
        if not module.params["allow_untried"]:
            patches.refuse_untried(
                wanted, [name for name in (module.params["image_reference"], image) if name]
            )
        for patch, content in zip(wanted, contents, strict=True):
            patches.check_content(patch, content)
        result |= meet_image(module, wanted, paths)
    except patches.PatchError as error:
        module.fail_json(msg=str(error), **result)
    # Store the patches last: a refusal leaves nothing in the store.
    new = [
        path
        for path, content in zip(paths, contents, strict=True)
        if store(Path(path), content, write=not module.check_mode)
    ]
    for patch in result["patches"]:
        patch["stamp"] = (
            "to be stored"
            if patch["host_path"] in new and module.check_mode
            else files.stamp(patch["host_path"])
        )
    result["changed"] = bool(new)
    result["diff"] = {"before": "", "after": "".join(f"{path}\n" for path in new)}
    module.exit_json(**result)


if __name__ == "__main__":
    main()
