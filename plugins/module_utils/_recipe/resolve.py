# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the names of a recipe stand for upstream: asked all at once for a new lock, and asked again for one that is in force.

Nothing here opens a connection: :class:`Upstream` and :class:`Cache` are handed in.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

from .._common.upstream import NotFound, UpstreamError
from .._images.reference import parse_reference
from . import recipe as recipes
from .lock import BUILD, VERSION, Difference, against, listed
from .patch_cache import fingerprint


class LockError(Exception):
    """A recipe cannot be locked, or its lock cannot be used. ``problems`` holds every reason."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = list(problems)
        super().__init__("\n".join(self.problems))


class Upstream(Protocol):
    """Who knows what names stand for. Each raises UpstreamError."""

    def digest(self, reference: str) -> str: ...

    def manifest(self, repository: str, revision: str) -> Mapping[str, Any]: ...

    def commit(self, repository: str, revision: str) -> str: ...

    def patch(self, patch: Mapping[str, Any]) -> bytes: ...


class Cache(Protocol):
    """Patches on the controller, under their sha256."""

    def find(self, sha256: str, name: str) -> str | None: ...

    def keep(self, name: str, content: bytes) -> str: ...


@dataclass
class Settled:
    """What a run goes by.

    ``sources`` maps a patch's name to its file on the controller, ``differences`` is what moved upstream,
    ``unknown`` what upstream could not be asked for, ``missing`` each locked patch that is not to be had.
    """

    lock: dict[str, Any]
    sources: dict[str, str] = field(default_factory=dict)
    differences: list[Difference] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)


def resolve(
    recipe: Mapping[str, Any], upstream: Upstream, cache: Cache, before: Mapping[str, Any] | None = None
) -> Settled:
    """A new lock of a recipe, everything asked at once.

    :param before: the lock until now. It alone knows the digest of an image that is built: nobody else is asked, since a
        stranger may have the name
    :raises LockError: with every part that could not be resolved
    """
    jobs: dict[str, Callable[[], Any]] = {
        "image": partial(_built, recipe["image"], before or {})
        if "build" in recipe["image"]
        else partial(upstream.digest, recipe["image"]["reference"]),
    }
    for role, model in recipe["models"].items():
        jobs[f"models.{role}"] = partial(upstream.manifest, model["repository"], model["revision"])
    for patch in recipe["patches"]:
        jobs[f"patches.{patch['name']}"] = partial(upstream.patch, patch)
    answers = _ask(jobs)
    problems = [f"{part}: {answer}" for part, answer in answers.items() if isinstance(answer, UpstreamError)]
    if problems:
        raise LockError(problems)
    settled = Settled(
        {
            "version": VERSION,
            "recipe": recipe["name"],
            "image": _image(recipe["image"], answers["image"]),
            "models": {
                role: {
                    "repository": model["repository"],
                    "revision": model["revision"],
                    "commit": answers[f"models.{role}"]["commit"],
                    "files": {
                        path: {"size": file["size"], "sha256": file["sha256"]}
                        for path, file in sorted(answers[f"models.{role}"]["files"].items())
                    },
                }
                for role, model in recipe["models"].items()
            },
            "patches": [],
        }
    )
    for patch in recipe["patches"]:
        content = answers[f"patches.{patch['name']}"]
        settled.lock["patches"].append(_patch(patch, content))
        settled.sources[patch["name"]] = cache.keep(patch["name"], content)
    return settled


def _image(image: Mapping[str, Any], digest: str) -> dict[str, Any]:
    reference = image["reference"]
    pinned = {
        "reference": reference,
        "digest": digest,
        "pinned": parse_reference(reference).pinned(digest),
    }
    return pinned | ({"build": image["build"]} if "build" in image else {})


def _built(image: Mapping[str, Any], before: Mapping[str, Any]) -> str:
    """:raises NotFound: no lock holds a digest of what the recipe asks for"""
    known = before.get("image") or {}
    if known and _image(image, known["digest"]) == known:
        return str(known["digest"])
    raise NotFound(
        f"expected the digest of {image['reference']}, seen none: it is built, not published; build it: {BUILD}"
    )


def with_image(
    recipe: Mapping[str, Any], lock: Mapping[str, Any], digest: str
) -> tuple[dict[str, Any], bool]:
    """A lock that holds the digest of what was just built, and whether the rest of it covers the recipe."""
    held = {**lock, "image": _image(recipe["image"], digest)}
    return held, bool(lock) and not against(recipe, held)


def hold(lock: dict[str, Any], upstream: Upstream, cache: Cache, ask: bool) -> Settled:
    """Use a lock that covers the recipe, and find out what has changed upstream since.

    What names its content by itself (a commit, a digest) cannot move and is not asked, and neither is anybody for an image
    that is built. An upstream that does not answer leaves the lock in force.

    :param ask: False: ask for nothing but patches the cache lacks
    """
    settled = Settled(lock)
    settled.sources = {
        patch["name"]: path
        for patch in lock["patches"]
        if (path := cache.find(patch["sha256"], patch["name"])) is not None
    }
    jobs: dict[str, Callable[[], Any]] = {}
    image = lock["image"]
    if ask and "build" not in image and parse_reference(image["reference"]).digest is None:
        jobs["image"] = partial(upstream.digest, image["reference"])
    for role, model in lock["models"].items():
        if ask and not re.fullmatch(recipes.COMMIT, model["revision"]):
            jobs[f"models.{role}"] = partial(upstream.commit, model["repository"], model["revision"])
    for patch in lock["patches"]:
        if ask or patch["name"] not in settled.sources:
            jobs[f"patches.{patch['name']}"] = partial(upstream.patch, patch)
    answers = _ask(jobs)
    for part, answer in answers.items():
        if isinstance(answer, UpstreamError) and not isinstance(answer, NotFound):
            settled.unknown.append(f"{part}: {answer}")

    if "image" in answers:
        settled.differences += _moved(
            f"image {image['reference']}", "digest", image["digest"], answers["image"]
        )
    for role, model in lock["models"].items():
        if (part := f"models.{role}") in answers:
            named = f"{part} {model['repository']} at {model['revision']}"
            settled.differences += _moved(named, "commit", model["commit"], answers[part])
    for patch in lock["patches"]:
        name, answer = patch["name"], answers.get(f"patches.{patch['name']}")
        changed = []
        if isinstance(answer, bytes):
            seen = _patch(patch, answer)
            named = f"patches.{name} {patch['repository']}/{patch['path']} at {patch['commit']}"
            changed = [
                Difference(named, key, str(patch[key]), str(seen[key]))
                for key in ("md5", "sha256", "size")
                if patch[key] != seen[key]
            ]
            if not changed and name not in settled.sources:
                settled.sources[name] = cache.keep(name, answer)
        elif isinstance(answer, NotFound):
            changed = _moved(f"patches.{name}", "md5", patch["md5"], answer)
        settled.differences += changed
        if name not in settled.sources:
            seen_instead = changed[0].line("upstream") if changed else str(answer)
            settled.missing.append(
                f"patches.{name}: expected sha256 {patch['sha256']} in the cache or upstream, seen neither:"
                f" {seen_instead}"
            )
    return settled


def _patch(patch: Mapping[str, Any], content: bytes) -> dict[str, Any]:
    mark = fingerprint(content)
    return {
        **{key: patch[key] for key in ("name", "repository", "commit", "path")},
        "size": mark.size,
        "md5": mark.md5,
        "sha256": mark.sha256,
    }


def _moved(part: str, value: str, locked: str, answer: str | UpstreamError) -> list[Difference]:
    if isinstance(answer, NotFound):
        return [Difference(part, value, locked, f"gone: {answer}")]
    if isinstance(answer, UpstreamError) or answer == locked:
        return []
    return [Difference(part, value, locked, answer)]


def _ask(jobs: Mapping[str, Callable[[], Any]]) -> dict[str, Any]:
    """The answers of all jobs, asked at the same time; an UpstreamError is an answer too."""

    def one(job: Callable[[], Any]) -> Any:
        try:
            return job()
        except UpstreamError as error:
            return error

    if not jobs:
        return {}
    with ThreadPoolExecutor(len(jobs)) as pool:
        return dict(zip(jobs, pool.map(one, jobs.values()), strict=True))


def moved(lock: str, settled: Settled) -> str:
    """Upstream gives something else than what is locked."""
    return "\n".join(
        [
            f"upstream no longer gives what {lock} holds:",
            *listed(settled.differences, "upstream"),
            *(f"  {line}" for line in settled.missing),
            "No host was touched. To stay with the lock: -e recipe_upstream=warn. To take what upstream gives now:"
            " ansible-playbook sparkfleet.vllm.lock --diff, look at what changed, and keep the new lock.",
        ]
    )
