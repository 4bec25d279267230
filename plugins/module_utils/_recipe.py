# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A recipe: its shape, its checks and its defaults. ``SCHEMA`` is the one place that declares its keys."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import PurePath
from typing import Any

from ansible_collections.sparkfleet.vllm.plugins.module_utils import _recipe_arguments as known
from ansible_collections.sparkfleet.vllm.plugins.module_utils._registry import parse_reference
from ansible_collections.sparkfleet.vllm.plugins.module_utils._schema import (
    Document,
    Key,
    Path,
    Problem,
    between,
    check,
    dotted,
    fill,
    load,
    matches,
    nearest,
    of_kind,
    seen,
)

NAME = r"[a-z0-9]+([._-][a-z0-9]+)*"
REPOSITORY = r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*"
COMMIT = r"[0-9a-f]{40}"
REVISION = r"[A-Za-z0-9][A-Za-z0-9._/-]*"

_repository = matches(REPOSITORY, "a repository as owner/name")


def _reference(text: str) -> str | None:
    try:
        parse_reference(text)
    except ValueError as error:
        return str(error)
    return None


def _references(items: list[str]) -> str | None:
    return next((complaint for complaint in map(_reference, items) if complaint), None)


def _absolute(text: str) -> str | None:
    if text.startswith("/") and text != "/" and posixpath.normpath(text) == text:
        return None
    return f"expected an absolute path without '..' and without '/' at its end, seen {seen(text)}"


def _relative(text: str) -> str | None:
    if text and not text.startswith("/") and posixpath.normpath(text) == text and not text.startswith(".."):
        return None
    return f"expected a path inside the repository, without '..' and leading '/', seen {seen(text)}"


def _environment(values: Mapping[str, Any]) -> str | None:
    for name, value in values.items():
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            return f"expected names of letters, digits and '_', seen '{name}'"
        if re.search(r"(TOKEN|API_KEY|PASSWORD|SECRET)$", name.upper()):
            return f"{name} is a secret and a recipe is public; set it in the inventory, from a vault"
        if not isinstance(value, str):
            return f"expected text as the value of {name}, seen {seen(value)}; put it in quotes"
    return None


def _methods(methods: Mapping[str, Any]) -> str | None:
    valid = known.SPECULATIVE - {"method", "num_speculative_tokens"}
    for name, options in methods.items():
        if not isinstance(options, Mapping):
            return (
                f"expected further keys of the speculative config for {name}, or {{}}, seen {seen(options)}"
            )
        for key in options:
            if key not in valid:
                near = nearest(key, valid)
                return f"vLLM's speculative config has no key {name}.{key}" + (
                    f"; nearest valid key: {near}" if near else ""
                )
    return None


_MODEL = (
    Key("repository", "string", "repository on the Hugging Face Hub", required=True, check=_repository),
    Key(
        "revision",
        "string",
        "branch, tag or commit; the lock holds the commit it stands for",
        required=True,
        check=matches(REVISION, "a branch, a tag or a commit"),
    ),
    Key("mount", "string", "where the container sees the model, read-only", required=True, check=_absolute),
)

SCHEMA: tuple[Key, ...] = (
    Key(
        "name",
        "string",
        "the name of the file without .yml",
        required=True,
        check=matches(NAME, "lower-case letters and digits, with '.', '_' or '-' between them"),
    ),
    Key("description", "string", "one or two sentences for people", default=""),
    Key(
        "image",
        "mapping",
        "the vLLM image",
        required=True,
        keys=(
            Key(
                "reference",
                "string",
                "the image by tag, or by digest; the lock holds the digest",
                required=True,
                check=_reference,
            ),
        ),
    ),
    Key(
        "models",
        "mapping",
        "what is served",
        required=True,
        keys=(
            Key("body", "mapping", "the model that answers", required=True, keys=_MODEL),
            Key("draft", "mapping", "the model that speculates; none without speculation", keys=_MODEL),
        ),
    ),
    Key(
        "patches",
        "list",
        "files to replace in the image",
        default=[],
        keys=(
            Key(
                "name",
                "string",
                "its file name in the store",
                required=True,
                check=matches(r"[A-Za-z0-9_][A-Za-z0-9._-]*", "a file name"),
            ),
            Key("repository", "string", "repository it is taken from", required=True, check=_repository),
            Key(
                "commit",
                "string",
                "commit it is taken from",
                required=True,
                check=matches(COMMIT, "a whole commit, 40 lower-case hex digits"),
            ),
            Key("path", "string", "path in that repository", required=True, check=_relative),
            Key("target", "string", "file it replaces; found in the image when left out", check=_absolute),
            Key(
                "tried_with",
                "strings",
                "images, by tag or digest, it was tried with; empty means any",
                default=[],
                check=_references,
            ),
        ),
    ),
    Key(
        "serve",
        "mapping",
        "how it is served",
        required=True,
        keys=(
            Key("port", "integer", "port of the API", default=8000, check=between(1, 65535)),
            Key("environment", "map", "variables of the container, as text", default={}, check=_environment),
            Key("arguments", "map", "options of `vllm serve`, long names without dashes", required=True),
            Key("unchecked", "strings", "options newer or older than the list of known ones", default=[]),
        ),
    ),
    Key(
        "tune",
        "mapping",
        "what tune.yml tries",
        default={},
        keys=(
            Key(
                "methods",
                "map",
                "ways to draft besides the speculative-config, each with its further keys",
                default={},
                check=_methods,
            ),
        ),
    ),
    Key(
        "expect",
        "mapping",
        "what the gate holds it to",
        default={},
        keys=(
            Key(
                "acceptance_floor",
                "number",
                "least share of drafts accepted at position 0; 0 without speculation",
                default=0.40,
                check=between(0, 1),
            ),
            Key(
                "minimum_drafts",
                "integer",
                "drafts to make before the share means something; 0 without speculation",
                default=200,
                check=between(0, 1_000_000),
            ),
        ),
    ),
)

Told = Callable[..., None]


def parse(text: str, source: str) -> tuple[dict[str, Any], list[Problem]]:
    """Recipe and problems of a file's text. The recipe has its defaults, and is empty if there are problems."""
    document = load(text, source)
    problems = list(document.problems)
    if document.data is not None:
        told = {problem.key for problem in problems}
        problems += [p for p in validate(document.data, source, document) if p.key not in told]
    elif not problems:
        problems = [Problem(source, "", "the file is empty; docs/recipes.md says what a recipe holds")]
    problems.sort(key=lambda problem: problem.line or 0)
    return ({} if problems else complete(document.data)), problems


def complete(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """A valid recipe with its defaults. Without speculation nothing is expected of drafts."""
    filled = fill(recipe, SCHEMA)
    if "speculative-config" not in filled["serve"]["arguments"]:
        filled["expect"] = {"acceptance_floor": 0.0, "minimum_drafts": 0}
    return filled


def validate(data: Any, source: str, document: Document | None = None) -> list[Problem]:
    """Every problem of a recipe. ``source`` names the file, ``document`` knows the lines."""
    lines = document.lines if document else {}
    problems = check(data, SCHEMA, source, lines)
    if not isinstance(data, Mapping):
        return problems
    told = {problem.key for problem in problems}

    def tell(path: Path, message: str, near: str | None = None) -> None:
        if dotted(path) not in told:
            line = next((lines[path[:n]] for n in range(len(path), 0, -1) if path[:n] in lines), None)
            problems.append(Problem(source, dotted(path), message, near, line))

    stem = PurePath(source).name
    if stem.endswith((".yml", ".yaml")) and isinstance(data.get("name"), str):
        stem = stem.rpartition(".")[0]
        if stem != data["name"]:
            tell(("name",), f"expected the file's own name '{stem}', seen '{data['name']}'")
    arguments = _at(data, "serve", "arguments")
    if isinstance(arguments, Mapping):
        _arguments(arguments, _at(data, "serve", "unchecked"), tell)
    _models(data, tell)
    _patches(data, tell)
    _expectations(data, tell)
    return problems


def argument_problems(arguments: Mapping[str, Any], unchecked: Sequence[str], source: str) -> list[Problem]:
    """Problems of serve arguments as they will be rendered: the recipe's with an inventory's on top.

    A null takes an option out and is no problem here. ``unchecked`` names options that pass as they are.
    """
    problems: list[Problem] = []

    def tell(path: Path, message: str, near: str | None = None) -> None:
        problems.append(Problem(source, dotted(path[2:]), message, near))

    _arguments({name: value for name, value in arguments.items() if value is not None}, list(unchecked), tell)
    return problems


def _at(data: Any, *path: str) -> Any:
    for name in path:
        data = data.get(name) if isinstance(data, Mapping) else None
    return data


def _arguments(arguments: Mapping[str, Any], unchecked: Any, tell: Told) -> None:
    passed = unchecked if isinstance(unchecked, list) else []
    for name, value in arguments.items():
        here: Path = ("serve", "arguments", name)
        if name in known.ELSEWHERE:
            tell(here, f"does not belong in a recipe's arguments: {known.ELSEWHERE[name]}")
        elif value is None:
            tell(here, "expected a value, seen none; write one, true for a switch, or remove the key")
        elif name in known.KINDS:
            complaint = _argument(known.KINDS[name], value)
            if complaint:
                tell(here, complaint)
        elif name.startswith("no-") and name[3:] in known.SWITCHES:
            tell(here, f"expected the switch by its own name; write {name[3:]}: false", name[3:])
        elif name not in passed:
            near = nearest(name, known.KINDS)
            tell(
                here,
                "vllm serve has no such option"
                + (f"; nearest valid key: {near}" if near else "")
                + "; if another release has it, name it in serve.unchecked",
                near,
            )
    config = arguments.get("speculative-config")
    if isinstance(config, Mapping):
        _speculation(config, tell)


def _argument(kind: str, value: Any) -> str | None:
    if kind == "switch":
        return None if isinstance(value, bool) else f"expected true or false, seen {seen(value)}"
    if kind == "value":
        if isinstance(value, bool):
            return f"expected a value, seen {seen(value)}; text such as on or yes goes in quotes"
        return None
    return of_kind(value, kind)


def _speculation(config: Mapping[str, Any], tell: Told) -> None:
    here: Path = ("serve", "arguments", "speculative-config")
    for name in ("method", "model"):
        if name in config and (wrong := of_kind(config[name], "string")):
            tell((*here, name), wrong)
    meant = set()
    for name in config:
        if name not in known.SPECULATIVE:
            near = nearest(name, known.SPECULATIVE - config.keys())
            meant.add(near)
            told = f"nearest valid key: {near}" if near else f"keys: {', '.join(sorted(known.SPECULATIVE))}"
            tell((*here, name), f"vLLM's speculative config has no such key; {told}", near)
    tokens = config.get("num_speculative_tokens")
    if "num_speculative_tokens" not in config:
        if "num_speculative_tokens" in meant:
            return
        tell((*here, "num_speculative_tokens"), "required and missing: tokens the draft proposes a step")
    elif wrong := of_kind(tokens, "integer") or between(1, 64)(tokens or 0):
        tell((*here, "num_speculative_tokens"), wrong)


def _models(data: Mapping[str, Any], tell: Told) -> None:
    models = _at(data, "models")
    if not isinstance(models, Mapping):
        return
    mounts = {role: _at(model, "mount") for role, model in models.items()}
    if not all(isinstance(mount, str) for mount in mounts.values()):
        return
    if "draft" in mounts and mounts.get("body") == mounts["draft"]:
        tell(("models", "draft", "mount"), f"expected a mount of its own, seen the body's {mounts['draft']}")
    path: Path = ("serve", "arguments", "speculative-config", "model")
    model = _at(data, *map(str, path))
    if isinstance(model, str) and mounts and model not in mounts.values():
        near = mounts.get("draft") or nearest(model, mounts.values())
        tell(
            path,
            f"expected the mount of a model of this recipe ({', '.join(mounts.values())}), seen '{model}':"
            " vLLM would not find it, or would ask the Hub for it",
            near,
        )
    if "draft" in mounts and isinstance(_at(data, "serve", "arguments"), Mapping) and model is None:
        tell(
            path,
            f"required and missing: there is a draft, and nothing uses it; write model: {mounts['draft']}",
        )


def _patches(data: Mapping[str, Any], tell: Told) -> None:
    patches = _at(data, "patches")
    for key in ("name", "target"):
        first: dict[str, int] = {}
        for index, patch in enumerate(patches if isinstance(patches, list) else ()):
            value = _at(patch, key)
            if not isinstance(value, str):
                continue
            if value in first:
                tell(("patches", index, key), f"'{value}' is the {key} of patches[{first[value]}] already")
            first.setdefault(value, index)
    for index, patch in enumerate(patches if isinstance(patches, list) else ()):
        target, path = _at(patch, "target"), _at(patch, "path")
        if isinstance(target, str) and isinstance(path, str):
            wanted, given = posixpath.basename(path), posixpath.basename(target)
            if wanted != given:
                tell(("patches", index, "target"), f"expected a file named {wanted} as in path, seen {given}")


def _expectations(data: Mapping[str, Any], tell: Told) -> None:
    arguments = _at(data, "serve", "arguments")
    if not isinstance(arguments, Mapping):
        return
    if "speculative-config" in arguments:
        if _at(data, "expect", "minimum_drafts") == 0:
            tell(("expect", "minimum_drafts"), "expected at least 1 with a speculative-config, seen 0")
        return
    for key in ("acceptance_floor", "minimum_drafts"):
        value = _at(data, "expect", key)
        if isinstance(value, (int, float)) and value > 0:
            tell(("expect", key), f"expected 0 or nothing without a speculative-config, seen {value}")
