# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A container that would be replaced, as lines for a person: one for each thing that differs, and nothing else.

Both sides are in the form of the diff of community.docker.docker_container: option names to values, and only options that
differ. Pure.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from ...module_utils._common import inspected, json_text
from ...module_utils._common.secrets import is_secret, is_secret_option, mask
from ...module_utils._vllm.argv import options
from .record import INSTEAD

PATCHES = "sparkfleet.vllm.patches"
# For options, not variables: max-num-batched-tokens and tokenizer are no secrets.


class Thing(NamedTuple):
    """One thing that a container has: the text to compare, and the line to show."""

    value: str
    line: str


def lines(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Things that are there and not wanted, and things that are wanted and not there.

    :returns: the lines of each side, in the order of the options. A changed secret is named, and not shown
    """
    before, after = _with_what_was_asked_for(before, after)
    left: list[str] = []
    right: list[str] = []
    for option in dict.fromkeys([*before, *after]):
        if _said_by_another(option, before, after):
            continue
        was, wanted = _things(option, before.get(option)), _things(option, after.get(option))
        for name in dict.fromkeys([*was, *wanted]):
            old, new = was.get(name), wanted.get(name)
            if old == new:
                continue
            if old is not None:
                left.append(old.line)
            if new is not None:
                right.append(new.line + (" (changed)" if old is not None and old.line == new.line else ""))
    was_mounted, to_be_mounted = _stamps(before), _stamps(after)
    # Other mounts show by themselves. The same mounts may hold other files.
    if was_mounted != to_be_mounted and "volume_binds" not in before:
        left += ["patch file as it was when the server started"] if was_mounted else []
        right.append("patch file mended in the store since")
    return left, right


def whole(container: Mapping[str, Any]) -> dict[str, Any]:
    """The new side of a diff where no container exists: what it runs, and with what.

    :param container: in the option names of docker_container, as plugin_utils/serving/record.py makes it
    """
    environment = container.get("env") or {}
    return {
        "image_name": container["image"],
        "command": container["command"],
        "env": [f"{name}={value}" for name, value in environment.items()],
        "volume_binds": container.get("volumes") or [],
        **{name: container[name] for name in ("entrypoint", "devices", "ulimits") if container.get(name)},
    }


def _with_what_was_asked_for(
    before: Mapping[str, Any], after: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Both sides with the options that their label names and docker_container did not compare, and without that label.

    What is asked for no longer is such an option. A label that says the same in other words stays: nothing else tells of it.
    """
    was, wanted = _instead(before), _instead(after)
    differs = [option for option in dict.fromkeys([*was, *wanted]) if was.get(option) != wanted.get(option)]
    more = [option for option in differs if option not in before and option not in after]

    def side(given: Mapping[str, Any], asked: Mapping[str, Any]) -> dict[str, Any]:
        labels = {name: text for name, text in (given.get("labels") or {}).items() if name != INSTEAD}
        return {
            **given,
            **({"labels": labels} if differs else {}),
            **{option: asked.get(option) for option in more},
        }

    return side(before, was), side(after, wanted)


def _instead(side: Mapping[str, Any]) -> dict[str, Any]:
    """The container's replacements for what its image or its engine brings, by its label."""
    given = _parsed((side.get("labels") or {}).get(INSTEAD, ""))
    return given if isinstance(given, dict) else {}


def _said_by_another(option: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    """Whether another option shows this change. An image has a name, an id and labels: its name is enough."""
    named = before.get("image_name") != after.get("image_name")
    return (option == "image" and named) or (option == "labels" and "image" in before)


def _stamps(side: Mapping[str, Any]) -> str:
    """The files mounted as patches, as the label of the container holds them."""
    return str((side.get("labels") or {}).get(PATCHES, ""))


def _things(option: str, value: Any) -> dict[str, Thing]:
    """The things in an option of docker_container, by name."""
    if value is None:
        return {}
    if option == "command":
        return {name: _argument(name, text) for name, text in _arguments(value)}
    if option == "env":
        return {name: _variable(name, text) for name, _sep, text in (entry.partition("=") for entry in value)}
    if option == "volume_binds":
        return {bind: _plain(f"mount {bind}") for bind in value}
    if option == "devices":
        return {text: _plain(f"device {text}") for text in _texts(value, inspected.device)}
    if option == "ulimits":
        return {text.partition(":")[0]: _plain(f"ulimit {text}") for text in _texts(value, inspected.ulimit)}
    if option == "labels":
        return {name: _plain(f"label {name}={text}") for name, text in value.items() if name != PATCHES}
    if option == "published_ports":
        return {port: _plain(f"port {port} at {_bindings(bound)}") for port, bound in value.items()}
    if option in ("image", "image_name"):
        return {"image": _plain(f"image {value}")}
    if option == "exists":
        return {"exists": _plain("container")} if value else {}
    if option == "running":
        return {"running": _plain("container running" if value else "container stopped")}
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True)
    return {option: _plain(f"{option} {text}")}


def _texts(
    values: Sequence[str | Mapping[str, Any]], text: Callable[[Mapping[str, Any]], str]
) -> Iterator[str]:
    """Values as docker_container takes them, from the label or from its own comparison."""
    return (value if isinstance(value, str) else text(value) for value in values)


def _plain(line: str) -> Thing:
    return Thing(line, line)


def _variable(name: str, text: str) -> Thing:
    line = f"environment {name}={text}"
    return Thing(line, f"environment {name}=***" if is_secret(name) else mask(line, []))


def _argument(name: str, text: str) -> Thing:
    # A word in front: in a diff, dashes right after the line's sign would look like the diff's header.
    line = f"argument {text}"
    return Thing(line, f"argument --{name} ***" if is_secret_option(name) else mask(line, []))


def _bindings(bound: Sequence[Mapping[str, Any]] | None) -> str:
    return (
        ", ".join(f"{one.get('HostIp') or '*'}:{one.get('HostPort')}" for one in bound or []) or "no address"
    )


def _arguments(argv: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Name and text of every serve argument. Takes a JSON value apart, in the form that vLLM accepts too: --name.key value."""
    for name, values in options(argv).items():
        if not name:
            yield name, " ".join(["model", *values])
        elif values == ("false",):
            yield name, f"--no-{name}"
        elif len(values) == 1 and isinstance(members := _parsed(values[0]), dict) and members:
            yield from _members(name, members)
        else:
            yield name, " ".join([f"--{name}", *values])


def _members(name: str, members: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for key, value in members.items():
        inner = f"{name}.{key}"
        if isinstance(value, dict) and value:
            yield from _members(inner, value)
        else:
            yield (
                inner,
                f"--{inner} {value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}",
            )


def _parsed(text: str) -> Any:
    try:
        return json_text.read(text, "the option")
    except json_text.JsonError:
        return None
