# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compares data with a declared shape. Gives every problem at once, each with file, line, key and cure.

A shape is a tuple of :class:`Key`. The checks, the defaults and the tables of the documentation all come from the same
declaration.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from .._common.spelling import nearest
from .document import Document, Path, Problem


@dataclass(frozen=True)
class Key:
    """One key of a mapping.

    :param kind: ``string``, ``integer``, ``number``, ``mapping`` (the names in ``keys`` and no other),
        ``map`` (any name; each value a mapping of ``keys``, or of any kind without them),
        ``strings`` (a list of text), ``numbers``, ``list`` (of mappings of ``keys``)
    :param default: filled in when the key is absent; None leaves it out
    :param check: complains about a value of the right kind, or gives None
    """

    name: str
    kind: str
    meaning: str
    required: bool = False
    default: Any = None
    keys: tuple[Key, ...] = ()
    check: Callable[[Any], str | None] | None = None


def seen(value: Any) -> str:
    """A value in the form that an error shows."""
    if value is None:
        return "no value"
    if isinstance(value, bool):
        return f"the boolean {str(value).lower()}"
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, str):
        return f"the text '{value}'" if len(value) <= 80 else f"the text '{value[:77]}…'"
    return f"the number {value}"


_KINDS: dict[str, tuple[str, tuple[type, ...]]] = {
    "string": ("text", (str,)),
    "integer": ("a whole number", (int,)),
    "number": ("a number", (int, float)),
    "mapping": ("a mapping", (dict,)),
    "map": ("a mapping", (dict,)),
    "strings": ("a list of text", (list,)),
    "numbers": ("a list of numbers", (list,)),
    "list": ("a list of mappings", (list,)),
}
_ITEMS = {"strings": "string", "numbers": "number"}


def of_kind(value: Any, kind: str) -> str | None:
    """What is wrong with the kind of a value, or None."""
    expected, types = _KINDS[kind]
    if value is None:
        return f"expected {expected}, seen no value; write one or remove the key"
    if isinstance(value, bool) or not isinstance(value, types):
        hint = "; put it in quotes" if kind == "string" and isinstance(value, (int, float)) else ""
        return f"expected {expected}, seen {seen(value)}{hint}"
    return None


def check(document: Document, keys: tuple[Key, ...]) -> list[Problem]:
    """Every problem of a document that is a mapping of declared keys."""
    return _check(document.data, keys, document, ())


def _check(data: Any, keys: tuple[Key, ...], document: Document, path: Path) -> list[Problem]:
    wrong = of_kind(data, "mapping")
    if wrong:
        return [document.problem(path, wrong)]
    problems = []
    declared = {key.name: key for key in keys}
    meant = set()
    for name in data:
        if name not in declared:
            near = nearest(name, declared.keys() - data.keys()) or nearest(name, declared)
            meant.add(near)
            told = f"nearest valid key: {near}" if near else f"valid keys: {', '.join(declared)}"
            problems.append(document.problem((*path, name), f"unknown key; {told}", near))
    for key in keys:
        here = (*path, key.name)
        if key.name not in data:
            if key.required and key.name not in meant:
                problems.append(document.problem(here, f"required and missing: {key.meaning}"))
            continue
        problems += _check_value(data[key.name], key, document, here)
    return problems


def _check_value(value: Any, key: Key, document: Document, path: Path) -> list[Problem]:
    wrong = of_kind(value, key.kind)
    if wrong:
        return [document.problem(path, wrong)]
    problems = []
    if key.kind == "mapping":
        problems += _check(value, key.keys, document, path)
    elif key.kind == "map" and key.keys:
        for name, item in value.items():
            problems += _check(item, key.keys, document, (*path, name))
    elif key.kind == "list":
        for index, item in enumerate(value):
            problems += _check(item, key.keys, document, (*path, index))
    elif key.kind in _ITEMS:
        for index, item in enumerate(value):
            wrong = of_kind(item, _ITEMS[key.kind])
            if wrong:
                problems.append(document.problem((*path, index), wrong))
    if not problems and key.check:
        complaint = key.check(value)
        if complaint:
            problems.append(document.problem(path, complaint))
    return problems


def fill(data: Mapping[str, Any], keys: tuple[Key, ...]) -> dict[str, Any]:
    """A copy of valid data in the order of its declaration, with the defaults of what is absent."""
    filled: dict[str, Any] = {}
    for key in keys:
        value = copy.deepcopy(data.get(key.name, key.default))
        if value is None:
            continue
        if key.kind == "mapping":
            value = fill(value, key.keys)
        elif key.kind == "list":
            value = [fill(item, key.keys) for item in value]
        filled[key.name] = value
    return filled


# -- checks of single values, for the declarations ------------------------------------------------------


def matches(pattern: str, expected: str) -> Callable[[str], str | None]:
    """Text must match the whole pattern; ``expected`` says it in words."""
    compiled = re.compile(pattern)
    return lambda text: None if compiled.fullmatch(text) else f"expected {expected}, seen {seen(text)}"


def between(least: float, most: float) -> Callable[[float], str | None]:
    return lambda n: None if least <= n <= most else f"expected {least} to {most}, seen {n}"
