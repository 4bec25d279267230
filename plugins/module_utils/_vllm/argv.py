# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""vLLM's serve arguments as data: a mapping in a recipe, an argv in a container."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from . import options as known

_OPTION = re.compile(r"--?[A-Za-z]")
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")


class ArgumentsError(ValueError):
    """The mapping cannot be rendered; the text says which key and what to write instead."""


def _value(name: str, value: Any) -> str:
    if isinstance(value, Mapping):
        return json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (str, int, float)):
        return str(value)
    raise ArgumentsError(
        f"{name}: expected text, a number, a mapping or a list of these, got {type(value).__name__}"
    )


def _list(name: str, values: Sequence[Any]) -> list[str]:
    words = [_value(name, value) for value in values]
    if name in known.JSON_LISTS:
        return [f"--{name}", json.dumps(values, separators=(",", ":"), ensure_ascii=False)]
    if name in known.REPEATED:
        return [word for value in words for word in (f"--{name}", value)]
    if name in known.COMMA_LISTS:
        return [f"--{name}", ",".join(words)]
    return [f"--{name}", *words]


def render(arguments: Mapping[str, Any]) -> list[str]:
    """The argv of a mapping of long option names, in the mapping's order.

    ``true`` gives ``--name``, ``false`` gives ``--no-name`` (vLLM's switches take both), ``null`` leaves
    the option out, a mapping becomes JSON. A list becomes several values of one option, or the form in which vLLM takes a list
    there: JSON, the option again for each, or one text with commas.

    :raises ArgumentsError: a name that is no long option, a value that has no text form, an API key
        (argv is readable by every process of the host).
    """
    argv: list[str] = []
    for name, value in arguments.items():
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            plain = str(name).lstrip("-").replace("_", "-").lower()
            raise ArgumentsError(
                f"{name!r}: expected a long option name without dashes in front, for example {plain!r}"
            )
        if name == "api-key":
            raise ArgumentsError(
                "api-key: argv is public on the host; set vllm_serve_api_key, it goes through the environment"
            )
        if value is None:
            continue
        if value is True or value is False:
            argv.append(f"--{name}" if value else f"--no-{name}")
        elif isinstance(value, (list, tuple)):
            argv.extend(_list(name, value))
        else:
            argv.extend([f"--{name}", _value(name, value)])
    return argv


def options(argv: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The inverse of :func:`render`, for any argv: option name -> its values. As in argparse, the last of a repeated option counts,
    unless the option collects all.

    ``""`` holds what stands before the first option. A switch has no values; one written ``--no-name`` has the value ``false``.

    >>> options(["/models/body", "--port", "8000", "--no-enable-prefix-caching", "--seed=1"])
    {'': ('/models/body',), 'port': ('8000',), 'enable-prefix-caching': ('false',), 'seed': ('1',)}
    """
    found: dict[str, tuple[str, ...]] = {}
    name = ""
    for word in argv:
        if not _OPTION.match(word):
            found[name] = (*found.get(name, ()), word)
            continue
        plain, given, value = word.lstrip("-").partition("=")
        name = plain.replace("_", "-")
        before = found.get(name, ()) if name in known.REPEATED else ()
        found[name] = (*before, value) if given else before
        if name.startswith("no-") and not given:
            del found[name]
            name = name[3:]
            found[name] = ("false",)
    return found


def shutdown_timeout(argv: Sequence[str]) -> int:
    """Seconds that a server with this argv gives running answers to end, before it begins to stop.

    A value that is no number is for vLLM to refuse: such a server never starts.
    """
    value = "".join(options(argv).get("shutdown-timeout", ()))
    return int(value) if value.isdecimal() else 0
