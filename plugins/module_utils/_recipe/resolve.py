# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the names of a recipe stand for upstream: all of them for a new lock, and again for a lock in force.

Nothing here opens a connection: the caller passes :class:`Upstream` and :class:`Cache`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
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
    """Knows what names stand for. Each method raises UpstreamError."""

    def digest(self, reference: str) -> str: ...

    def manifest(self, repository: str, revision: str) -> Mapping[str, Any]: ...

    def commit(self, repository: str, revision: str) -> str: ...

    def patch(self, patch: Mapping[str, Any]) -> bytes: ...


class Cache(Protocol):
    """Patches on the controller, under their sha256."""

    def find(self, sha256: str, name: str) -> str | None: ...

    def keep(self, name: str, content: bytes) -> str: ...


@dataclass
class Resolution:
    """What a run uses.

    ``sources`` maps a patch's name to its file on the controller. ``differences`` is what moved upstream, ``unknown`` what
    upstream did not answer, ``missing`` each locked patch that is neither cached nor upstream.
    """

    lock: dict[str, Any]
    sources: dict[str, str] = field(default_factory=dict)
    differences: list[Difference] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)


def resolve(
    recipe: Mapping[str, Any], upstream: Upstream, cache: Cache, before: Mapping[str, Any] | None = None
) -> Resolution:
    """A new lock of a recipe. Asks everything at once.

    :param before: the lock until now. Only this lock knows the digest of an image that is built. Nobody else is asked, since
        a stranger may own the name
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
    resolution = Resolution(
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
        resolution.lock["patches"].append(_patch(patch, content))
        resolution.sources[patch["name"]] = cache.keep(patch["name"], content)
    return resolution


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


def hold(lock: dict[str, Any], upstream: Upstream, cache: Cache, ask: bool) -> Resolution:
    """Use a lock that covers the recipe, and find out what has changed upstream since.

    An upstream that does not answer leaves the lock in force.

    :param ask: False: ask for nothing but patches the cache lacks
    """
    resolution = Resolution(lock)
    resolution.sources = {
        patch["name"]: path
        for patch in lock["patches"]
        if (path := cache.find(patch["sha256"], patch["name"])) is not None
    }
    questions: list[Question] = [*_names(lock, upstream)] if ask else []
    questions += [
        Patch(patch, upstream, cache)
        for patch in lock["patches"]
        if ask or patch["name"] not in resolution.sources
    ]
    answers = _ask({question.part: question.ask for question in questions})
    for question in questions:
        answer = answers[question.part]
        if isinstance(answer, UpstreamError) and not isinstance(answer, NotFound):
            resolution.unknown.append(f"{question.part}: {answer}")
        question.settle(answer, resolution)
    return resolution


class Question(Protocol):
    """What is asked again of a lock that is in force. An UpstreamError is an answer too."""

    @property
    def part(self) -> str:
        """The part of the lock that it asks about; no two questions have the same."""

    def ask(self) -> Any:
        """:raises UpstreamError:"""

    def compare(self, answer: Any) -> list[Difference]:
        """How the answer differs from what is locked. That nobody answers is no difference."""

    def settle(self, answer: Any, resolution: Resolution) -> None:
        """Put into the resolution what the answer means for it."""


@dataclass(frozen=True)
class Name:
    """A name that may stand for something else by now: an image's tag, a model's branch."""

    part: str
    shown: str
    value: str
    locked: str
    look_up: Callable[[], str]

    def ask(self) -> str:
        return self.look_up()

    def compare(self, answer: str | UpstreamError) -> list[Difference]:
        return _moved(self.shown, self.value, self.locked, answer)

    def settle(self, answer: str | UpstreamError, resolution: Resolution) -> None:
        resolution.differences += self.compare(answer)


@dataclass(frozen=True)
class Patch:
    """A patch that is locked: its bytes upstream may be others, and the cache may lack it."""

    locked: Mapping[str, Any]
    upstream: Upstream
    cache: Cache

    @property
    def part(self) -> str:
        return f"patches.{self.locked['name']}"

    def ask(self) -> bytes:
        return self.upstream.patch(self.locked)

    def compare(self, answer: bytes | UpstreamError) -> list[Difference]:
        locked = self.locked
        if isinstance(answer, UpstreamError):
            return _moved(self.part, "md5", locked["md5"], answer)
        seen = _patch(locked, answer)
        named = f"{self.part} {locked['repository']}/{locked['path']} at {locked['commit']}"
        return [
            Difference(named, key, str(locked[key]), str(seen[key]))
            for key in ("md5", "sha256", "size")
            if locked[key] != seen[key]
        ]

    def settle(self, answer: bytes | UpstreamError, resolution: Resolution) -> None:
        changed = self.compare(answer)
        resolution.differences += changed
        name = self.locked["name"]
        if name in resolution.sources:
            return
        if isinstance(answer, bytes) and not changed:
            resolution.sources[name] = self.cache.keep(name, answer)
            return
        seen_instead = changed[0].line("upstream") if changed else str(answer)
        resolution.missing.append(
            f"{self.part}: expected sha256 {self.locked['sha256']} in the cache or upstream, seen neither: {seen_instead}"
        )


def _names(lock: Mapping[str, Any], upstream: Upstream) -> Iterator[Name]:
    """The names of a lock that can move. A commit and a digest name their content; of an image that is built nobody is asked."""
    image = lock["image"]
    reference = image["reference"]
    if "build" not in image and parse_reference(reference).digest is None:
        yield Name(
            "image", f"image {reference}", "digest", image["digest"], partial(upstream.digest, reference)
        )
    for role, model in lock["models"].items():
        repository, revision = model["repository"], model["revision"]
        if not re.fullmatch(recipes.COMMIT, revision):
            part = f"models.{role}"
            shown = f"{part} {repository} at {revision}"
            yield Name(part, shown, "commit", model["commit"], partial(upstream.commit, repository, revision))


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


def moved(lock: str, resolution: Resolution) -> str:
    """Upstream gives something else than what is locked."""
    return "\n".join(
        [
            f"upstream no longer gives what {lock} holds:",
            *listed(resolution.differences, "upstream"),
            *(f"  {line}" for line in resolution.missing),
            "No host was touched. To stay with the lock: -e recipe_upstream=warn. To take what upstream gives now:"
            " ansible-playbook sparkfleet.vllm.lock --diff, look at what changed, and keep the new lock.",
        ]
    )
