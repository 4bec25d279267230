# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A recipe: its shape, its checks and its defaults. ``SCHEMA`` is the one place that declares its keys.

A recipe may extend another and say only what differs. Checks and callers always get the whole one.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Mapping
from pathlib import PurePath
from typing import Any

from .._common.spelling import nearest
from .._images import reference
from .._vllm import caches, versions
from .._vllm import options as known
from .._vllm.ask_image import starts_vllm
from . import rules
from .document import Document, Path, Problem, dotted, load, overlay
from .schema import Key, between, check, fill, matches, of_kind, seen

NAME = r"[a-z0-9]+([._-][a-z0-9]+)*"
REPOSITORY = r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*"
COMMIT = r"[0-9a-f]{40}"
REVISION = r"[A-Za-z0-9][A-Za-z0-9._/-]*"

_name = matches(NAME, "lower-case letters and digits, with '.', '_' or '-' between them")
_repository = matches(REPOSITORY, "a repository as owner/name")


def _references(items: list[str]) -> str | None:
    return next((complaint for complaint in map(reference.complaint, items) if complaint), None)


_TOP = ("/home", "/opt", "/root", "/tmp", "/var")  # noqa: S108
_SYSTEM = (
    "/bin/",
    "/boot/",
    "/dev/",
    "/etc/",
    "/lib/",
    "/lib32/",
    "/lib64/",
    "/proc/",
    "/run/",
    "/sbin/",
    "/sys/",
    "/usr/",
    "/var/run/",  # a link to /run in most images
)


def _absolute(text: str) -> str | None:
    if text.startswith("/") and text != "/" and posixpath.normpath(text) == text and ":" not in text:
        return None
    return (
        f"expected an absolute path without '..', without ':' and without '/' at its end, seen {seen(text)}"
    )


def _mount(text: str, what: str = "the model, such as /models/name") -> str | None:
    """Refuses a mount over files that the server's program needs: the server would not start."""
    if text in _TOP or f"{text}/".startswith(_SYSTEM):
        return f"expected a directory for {what}, seen the system's {text}"
    return _absolute(text)


def _relative(text: str) -> str | None:
    if text and not text.startswith("/") and posixpath.normpath(text) == text and not text.startswith(".."):
        return None
    return f"expected a path inside the repository, without '..' and leading '/', seen {seen(text)}"


def _environment(values: Mapping[str, Any]) -> str | None:
    for name, value in values.items():
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            return f"expected names of letters, digits and '_', seen '{name}'"
        if re.search(rules.HIDDEN, name.upper()):
            return f"{name} is a secret and a recipe is public; set it in the inventory, from a vault"
        if not isinstance(value, str):
            return f"expected text as the value of {name}, seen {seen(value)}; put it in quotes"
    return None


def _target(text: str) -> str | None:
    return _mount(text, "what is mounted, such as /config/name")


def _source(text: str) -> str | None:
    """Checks the source of a mount. The inventory says whether it may be mounted."""
    if text.startswith("/"):
        return _absolute(text)
    if text != "." and ":" not in text and _relative(text) is None:
        return None
    return f"expected a path in the store, or an absolute one, without '..' and ':', seen {seen(text)}"


def caches_complaint(given: Mapping[str, Any]) -> str | None:
    """What is wrong with the caches of an image, by name; None for nothing."""
    for name, target in given.items():
        if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", str(name)):
            return f"expected names of small letters, digits, '-' and '_', seen '{name}'"
        if target is False:
            if name not in caches.TARGETS:
                return f"expected a directory of the container for {name}, seen false, which is for {', '.join(caches.TARGETS)}"
        elif not isinstance(target, str):
            return f"expected a directory of the container for {name}, or false to keep none, seen {seen(target)}"
        elif wrong := _mount(target, f"{name}, such as /root/.cache/{name}"):
            return wrong
    return None


def devices_complaint(devices: list[str]) -> str | None:
    """What is wrong with the devices of the host that a container gets; None for nothing."""
    for device in devices:
        if not device.startswith("/dev/") or _absolute(device):
            return f"expected paths below /dev, such as /dev/infiniband, seen {seen(device)}"
    return "expected each device once" if len({*devices}) < len(devices) else None


def entrypoint_complaint(words: list[str]) -> str | None:
    """What is wrong with the words that start a container, before the serve arguments; None for nothing."""
    if starts_vllm(words) and all(words):
        return None
    return f"expected words that end in vllm, serve, which the serve arguments are for, seen: {' '.join(words) or 'none'}"


FACTS = ("address", "interface", "name")
"""Facts of the host that a variable of the container may have as its value. Never a template: a recipe is data."""


def host_environment_complaint(values: Mapping[str, Any]) -> str | None:
    """What is wrong with variables that are facts of the host; None for nothing."""
    if wrong := _environment({name: str(fact) for name, fact in values.items()}):
        return wrong
    for name, fact in values.items():
        if fact not in FACTS:
            return f"expected one of {', '.join(FACTS)} for {name}, seen {seen(fact)}"
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


def _said(text: str) -> str | None:
    return None if text.strip() else "expected a few words, seen none"


def _rates(rates: list[float]) -> str | None:
    if any(not 0 <= rate <= 1 for rate in rates):
        return "expected shares from 0 to 1"
    if sorted(rates, reverse=True) != rates:
        return "expected shares that do not rise: a token is only accepted after the one before it"
    return None


BUILD = (
    Key("repository", "string", "repository of the source", required=True, check=_repository),
    Key(
        "commit",
        "string",
        "commit of the source; the tag ends in its first 12 digits",
        required=True,
        check=matches(COMMIT, "a whole commit, 40 lower-case hex digits"),
    ),
    Key("dockerfile", "string", "path in that repository", default="Dockerfile", check=_relative),
    Key("target", "string", "stage of the Dockerfile; default, the last one"),
    Key("arguments", "map", "build arguments, as text", default={}, check=_environment),
)

_MODEL = (
    Key("repository", "string", "repository on the Hugging Face Hub", required=True, check=_repository),
    Key(
        "revision",
        "string",
        "branch, tag or commit; the lock holds the commit that it names",
        required=True,
        check=matches(REVISION, "a branch, a tag or a commit"),
    ),
    Key("mount", "string", "where the container sees the model, read-only", required=True, check=_mount),
)

_MOUNTS = Key(
    "mounts",
    "list",
    "further files and directories of the host, read-only",
    default=[],
    keys=(
        Key("path", "string", "where it lies: in the store, or absolute", required=True, check=_source),
        Key("mount", "string", "where the container sees it", required=True, check=_target),
    ),
)
_ULIMITS = Key(
    "ulimits",
    "mapping",
    "limits of its processes, in place of the engine's",
    default={},
    keys=(
        Key("memlock", "integer", "bytes of memory it may lock; -1 for no limit", check=between(-1, 1 << 62)),
        Key("nofile", "integer", "files it may have open", check=between(1024, 1 << 30)),
        Key("stack", "integer", "bytes of a stack; -1 for no limit", check=between(-1, 1 << 62)),
    ),
)

_TOPOLOGY = Key(
    "topology",
    "mapping",
    "over how many Sparks one model is served; left out, on one",
    keys=(
        Key(
            "nodes",
            "integer",
            "Sparks of a unit, which serve as one",
            required=True,
            check=between(1, rules.MOST_NODES),
        ),
        Key(
            "tensor_parallel",
            "integer",
            "Sparks that share each layer; default, all of a stage",
            check=between(1, rules.MOST_NODES),
        ),
        Key(
            "pipeline_parallel",
            "integer",
            "stages, one after another, of some layers each",
            default=1,
            check=between(1, rules.MOST_NODES),
        ),
    ),
)
_REFUSED = Key(
    "refused",
    "list",
    "releases of vLLM that cannot serve this recipe, in any image",
    default=[],
    keys=(
        Key(
            "vllm",
            "string",
            "range of releases, such as `>=0.25,<0.27`",
            required=True,
            check=versions.complaint,
        ),
        Key("because", "string", "what goes wrong with them", required=True, check=_said),
    ),
)
_PUBLISHED = Key(
    "published",
    "mapping",
    "what others measured; the gate does not use it",
    keys=(
        Key("source", "string", "who measured, where, on what, how", required=True, check=_said),
        Key(
            "deepest",
            "integer",
            "most speculative tokens that paid on this body; deeper is refused",
            check=between(0, 64),
        ),
        Key("because", "string", "why deeper does not pay", check=_said),
        Key(
            "figures",
            "list",
            "one for each depth that was measured",
            default=[],
            keys=(
                Key(
                    "num_speculative_tokens",
                    "integer",
                    "depth; 0 without speculation",
                    required=True,
                    check=between(0, 64),
                ),
                Key(
                    "tokens_per_second",
                    "number",
                    "decode speed of one stream, on chat",
                    check=between(0, 1_000_000),
                ),
                Key("rates", "numbers", "share of drafts accepted, by position", default=[], check=_rates),
            ),
        ),
    ),
)

SCHEMA: tuple[Key, ...] = (
    Key(
        "name",
        "string",
        "the name of the file without .yml",
        required=True,
        check=_name,
    ),
    Key("extends", "string", "the recipe that this one differs from, by name", check=_name),
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
                check=reference.complaint,
            ),
            Key(
                "entrypoint",
                "strings",
                "what starts vLLM in it, such as `[vllm, serve]`; the image's own when left out",
                check=entrypoint_complaint,
            ),
            Key(
                "caches",
                "map",
                "further directories where it keeps what it compiles, by name",
                default={},
                check=caches_complaint,
            ),
            _REFUSED,
            Key("build", "mapping", "what to build it from, if nobody publishes it", keys=BUILD),
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
    _TOPOLOGY,
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
            Key("repository", "string", "repository that has the file", required=True, check=_repository),
            Key(
                "commit",
                "string",
                "commit that has the file",
                required=True,
                check=matches(COMMIT, "a whole commit, 40 lower-case hex digits"),
            ),
            Key("path", "string", "path in that repository", required=True, check=_relative),
            Key("target", "string", "file that it replaces; default, found in the image", check=_absolute),
            Key(
                "tried_with",
                "strings",
                "images, by tag or digest, that it was tried with; empty means any",
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
            Key(
                "host_environment",
                "map",
                "variables that are a fact of the host: its `address` or `interface` in the fleet, or its `name`",
                default={},
                check=host_environment_complaint,
            ),
            Key(
                "devices",
                "strings",
                "devices of the host that the container gets, such as `/dev/infiniband`",
                default=[],
                check=devices_complaint,
            ),
            _MOUNTS,
            _ULIMITS,
            Key("arguments", "map", "options of `vllm serve`, long names without dashes", required=True),
            Key(
                "unchecked",
                "strings",
                "options that are unknown here and intended; no warning names them",
                default=[],
            ),
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
                "methods besides the speculative-config, each with its further keys",
                default={},
                check=_methods,
            ),
        ),
    ),
    Key(
        "expect",
        "mapping",
        "what the gate requires",
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
                "drafts that the gate needs to judge the share; 0 without speculation",
                default=200,
                check=between(0, 1_000_000),
            ),
        ),
    ),
    _PUBLISHED,
)

Find = Callable[[str], tuple[str, str]]
"""Gives text and source of the recipe with a name. Raises LookupError, with what was expected and seen."""


def _nowhere(name: str) -> tuple[str, str]:
    raise LookupError(f"expected a recipe that is complete in itself, seen one that extends '{name}'")


def parse(
    text: str, source: str, find: Find = _nowhere, warn: Callable[[Problem], None] | None = None
) -> tuple[dict[str, Any], list[Problem]]:
    """Recipe and problems of a file's text. The recipe has its defaults, and is empty if there are problems.

    :param find: finds the recipes that this one extends
    :param warn: gets each option that is unknown here. That is no problem: the image's vLLM may know it
    """
    document = _whole(text, source, find, ())
    problems = list(document.problems)
    if document.data is not None:
        told = {problem.key for problem in problems}
        problems += [p for p in validate(document.data, source, document) if p.key not in told]
        for path, message in rules.unknown(document.data):
            if warn and dotted(path) not in {problem.key for problem in problems}:
                warn(document.problem(path, message + known.IMAGE_DECIDES))
    elif not problems:
        problems = [Problem(source, "", "the file is empty; docs/recipes.md says what a recipe holds")]
    problems.sort(key=lambda problem: (problem.source != source, problem.source, problem.line or 0))
    return ({} if problems else complete(document.data)), problems


def _whole(text: str, source: str, find: Find, above: tuple[str, ...]) -> Document:
    """A file on top of all that it extends. Without data when a part is missing or unreadable; then its problems say why.

    :param above: sources of the recipes that extend this one
    """
    document = load(text, source)
    if not isinstance(document.data, dict) or "extends" not in document.data:
        return document
    name = document.data.pop("extends")
    wrong = of_kind(name, "string") or _name(name)
    if not wrong:
        try:
            text, below = find(name)
        except LookupError as error:
            wrong = str(error.args[0])
        else:
            chain = (*above, source)
            if below in chain:
                wrong = (
                    f"expected a recipe that does not extend this one, seen {' -> '.join((*chain, below))}"
                )
    if wrong:
        return Document(None, source, problems=[*document.problems, document.problem(("extends",), wrong)])
    base = _whole(text, below, find, chain)
    if not isinstance(base.data, dict):
        empty = [] if base.problems else [Problem(below, "", "expected a recipe to extend, seen none")]
        return Document(None, source, problems=[*document.problems, *base.problems, *empty])
    base.problems += _own_name(base.data, below, base)
    # A name belongs to its own file: locks and records use it.
    base.data.pop("name", None)
    return overlay(base, document)


def _own_name(data: Mapping[str, Any], source: str, document: Document) -> list[Problem]:
    stem = PurePath(source).name
    if stem.endswith((".yml", ".yaml")) and isinstance(data.get("name"), str):
        stem = stem.rpartition(".")[0]
        if stem != data["name"]:
            message = f"expected the file's own name '{stem}', seen '{data['name']}'"
            return [document.problem(("name",), message)]
    return []


def complete(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """A valid recipe with its defaults. Without speculation nothing is expected of drafts."""
    filled = fill(recipe, SCHEMA)
    if "speculative-config" not in filled["serve"]["arguments"]:
        filled["expect"] = {"acceptance_floor": 0.0, "minimum_drafts": 0}
    if "topology" in filled:
        filled["topology"] = rules.whole_topology(filled["topology"])
    return filled


def validate(data: Any, source: str, document: Document | None = None) -> list[Problem]:
    """Every problem of a recipe. ``source`` names the file, ``document`` knows where each value stands."""
    document = document or Document(data, source)
    problems = check(document, SCHEMA)
    if not isinstance(data, Mapping):
        return problems
    told = {problem.key for problem in problems}

    def tell(path: Path, message: str, near: str | None = None) -> None:
        if dotted(path) not in told:
            problems.append(document.problem(path, message, near))

    problems += [problem for problem in _own_name(data, source, document) if problem.key not in told]
    rules.across(data, told, tell)
    return problems


def rule_problems(published: Any, refused: Any, source: str) -> list[Problem]:
    """Problems of what an inventory sets in place of a recipe's ``published`` and ``image.refused``; empty is none."""
    data = {"refused": refused} | ({"published": published} if published else {})
    return check(Document(data, source), (_REFUSED, _PUBLISHED))


def topology_problems(topology: Any, source: str) -> list[Problem]:
    """Problems of what an inventory sets in place of a recipe's ``topology``."""
    return check(Document({"topology": topology}, source), (_TOPOLOGY,))


def serve_problems(mounts: Any, ulimits: Any, source: str) -> list[Problem]:
    """Problems of what an inventory sets in place of a recipe's ``serve.mounts`` and ``serve.ulimits``."""
    return check(Document({"mounts": mounts, "ulimits": ulimits}, source), (_MOUNTS, _ULIMITS))
