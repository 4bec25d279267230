# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A lock: what the names of a recipe stood for when they were last resolved. Its file, and how the recipe differs from what the lock
was made of. resolve.py makes locks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from .._images import oci
from . import measured as measurements
from . import recipe as recipes
from .document import Problem, dump, load
from .schema import Key, between, check, matches

VERSION = 1
HEADER = """\
# What the names in the recipe stood for when they were resolved: the bytes every Spark runs.
# Written by playbooks/lock.yml, and by the first playbooks/site.yml. Keep it with the inventory or the recipe;
# do not edit it.
"""

LOCK = "ansible-playbook sparkfleet.vllm.lock"
BUILD = "ansible-playbook sparkfleet.vllm.build"

_commit = matches(recipes.COMMIT, "a whole commit, 40 lower-case hex digits")
_sha256 = matches(r"[0-9a-f]{64}", "64 lower-case hex digits")
_size = Key("size", "integer", "bytes", required=True, check=between(0, 2**63))
_model = (
    Key("repository", "string", "repository on the Hub", required=True),
    Key("revision", "string", "the revision as the recipe asks for it", required=True),
    Key("commit", "string", "the commit it stood for", required=True, check=_commit),
    Key(
        "files",
        "map",
        "every file of the commit",
        required=True,
        keys=(_size, Key("sha256", "string", "of its bytes", required=True, check=_sha256)),
        check=lambda files: None if files else "expected at least one file, seen none",
    ),
)
SCHEMA: tuple[Key, ...] = (
    Key(
        "version",
        "integer",
        "of this format",
        required=True,
        check=lambda n: None if n == VERSION else f"expected {VERSION}, seen {n}: made by another release",
    ),
    Key("recipe", "string", "name of the recipe", required=True),
    Key(
        "image",
        "mapping",
        "the image",
        required=True,
        keys=(
            Key("reference", "string", "as the recipe has it", required=True),
            Key(
                "digest",
                "string",
                "what it stood for",
                required=True,
                check=matches(oci.DIGEST.pattern, "sha256:…"),
            ),
            Key("pinned", "string", "the image by that digest", required=True),
            Key("build", "mapping", "what it was built from, as the recipe has it", keys=recipes.BUILD),
        ),
    ),
    Key(
        "models",
        "mapping",
        "the models",
        required=True,
        keys=(
            Key("body", "mapping", "the body", required=True, keys=_model),
            Key("draft", "mapping", "the draft", keys=_model),
        ),
    ),
    Key(
        "patches",
        "list",
        "the patches",
        required=True,
        keys=(
            Key("name", "string", "file name", required=True),
            Key("repository", "string", "where it is from", required=True),
            Key("commit", "string", "at which commit", required=True, check=_commit),
            Key("path", "string", "path in the repository", required=True),
            _size,
            Key(
                "md5",
                "string",
                "of its bytes",
                required=True,
                check=matches(r"[0-9a-f]{32}", "32 hex digits"),
            ),
            Key("sha256", "string", "of its bytes", required=True, check=_sha256),
        ),
    ),
    Key(
        "speculation",
        "mapping",
        "what was measured to be best, in place of the recipe's speculative config",
        check=lambda value: (
            None
            if value.get("method") or not value.get("num_speculative_tokens")
            else "expected a method, since there are tokens to draft"
        ),
        keys=(
            Key(
                "num_speculative_tokens",
                "integer",
                "tokens the draft proposes a step; 0 for no speculation",
                required=True,
                check=between(0, 64),
            ),
            Key("method", "string", "how it drafts; empty for no speculation", required=True),
            Key("options", "map", "further keys of the speculative config", required=True),
            Key(
                "measured",
                "mapping",
                "the evidence",
                required=True,
                keys=(
                    Key("at", "string", "when, UTC", required=True),
                    Key("hosts", "strings", "on which hosts, the first one's figures", required=True),
                    Key("version", "string", "of vLLM", required=True),
                    Key("concurrency", "integer", "streams of the load that decided", required=True),
                    Key("ratio", "number", "times as fast as without speculation", required=True),
                    Key("low", "number", "at least that, with 95 %", required=True),
                    Key("high", "number", "at most that, with 95 %", required=True),
                    Key("because", "string", "in words", required=True),
                ),
            ),
        ),
    ),
)


@dataclass(frozen=True)
class Difference:
    """One value that differs from the lock's. ``seen`` is the recipe's or the upstream's."""

    part: str
    value: str
    locked: str
    seen: str

    def line(self, by: str) -> str:
        return f"{self.part}: {self.value}: locked {self.locked}, {by} {self.seen}"


# -- the file -------------------------------------------------------------------------------------------


def parse(text: str, source: str) -> tuple[dict[str, Any], list[Problem]]:
    """Lock and problems of a file's text. The lock is empty if there are problems."""
    document = load(text, source)
    problems = document.problems
    if not problems:
        problems = check(document, SCHEMA)
    if not problems:
        image = document.data["image"]
        if image["pinned"].rpartition("@")[2] != image["digest"]:
            seen = f"expected the image by {image['digest']}, seen {image['pinned']}"
            problems = [document.problem(("image", "pinned"), seen)]
    return ({} if problems else document.data), problems


def render(lock: Mapping[str, Any]) -> str:
    """The file's text: same lock, same bytes."""
    return f"---\n{HEADER}{dump(lock)}"


def lines(lock: Mapping[str, Any]) -> dict[str, str]:
    """A lock as flat, readable lines: ``models.draft.commit: …``. Empty for no lock."""
    if not lock:
        return {}
    flat = {"image.reference": lock["image"]["reference"], "image.digest": lock["image"]["digest"]}
    flat |= {f"image.build.{key}": value for key, value in _flat_build(lock["image"]).items()}
    for role, model in lock["models"].items():
        for key in ("repository", "revision", "commit"):
            flat[f"models.{role}.{key}"] = model[key]
        for path, file in model["files"].items():
            flat[f"models.{role}.files[{path}]"] = f"{file['size']} bytes, sha256 {file['sha256']}"
    for patch in lock["patches"]:
        for key in ("repository", "commit", "path", "size", "md5", "sha256"):
            flat[f"patches[{patch['name']}].{key}"] = str(patch[key])
    return flat | (measurements.lines(lock["speculation"]) if "speculation" in lock else {})


def _flat_build(image: Mapping[str, Any]) -> dict[str, str]:
    """What an image is built from, one line for each argument; empty for an image that is published."""
    build = image.get("build") or {}
    arguments = {f"arguments.{name}": value for name, value in build.get("arguments", {}).items()}
    return {key: value for key, value in build.items() if key != "arguments"} | arguments


def diff(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, str]:
    """What changes from one lock to another, and nothing else: the two sides for diff mode."""
    old, new = lines(before), lines(after)
    return {
        "before": "".join(f"{key}: {value}\n" for key, value in old.items() if new.get(key) != value),
        "after": "".join(f"{key}: {value}\n" for key, value in new.items() if old.get(key) != value),
    }


def summary(lock: Mapping[str, Any]) -> list[str]:
    """What is locked, for people, one line for each part."""
    told = [f"image {lock['image']['reference']} is {lock['image']['digest']}"]
    for role, model in lock["models"].items():
        size = sum(file["size"] for file in model["files"].values())
        count = len(model["files"])
        told.append(
            f"{role} {model['repository']} at {model['revision']} is {model['commit']}:"
            f" {count} file{'s' if count != 1 else ''}, {size / 1e9:.3f} GB"
        )
    for patch in lock["patches"]:
        told.append(
            f"patch {patch['name']} at {patch['commit'][:12]} is md5 {patch['md5']}, {patch['size']} bytes"
        )
    if "speculation" in lock:
        measured = lock["speculation"]["measured"]
        told.append(
            f"speculation {measurements.describe(lock['speculation'])}, measured {measured['at']}: {measured['because']}"
        )
    return told


# -- recipe against lock ----------------------------------------------------------------------------------


def against(recipe: Mapping[str, Any], lock: Mapping[str, Any]) -> list[Difference]:
    """What the recipe asks for, where the lock was made of something else."""
    found: list[Difference] = []

    def compare(part: str, locked: Mapping[str, Any], asked: Mapping[str, Any], keys: Iterable[str]) -> None:
        found.extend(
            Difference(part, key, str(locked[key]), str(asked[key]))
            for key in keys
            if locked[key] != asked[key]
        )

    compare("recipe", {"name": lock["recipe"]}, recipe, ("name",))
    compare("image", lock["image"], recipe["image"], ("reference",))
    built, build = _flat_build(lock["image"]), _flat_build(recipe["image"])
    found.extend(
        Difference("image.build", key, built.get(key, "absent"), build.get(key, "absent"))
        for key in dict.fromkeys([*built, *build])
        if built.get(key) != build.get(key)
    )
    for part, locked, asked, keys in (
        ("models", lock["models"], recipe["models"], ("repository", "revision")),
        (
            "patches",
            {patch["name"]: patch for patch in lock["patches"]},
            {patch["name"]: patch for patch in recipe["patches"]},
            ("repository", "commit", "path"),
        ),
    ):
        for name in dict.fromkeys([*locked, *asked]):
            if name in locked and name in asked:
                compare(f"{part}.{name}", locked[name], asked[name], keys)
            else:
                there = tuple("there" if name in side else "absent" for side in (locked, asked))
                found.append(Difference(part, name, *there))
    if model := measurements.unmounted_draft(recipe, lock["speculation"]) if "speculation" in lock else "":
        mounts = ", ".join(each["mount"] for each in recipe["models"].values())
        found.append(Difference("speculation", "options.model", model, f"mounts {mounts}"))
    return found


# -- messages to a user -------------------------------------------------------------------------------------


def listed(differences: Iterable[Difference], by: str) -> list[str]:
    return [f"  {difference.line(by)}" for difference in differences]


def outdated(recipe: str, lock: str, differences: Iterable[Difference]) -> str:
    """The message that the recipe was edited after it was locked."""
    differences = list(differences)
    edits = {
        difference.value: difference.seen for difference in differences if difference.part == "image.build"
    }
    # Where the recipe builds nothing any more, there is no repository.
    build = bool(edits) and edits.get("repository") != "absent"
    do = f"build its image as it is now: {BUILD}" if build else f"lock it as it is now: {LOCK}"
    return "\n".join(
        [
            f"{recipe} asks for something else than its lock {lock} was made of:",
            *listed(differences, "recipe"),
            f"No host was touched. If the recipe is right, {do}",
        ]
    )


def first_use(lock: Mapping[str, Any], before: Mapping[str, Any]) -> list[str]:
    """What is trusted at first sight: each patch whose bytes no earlier lock vouches for."""
    known = {patch["sha256"] for patch in before.get("patches", ())}
    return [
        f"trust on first use: nothing but the connection vouches for {patch['name']}"
        f" ({patch['repository']} at {patch['commit']}): md5 {patch['md5']}, sha256 {patch['sha256']}."
        " Compare it with a source you trust; from now on every run and every host is held to it."
        for patch in lock["patches"]
        if patch["sha256"] not in known
    ]
