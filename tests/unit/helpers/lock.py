# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A lock, and who is asked for it: an upstream and a cache that are made up."""

from __future__ import annotations

import copy

from ansible_collections.sparkfleet.vllm.plugins.module_utils._recipe import patch_cache, resolve
from ansible_collections.sparkfleet.vllm.plugins.module_utils._recipe import recipe as recipes
from helpers.recipe import BODY, DRAFT, PATCH, SHIPPED

RECIPE, _PROBLEMS = recipes.parse(SHIPPED.read_text(), "r")
MARK = patch_cache.fingerprint(PATCH)


class Upstream:
    """Answers by name; an exception is raised. Records what it was asked."""

    def __init__(self) -> None:
        self.image = "sha256:" + "1" * 64
        self.commits = {BODY: RECIPE["models"]["body"]["revision"], DRAFT: "d" * 40}
        self.content = PATCH
        self.asked: list[str] = []

    def _give(self, what, answer):
        self.asked.append(what)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def digest(self, reference):
        return self._give(f"image {reference}", self.image)

    def commit(self, repository, revision):
        return self._give(f"commit {repository} {revision}", self.commits[repository])

    def manifest(self, repository, revision):
        commit = self._give(f"manifest {repository} {revision}", self.commits[repository])
        files = {"z.json": {"size": 2, "sha256": "b" * 64}, "a.safetensors": {"size": 9, "sha256": "c" * 64}}
        return {"repository": repository, "revision": revision, "commit": commit, "files": files}

    def patch(self, patch):
        return self._give(f"patch {patch['name']}", self.content)


class Cache:
    def __init__(self) -> None:
        self.held: dict[tuple[str, str], bytes] = {}

    def find(self, sha256, name):
        return f"/cache/{sha256}/{name}" if (sha256, name) in self.held else None

    def keep(self, name, content):
        sha256 = patch_cache.fingerprint(content).sha256
        self.held[sha256, name] = content
        return f"/cache/{sha256}/{name}"


COMMIT = "dee37d89115db4c94a820a79a78a7828e141c910"
BUILT = RECIPE | {
    "image": {
        "reference": f"sparkfleet/vllm-openai:main-{COMMIT[:12]}",
        "build": {
            "repository": "vllm-project/vllm",
            "commit": COMMIT,
            "dockerfile": "docker/Dockerfile",
            "arguments": {"a": "1"},
        },
    }
}
DIGEST = "sha256:" + "7" * 64


def built(lock, recipe=BUILT):
    made, _covers = resolve.with_image(recipe, lock, DIGEST)
    return made


def with_build(**changes):
    changed = copy.deepcopy(BUILT)
    changed["image"]["build"] |= changes
    return changed
