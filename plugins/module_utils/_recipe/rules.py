# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rules between the keys of a recipe, and what a recipe knows better than its user: how deep speculation paid, and which vLLM does not
do. recipe.py has the shape of each key."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from .._common.spelling import nearest
from .._images.reference import complaint, parse_reference
from .._vllm import caches, versions
from .._vllm import options as known
from .document import Path, Problem, dotted
from .schema import between, of_kind, seen

HIDDEN = r"(TOKEN|API_KEY|PASSWORD|SECRET)$"
"""How the names of variables and options that hold a secret end."""
MOST_NODES = 16
"""Sparks of a unit."""
Told = Callable[..., None]
"""Tells a problem: path of the value, message, nearest valid name."""


def depth(arguments: Mapping[str, Any]) -> int:
    """Tokens that a draft proposes in a step by these serve arguments; 0 without speculation."""
    config = arguments.get("speculative-config")
    if not isinstance(config, Mapping):
        return 0
    # A schedule by the size of the batch: each entry ends in its depth.
    schedule = config.get("num_speculative_tokens_per_batch_size")
    entries = schedule if isinstance(schedule, list) else []
    depths = [
        config.get("num_speculative_tokens"),
        *(entry[-1] for entry in entries if isinstance(entry, list) and entry),
    ]
    return max((depth for depth in depths if isinstance(depth, int)), default=0)


def deeper(arguments: Mapping[str, Any], published: Mapping[str, Any], do: str) -> str | None:
    """Why arguments should not speculate as deep as they do, with the figures; None if nothing speaks against it.

    :param published: that of the recipe, may be empty
    :param do: what the user can do besides going less deep
    """
    deepest, tokens = published.get("deepest"), depth(arguments)
    if deepest is None or tokens <= deepest:
        return None
    return (
        f"expected num_speculative_tokens of at most {deepest}, the deepest that paid on this body, seen {tokens}:"
        f" {published.get('because', 'nobody says why')}. Published: {figures(published)} ({published['source']})."
        f" Do: {f'take num_speculative_tokens: {deepest}' if deepest else 'serve without speculation'}, or {do}"
    )


def figures(published: Mapping[str, Any]) -> str:
    """``1 token 52.6 tok/s at 69 %; …``"""
    told = []
    for figure in published.get("figures") or ():
        tokens = figure["num_speculative_tokens"]
        text = f"{tokens} token{'s' if tokens != 1 else ''}" if tokens else "no speculation"
        if "tokens_per_second" in figure:
            text += f" {figure['tokens_per_second']:g} tok/s"
        if figure.get("rates"):
            text += f" at {'/'.join(f'{100 * rate:.0f}' for rate in figure['rates'])} %"
        told.append(text)
    return "; ".join(told) or "no figures"


def refused(rules: Sequence[Mapping[str, Any]], version: str | None) -> str | None:
    """The reason of the first rule that refuses a version of vLLM; None for one that is not refused, or not known."""
    rule = next((rule for rule in rules if version and versions.within(version, rule["vllm"])), None)
    return f"{rule['because']} (refused: {rule['vllm']})" if rule else None


def refused_image(rules: Sequence[Mapping[str, Any]], reference: str) -> str | None:
    """Why an image is refused, as far as its tag tells. What only the image knows, C(serve_validate) asks it."""
    try:
        version = versions.tagged(parse_reference(reference).tag)
    except ValueError:
        return None
    reason = refused(rules, version)
    return reason and refusal(reference, version, reason)


def refusal(image: str, version: str | None, reason: str) -> str:
    """The message about an image whose vLLM is refused."""
    return (
        f"expected an image with a vLLM that this recipe can be served with, seen vLLM {version} in {image}: {reason}."
        " Do: take another one, in image.reference of a recipe of yours that extends this one"
    )


def unknown(data: Any) -> list[tuple[Path, str]]:
    """vLLM's names in a recipe that are unknown here, each with its message."""
    arguments, unchecked = _at(data, "serve", "arguments"), _at(data, "serve", "unchecked") or ()
    here: Path = ("serve", "arguments")
    told: list[tuple[Path, str]] = []
    if isinstance(arguments, Mapping):
        options = known.unknown_options(arguments)
        told += [((*here, name), text) for name, text in options.items() if name not in unchecked]
    if isinstance(config := _at(arguments, "speculative-config"), Mapping):
        keys = known.unknown_speculation(config)
        told += [((*here, "speculative-config", name), text) for name, text in keys.items()]
    return told


def argument_problems(arguments: Mapping[str, Any], source: str) -> list[Problem]:
    """Problems of serve arguments as they will be rendered: the recipe's with an inventory's on top.

    A null takes an option out and is no problem here.
    """
    problems: list[Problem] = []

    def tell(path: Path, message: str, near: str | None = None) -> None:
        problems.append(Problem(source, dotted(path[2:]), message, near))

    _arguments({name: value for name, value in arguments.items() if value is not None}, tell)
    return problems


def across(data: Mapping[str, Any], wrong: Collection[str], tell: Told) -> None:
    """Tell the problems between a recipe's keys.

    :param wrong: keys that are wrong by themselves already. Rules that need them are skipped
    """

    def sound(name: str) -> bool:
        return name in data and not any(re.match(rf"{name}\b", key) for key in wrong)

    arguments = _at(data, "serve", "arguments")
    if isinstance(arguments, Mapping):
        _arguments(arguments, tell)
    if sound("topology"):
        for path, message in unit_problems(data["topology"], arguments, _at(data, "image", "entrypoint")):
            tell(path, message)
    _image_source(data, tell)
    _models(data, tell)
    if sound("image") and sound("models") and sound("serve"):
        _places(data, tell)
    _patches(data, tell)
    _expectations(data, tell)
    if sound("image"):
        _image_release(data["image"], tell)
    if sound("published"):
        _published(data["published"], arguments, tell)


def _at(data: Any, *path: str) -> Any:
    for name in path:
        data = data.get(name) if isinstance(data, Mapping) else None
    return data


def _arguments(arguments: Mapping[str, Any], tell: Told) -> None:
    """Tell what cannot be rendered, or belongs elsewhere. vLLM itself refuses whatever else it does not take."""
    for name, value in arguments.items():
        here: Path = ("serve", "arguments", name)
        if reason := known.elsewhere(name, value):
            tell(here, f"does not belong in a recipe's arguments: {reason}")
        elif value is None:
            tell(here, "expected a value, seen none; write one, true for a switch, or remove the key")
        elif name.startswith("no-") and name[3:] in known.SWITCHES:
            tell(here, f"expected the switch by its own name; write {name[3:]}: false", name[3:])
        elif name in known.NAMES:
            complaint = _argument(name, value)
            if complaint:
                tell(here, complaint)
        elif wrong := _spelling(name):
            near = nearest(name, known.NAMES | known.ELSEWHERE.keys())
            tell(here, wrong + (f"; nearest valid key: {near}" if near else ""), near)
    config = arguments.get("speculative-config")
    if isinstance(config, Mapping):
        _speculation(config, tell)


def whole_topology(topology: Mapping[str, Any]) -> dict[str, int]:
    """A topology with its defaults, ``{nodes, tensor_parallel, pipeline_parallel}``; an empty one is that of one Spark."""
    nodes, stages = topology.get("nodes", 1), topology.get("pipeline_parallel", 1)
    shared = topology.get("tensor_parallel", nodes // stages)
    return {"nodes": nodes, "tensor_parallel": shared, "pipeline_parallel": stages}


def unit_problems(
    topology: Mapping[str, Any], arguments: Any, entrypoint: Sequence[str] | None
) -> list[tuple[Path, str]]:
    """Why one model cannot be served over so many Sparks, each with the path of the value in a recipe.

    :param topology: of the declared shape, with or without its defaults
    :param arguments: the serve arguments, as they will be rendered
    :param entrypoint: what starts vLLM in the image; None or empty for the image's own
    """
    nodes, shared, stages = whole_topology(topology).values()
    told: list[tuple[Path, str]] = []
    if shared * stages != nodes:
        told.append(
            (
                ("topology",),
                f"expected tensor_parallel times pipeline_parallel to be nodes, since a Spark has one GPU, seen {shared} times "
                f"{stages} for {nodes}",
            )
        )
    if nodes == 1:
        return told
    options: Path = ("serve", "arguments")
    backend = _at(arguments, "distributed-executor-backend")
    if backend not in (None, "mp"):
        told.append(
            (
                (*options, "distributed-executor-backend"),
                f"expected mp, by which the Sparks of a unit find each other, or nothing, seen {seen(backend)}",
            )
        )
    if stages > 1 and _at(arguments, "speculative-config") is not None:
        told.append(
            (
                (*options, "speculative-config"),
                f"expected no speculation with pipeline_parallel {stages}: vLLM makes the draft on the last stage alone, and its V1 "
                "runner does not start (vLLM issues 30436 and 49355); serve without it, or with tensor_parallel alone",
            )
        )
    if not entrypoint:
        told.append(
            (
                ("image", "entrypoint"),
                "required and missing with a topology of several nodes: what runs the unit starts vLLM by it; write [vllm, serve]",
            )
        )
    return told


def _spelling(name: str) -> str | None:
    """Why an option cannot have this name, whatever vLLM makes of it: this collection would not see what it stands for."""
    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name):
        return "expected the long name of an option, in small letters with '-' between them; what is nested goes into a mapping"
    # vLLM takes the beginning of a name for the whole name.
    if whole := sorted(full for full in known.OWN if full.startswith(name)):
        return f"expected an option by its whole name, seen the beginning of {' and '.join(whole)}"
    if re.search(HIDDEN, name.replace("-", "_").upper()):
        return "is a secret, and what a container is started with is public"
    return None


def _argument(name: str, value: Any) -> str | None:
    if name in known.SWITCHES:
        return None if isinstance(value, bool) else f"expected true or false, seen {seen(value)}"
    if name in known.READ_HERE:
        return of_kind(value, known.READ_HERE[name])
    if isinstance(value, bool):
        return f"expected a value, seen {seen(value)}; text such as on or yes goes in quotes"
    return None


def _speculation(config: Mapping[str, Any], tell: Told) -> None:
    here: Path = ("serve", "arguments", "speculative-config")
    for name in ("method", "model"):
        if name in config and (wrong := of_kind(config[name], "string")):
            tell((*here, name), wrong)
    depth = "num_speculative_tokens"
    if depth in config:
        if wrong := of_kind(config[depth], "integer") or between(1, 64)(config[depth] or 0):
            tell((*here, depth), wrong)
        return
    strange = [name for name in config if nearest(name, known.SPECULATIVE - config.keys()) == depth]
    for name in strange:
        tell(
            (*here, name),
            f"expected the tokens that the draft proposes a step; nearest valid key: {depth}",
            depth,
        )
    if not strange:
        tell((*here, depth), "required and missing: tokens the draft proposes a step")


def _image_release(image: Mapping[str, Any], tell: Told) -> None:
    wrong = refused_image(image.get("refused", ()), image["reference"])
    if wrong:
        tell(("image", "reference"), wrong)


def _image_source(data: Mapping[str, Any], tell: Told) -> None:
    """The tag of an image that is built must name the commit, so that two commits never share a name."""
    reference, commit = _at(data, "image", "reference"), _at(data, "image", "build", "commit")
    if not isinstance(reference, str) or not isinstance(commit, str) or complaint(reference):
        return
    parts = parse_reference(reference)
    if parts.digest or not (parts.tag or "").endswith(f"-{commit[:12]}"):
        tell(
            ("image", "reference"),
            f"expected a tag that ends in the first 12 digits of image.build.commit, seen '{reference}'; "
            f"write {parts.name}:main-{commit[:12]}",
        )


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
    method = _at(data, *map(str, path[:-1]), "method")
    if "draft" not in mounts and isinstance(_at(data, *map(str, path[:-1])), Mapping) and model is None:
        if method is None:
            tell((*path[:-1], "method"), "required and missing: there is no draft that would tell it")
        elif isinstance(method, str) and not known.drafts_by_itself(method):
            tell(
                path,
                f"required and missing: method {method} takes a draft of its own; add models.draft, and write its mount",
            )


def _places(data: Mapping[str, Any], tell: Told) -> None:
    """A mount hides what is in its place and below, so no two may overlap."""
    given = _at(data, "image", "caches") or {}
    usual = {name: target for name, target in caches.targets({}).items() if name not in given}
    placed: list[tuple[Path, str]] = [(("image", "caches", name), target) for name, target in usual.items()]
    for role, model in data["models"].items():
        placed.append((("models", role, "mount"), model["mount"]))
    placed += [(("image", "caches", name), target) for name, target in given.items() if target]
    for index, mount in enumerate(_at(data, "serve", "mounts") or ()):
        placed.append((("serve", "mounts", index, "mount"), mount["mount"]))
    for index, (path, target) in enumerate(placed):
        for other, taken in placed[:index]:
            if path[0] == other[0] == "models":
                continue
            if _within(target, taken) or _within(taken, target):
                tell(
                    path,
                    f"expected a place of its own, seen {target} beside {taken}, which is {dotted(other)}",
                )
                break


def _within(path: str, folder: str) -> bool:
    return path == folder or path.startswith(f"{folder}/")


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


def _published(published: Mapping[str, Any], arguments: Any, tell: Told) -> None:
    seen_depths: list[int] = []
    for index, figure in enumerate(published.get("figures", ())):
        here: Path = ("published", "figures", index)
        depth, rates = figure["num_speculative_tokens"], figure.get("rates")
        if depth in seen_depths:
            tell((*here, "num_speculative_tokens"), f"{depth} has its figures already")
        seen_depths.append(depth)
        if rates and len(rates) != depth:
            tell((*here, "rates"), f"expected {depth}, one a position, or none, seen {len(rates)}")
    for one, other in (("deepest", "because"), ("because", "deepest")):
        if one in published and other not in published:
            tell(("published", other), f"required and missing beside {one}")
            return
    wrong = isinstance(arguments, Mapping) and deeper(
        arguments, published, "give this recipe a published of its own that shows that deeper pays"
    )
    if wrong:
        tell(("serve", "arguments", "speculative-config", "num_speculative_tokens"), wrong)
