#!/usr/bin/python
# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: recipe_lock
short_description: Resolve the names of a recipe into a lock, and compare the lock with upstream
version_added: "0.1.0"
author:
  - The sparkfleet.vllm authors (@sparkfleet)
description:
  - Resolves the image's tag to a digest without pulling it, each model's revision to a commit with size and sha256 of
    every file, and each patch to its md5 and sha256. All queries run in parallel.
  - Runs on the controller, delegated to C(localhost) and once. Patches are kept there, under their sha256.
  - With a lock, its values are used, and upstream is asked whether the names still resolve to them.
options:
  recipe:
    description: The recipe, as M(sparkfleet.vllm.recipe_load) returns it. Only the shape of its keys is checked again.
    type: dict
    required: true
  lock_path:
    description: File of the lock.
    type: path
    required: true
  state:
    description:
      - V(present) uses the lock, and makes one if there is none.
      - V(updated) resolves everything again and replaces the lock if anything changed. A measured speculation stays, unless a model
        has a new commit; then it is dropped with a warning. The digest of a built image stays as long as the recipe builds it from
        the same source.
      - V(built) puts O(image_digest) into the lock and keeps the rest. If no lock covers the rest of the recipe, the module resolves
        it.
      - V(tuned) writes O(speculation) into the existing lock, and contacts no upstream.
    type: str
    choices: [present, updated, built, tuned]
    default: present
  speculation:
    description:
      - The best speculation by measurement, with C(num_speculative_tokens), C(method), C(options) and C(measured), as
        C(tune.yml) proposes it. It replaces the recipe's speculative config.
      - Required with O(state=tuned), used with no other.
    type: dict
  image_digest:
    description: Digest of the built image. Required with O(state=built), used with no other.
    type: str
  locked:
    description: Fail without a lock. Used with O(state=present).
    type: bool
    default: false
  upstream:
    description:
      - What to do if upstream differs from the lock. V(fail) stops and shows both values, V(warn) warns and uses the locked values,
        V(ignore) does not query upstream.
      - If the lock and the cache are complete, an upstream that does not answer is only a warning.
    type: str
    choices: [fail, warn, ignore]
    default: fail
  hub_endpoint:
    description: Hugging Face Hub or a mirror of it.
    type: str
    default: https://huggingface.co
  hub_token:
    description: Token for gated or private repositories; needs read access only.
    type: str
  raw_endpoint:
    description: Base address of patches, read as C(<repository>/<commit>/<path>).
    type: str
    default: https://raw.githubusercontent.com
  registry_mirrors:
    description: Mirrors of Docker Hub, queried first and in order, without credentials.
    type: list
    elements: str
    default: []
  registry_username:
    description: User name for the image's own registry. Default is E(SPARKFLEET_REGISTRY_USERNAME).
    type: str
  registry_password:
    description: Password for the image's own registry. Default is E(SPARKFLEET_REGISTRY_PASSWORD).
    type: str
  cache_dir:
    description: Directory of fetched patches, stored as C(patches/<sha256>/<name>).
    type: path
    default: ~/.cache/sparkfleet
attributes:
  check_mode:
    description:
      - The lock is returned but not written. Patches are still written into the cache, because later tasks read them there.
    support: full
  diff_mode:
    description: Shows only the values that change.
    support: full
  idempotent:
    description: A second run changes nothing, unless upstream did and O(state=updated).
    support: full
requirements:
  - requests (Python package)
  - huggingface_hub (Python package)
  - PyYAML (Python package)
seealso:
  - module: sparkfleet.vllm.recipe_load
"""

EXAMPLES = r"""
- name: Use the lock, or make it on first use
  sparkfleet.vllm.recipe_lock:
    recipe: "{{ loaded.recipe }}"
    lock_path: "{{ loaded.lock_path }}"
  delegate_to: localhost
  run_once: true

- name: Resolve everything anew
  sparkfleet.vllm.recipe_lock:
    recipe: "{{ loaded.recipe }}"
    lock_path: "{{ loaded.lock_path }}"
    state: updated
  delegate_to: localhost
  run_once: true

- name: Keep what was measured to be best
  sparkfleet.vllm.recipe_lock:
    recipe: "{{ loaded.recipe }}"
    lock_path: "{{ loaded.lock_path }}"
    state: tuned
    speculation: "{{ lookup('ansible.builtin.file', 'measured.yml') | from_yaml }}"
  delegate_to: localhost
  run_once: true
"""

RETURN = r"""
msg:
  description: What happened to the lock.
  type: str
  returned: always
  sample: /etc/fleet/locks/huihui-gemma4-mtp-n1.lock.yml is in force
lock:
  description: The lock in the file, or as it would be.
  type: dict
  returned: success
  sample:
    version: 1
    recipe: huihui-gemma4-mtp-n1
patches:
  description:
    - The patches of the lock, each with RV(ignore:src), its file on the controller, and with C(target) and C(tried_with)
      of the recipe.
  type: list
  elements: dict
  returned: success, and not with O(state=tuned)
  sample:
    - name: gemma4_mtp.py
      src: /home/me/.cache/sparkfleet/patches/<sha256>/gemma4_mtp.py
differences:
  description: Differences between upstream and the lock.
  type: list
  elements: dict
  returned: always
  sample:
    - part: models.draft google/gemma-4-26B-A4B-it-assistant at main
      value: commit
      locked: 1111111111111111111111111111111111111111
      seen: 2222222222222222222222222222222222222222
summary:
  description: The locked parts, one a line, for people.
  type: list
  elements: str
  returned: success
  sample: ["image vllm/vllm-openai:gemma4-0505-arm64-cu130 is sha256:…"]
lock_path:
  description: File of the lock.
  type: str
  returned: always
  sample: /etc/fleet/locks/huihui-gemma4-mtp-n1.lock.yml
"""

import dataclasses
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import env_fallback, missing_required_lib

from ..module_utils._common import files
from ..module_utils._common.basic import AnsibleModule
from ..module_utils._common.upstream import HAS_REQUESTS, NotFound, Unreachable, UpstreamError
from ..module_utils._images import registry
from ..module_utils._images.reference import parse_reference
from ..module_utils._models.hub import Hub, HubError
from ..module_utils._recipe import lock as locks
from ..module_utils._recipe import measured, patch_cache, raw_file, resolve
from ..module_utils._recipe import recipe as recipes
from ..module_utils._recipe.document import HAS_YAML, Document, Problem
from ..module_utils._recipe.schema import check

try:
    import huggingface_hub.errors as hub_errors

    HUB_PROBLEM = None
except ImportError:
    HUB_PROBLEM = traceback.format_exc()


class Upstream:
    """The registry, the Hub and the raw file server that the options name."""

    def __init__(self, params: Mapping[str, Any], patient: bool) -> None:
        self.mirrors = params["registry_mirrors"]
        username, password = params["registry_username"], params["registry_password"]
        self.credentials = registry.Credentials(username, password) if username and password else None
        self.raw = params["raw_endpoint"]
        # With a lock at hand, an answer is welcome but not needed.
        self.hub = Hub(params["hub_endpoint"], params["hub_token"] or None, retries=3 if patient else 1)
        self.notes: list[str] = []

    def digest(self, reference: str) -> str:
        answer = registry.resolve(parse_reference(reference), self.mirrors, self.credentials)
        self.notes.extend(answer.notes)
        return answer.digest

    def manifest(self, repository: str, revision: str) -> Mapping[str, Any]:
        try:
            return self.hub.resolve_manifest(repository, revision)
        except HubError as error:
            raise _of_hub(error) from error

    def commit(self, repository: str, revision: str) -> str:
        try:
            return self.hub.commit(repository, revision)
        except HubError as error:
            raise _of_hub(error) from error

    def patch(self, patch: Mapping[str, Any]) -> bytes:
        return raw_file.fetch(self.raw, patch["repository"], patch["commit"], patch["path"])


def _of_hub(error: HubError) -> UpstreamError:
    if isinstance(error.__cause__, hub_errors.RevisionNotFoundError):
        return NotFound(str(error))
    return Unreachable(str(error)) if error.retryable else UpstreamError(str(error))


class Cache:
    def __init__(self, folder: str) -> None:
        self.folder = str(Path(folder).absolute())

    def find(self, sha256: str, name: str) -> str | None:
        return patch_cache.cached(self.folder, sha256, name)

    def keep(self, name: str, content: bytes) -> str:
        return patch_cache.keep(self.folder, name, content)


class Refused(Exception):
    """The run must stop; the text is the user's message."""

    def __init__(self, message: str, differences: list[locks.Difference] | None = None) -> None:
        super().__init__(message)
        self.differences = [dataclasses.asdict(item) for item in differences or []]


def read(path: Path) -> tuple[dict[str, Any], list[Problem]]:
    """The lock of a file and its problems; no lock and no problem when there is no file.

    :raises OSError: the file cannot be read
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}, []
    except UnicodeDecodeError as error:
        return {}, [Problem(str(path), "", f"expected text, seen {error}")]
    return locks.parse(text, str(path))


def run(module: AnsibleModule) -> dict[str, Any]:
    params = module.params
    recipe, path = params["recipe"], Path(params["lock_path"])
    # Rules between its keys were checked when its file was read.
    problems = check(Document(recipe, str(recipe.get("name"))), recipes.SCHEMA)
    if problems:
        raise Refused("the recipe is not valid:\n" + "\n".join(f"  {problem}" for problem in problems))
    recipe = recipes.complete(recipe)
    cache = Cache(params["cache_dir"])
    try:
        before, problems = read(path)
        if params["state"] == "tuned":
            return tune(module, before, problems, path)
        if params["state"] != "present":
            for problem in problems:
                module.warn(f"the old lock is not usable and is replaced: {problem}")
            return renew(module, recipe, before, path, cache)
        if problems:
            raise Refused("the lock is not valid:\n" + "\n".join(f"  {problem}" for problem in problems))
        if before:
            return use(module, recipe, before, path, cache)
        if params["locked"]:
            raise Refused(
                f"expected the lock {path}, seen no file, and the run is told to go by a lock only (spark_locked);"
                " make it with ansible-playbook sparkfleet.vllm.lock, look at it, and keep it"
            )
        return renew(module, recipe, before, path, cache)
    except OSError as error:
        raise Refused(
            f"expected to read and write {path} and {cache.folder}, seen {error}; set recipe_lock_dir or"
            " recipe_cache_dir to a directory of yours"
        ) from error


def use(
    module: AnsibleModule, recipe: dict[str, Any], lock: dict[str, Any], path: Path, cache: Cache
) -> dict[str, Any]:
    outdated = locks.against(recipe, lock)
    if outdated:
        raise Refused(locks.outdated(f"recipe {recipe['name']}", str(path), outdated), outdated)
    mode = module.params["upstream"]
    upstream = Upstream(module.params, patient=False)
    resolution = resolve.hold(lock, upstream, cache, ask=mode != "ignore")
    if resolution.differences and mode == "fail":
        raise Refused(resolve.moved(str(path), resolution), resolution.differences)
    if resolution.missing:
        raise Refused(
            "a locked patch is not to be had:\n  " + "\n  ".join(resolution.missing), resolution.differences
        )
    for difference in resolution.differences:
        module.warn(f"the lock stays in force: {difference.line('upstream')}")
    for unknown in [*upstream.notes, *resolution.unknown]:
        module.warn(f"the lock stays in force, upstream could not be asked: {unknown}")
    return answer(recipe, resolution, path) | {"changed": False, "msg": f"{path} is in force"}


def renew(
    module: AnsibleModule, recipe: dict[str, Any], before: dict[str, Any], path: Path, cache: Cache
) -> dict[str, Any]:
    upstream = Upstream(module.params, patient=True)
    known, covers = before, False
    if module.params["state"] == "built":
        known, covers = resolve.with_image(recipe, before, module.params["image_digest"])
    resolution = (
        resolve.hold(known, upstream, cache, ask=False)
        if covers
        else resolve.resolve(recipe, upstream, cache, known)
    )
    if resolution.missing:
        raise Refused("a locked patch is not to be had:\n  " + "\n  ".join(resolution.missing))
    for note in upstream.notes:
        module.warn(note)
    for line in locks.first_use(resolution.lock, before):
        module.warn(line)
    resolution.lock, dropped = measured.keep(recipe, before, resolution.lock)
    if dropped:
        module.warn(dropped)
    told = "holds what upstream gives"
    return answer(recipe, resolution, path) | write(module, before, resolution.lock, path, "resolved", told)


def tune(
    module: AnsibleModule, before: dict[str, Any], problems: list[Problem], path: Path
) -> dict[str, Any]:
    if problems or not before:
        told = "\n".join(f"  {problem}" for problem in problems) or f"  {path}: no file"
        raise Refused(
            f"expected a lock to write a speculation into, seen:\n{told}\ndo: lock the recipe first"
        )
    after = before | {"speculation": module.params["speculation"]}
    nothing: dict[str, Any] = {"differences": [], "summary": locks.summary(after), "lock_path": str(path)}
    return {"lock": after, **nothing} | write(module, before, after, path, "measured", "holds it already")


def write(
    module: AnsibleModule, before: dict[str, Any], after: dict[str, Any], path: Path, how: str, otherwise: str
) -> dict[str, Any]:
    """Write the lock to its file, if it differs. ``how`` it came about; ``otherwise`` what to say if it does not differ."""
    changed = after != before
    # A lock that every later run would refuse never replaces a good one.
    if changed and (wrong := locks.parse(locks.render(after), str(path))[1]):
        problems = "\n".join(f"  {problem}" for problem in wrong)
        raise Refused(f"what was {how} makes no valid lock, and nothing was written:\n{problems}")
    if changed and not module.check_mode:
        files.write(path, locks.render(after).encode())
    done = "would be written" if module.check_mode else "written"
    return {
        "changed": changed,
        "msg": f"{path} {done if changed else otherwise}",
        "diff": {
            "before_header": f"{path} (locked)",
            "after_header": f"{path} ({how})",
            **locks.diff(before, after),
        },
    }


def answer(recipe: dict[str, Any], resolution: resolve.Resolution, path: Path) -> dict[str, Any]:
    asked = {patch["name"]: patch for patch in recipe["patches"]}
    return {
        "lock": resolution.lock,
        "patches": [
            {
                **{
                    key: asked[patch["name"]][key]
                    for key in ("target", "tried_with")
                    if key in asked[patch["name"]]
                },
                **patch,
                "src": resolution.sources[patch["name"]],
            }
            for patch in resolution.lock["patches"]
        ],
        "differences": [dataclasses.asdict(item) for item in resolution.differences],
        "summary": locks.summary(resolution.lock),
        "lock_path": str(path),
    }


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "recipe": {"type": "dict", "required": True},
            "lock_path": {"type": "path", "required": True},
            "state": {
                "type": "str",
                "choices": ["present", "updated", "built", "tuned"],
                "default": "present",
            },
            "speculation": {"type": "dict"},
            "image_digest": {"type": "str"},
            "locked": {"type": "bool", "default": False},
            "upstream": {"type": "str", "choices": ["fail", "warn", "ignore"], "default": "fail"},
            "hub_endpoint": {"type": "str", "default": "https://huggingface.co"},
            "hub_token": {"type": "str", "no_log": True},
            "raw_endpoint": {"type": "str", "default": "https://raw.githubusercontent.com"},
            "registry_mirrors": {"type": "list", "elements": "str", "default": []},
            "registry_username": {
                "type": "str",
                "fallback": (env_fallback, ["SPARKFLEET_REGISTRY_USERNAME"]),
            },
            "registry_password": {
                "type": "str",
                "no_log": True,
                "fallback": (env_fallback, ["SPARKFLEET_REGISTRY_PASSWORD"]),
            },
            "cache_dir": {"type": "path", "default": "~/.cache/sparkfleet"},
        },
        required_together=[("registry_username", "registry_password")],
        required_if=[("state", "tuned", ["speculation"]), ("state", "built", ["image_digest"])],
        supports_check_mode=True,
    )
    for library, there in (
        ("PyYAML", HAS_YAML),
        ("requests", HAS_REQUESTS),
        ("huggingface_hub", HUB_PROBLEM is None),
    ):
        if not there:
            module.fail_json(msg=missing_required_lib(library), exception=HUB_PROBLEM)
    nowhere: dict[str, Any] = {"differences": [], "lock_path": module.params["lock_path"]}
    try:
        module.exit_json(**run(module))
    except Refused as error:
        module.fail_json(msg=str(error), **nowhere | {"differences": error.differences})
    except resolve.LockError as error:
        lines = "\n".join(f"  {problem}" for problem in error.problems)
        module.fail_json(msg=f"the recipe cannot be locked, nothing was written:\n{lines}", **nowhere)
    except HubError as error:
        module.fail_json(msg=f"hub_endpoint: {error}", **nowhere)


if __name__ == "__main__":
    main()
