# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""YAML files held against a declared shape: every problem at once, each with file, line, key and cure.

A shape is a tuple of :class:`Key`. The same declaration drives the checks, the defaults and the tables of
the documentation.
"""

from __future__ import annotations

import copy
import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

try:
    import yaml
except ImportError:  # only a module that runs without ansible-core's own Python can miss it; it says so
    HAS_YAML = False
else:
    HAS_YAML = True

Path = tuple["str | int", ...]


@dataclass(frozen=True)
class Problem:
    """One thing wrong in one file. ``str()`` is what a user reads."""

    source: str
    key: str
    message: str
    nearest: str | None = None
    line: int | None = None

    def __str__(self) -> str:
        place = self.source if self.line is None else f"{self.source}:{self.line}"
        return f"{place}: {self.key}: {self.message}" if self.key else f"{place}: {self.message}"


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


@dataclass
class Document:
    """What a file holds. ``places`` maps the path of a value to its file and its line, counted from 1."""

    data: Any
    source: str
    places: dict[Path, tuple[str, int]] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def problem(self, path: Path, message: str, near: str | None = None) -> Problem:
        """A problem of the value at ``path``, told where that stands; of an absent one, where it would."""
        above = (path[:n] for n in range(len(path), -1, -1))
        source, line = next((self.places[part] for part in above if part in self.places), (self.source, None))
        return Problem(source, dotted(path), message, near, line)


def dotted(path: Path) -> str:
    """``("patches", 0, "commit")`` as a user writes it: ``patches[0].commit``."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def nearest(name: str, valid: Iterable[str]) -> str | None:
    """The valid name a writer most likely meant, whatever its case, dashes or underscores."""

    def plain(text: str) -> str:
        return text.lower().strip("-_").replace("_", "-")

    names = {plain(item): item for item in sorted(valid)}
    close = difflib.get_close_matches(plain(name), names, n=1, cutoff=0.5)
    return names[close[0]] if close else None


def seen(value: Any) -> str:
    """A value as an error names it."""
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


# -- reading ------------------------------------------------------------------------------------------


def load(text: str, source: str) -> Document:
    """Read one YAML document as plain data: mappings with text keys, lists, text, numbers, booleans.

    YAML's surprises are problems, not values: a key given twice, ``on`` and ``yes`` as booleans, dates,
    ``0755``, ``1:30`` and ``8_000`` as numbers, tags, a structure that contains itself.
    """
    document = Document(None, source)
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        if node is not None:
            document.data = _plain(node, (), document, loader, ())
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        said = " ".join(part for part in (error.context, error.problem) if part)
        document.problems.append(
            Problem(source, "", f"not valid YAML: {said}", line=mark.line + 1 if mark else None)
        )
    except yaml.YAMLError as error:
        document.problems.append(Problem(source, "", f"not valid YAML: {' '.join(str(error).split())}"))
    return document


def _plain(node: Any, path: Path, document: Document, loader: Any, above: tuple[int, ...]) -> Any:
    document.places[path] = document.source, node.start_mark.line + 1

    def problem(message: str) -> None:
        document.problems.append(document.problem(path, message))

    if id(node) in above:
        problem("the value contains itself; write it out")
        return None
    above = (*above, id(node))
    if isinstance(node, yaml.MappingNode):
        return _plain_mapping(node, path, document, loader, above)
    if isinstance(node, yaml.SequenceNode):
        return [
            _plain(item, (*path, index), document, loader, above) for index, item in enumerate(node.value)
        ]
    kind = node.tag.rpartition(":")[2]
    if kind == "str":
        return node.value
    if kind == "null":
        return None
    trap = _trap(kind, node.value)
    if trap:
        problem(trap)
        return node.value
    try:
        return loader.construct_object(node)
    except (ValueError, yaml.YAMLError) as error:
        problem(f"expected a {kind}, seen '{node.value}' ({error})")
        return node.value


def _trap(kind: str, text: str) -> str | None:
    """Why a plain scalar is not what its writer thinks, or None."""
    if kind == "bool" and text.lower() not in ("true", "false"):
        return f"YAML reads {text} as a boolean; write true or false, or '{text}' in quotes for the text"
    if kind == "timestamp":
        return f"YAML reads {text} as a date; write '{text}' in quotes"
    if kind == "int" and not re.fullmatch(r"[-+]?(0|[1-9][0-9]*)", text):
        return f"YAML reads {text} as the number {_integer(text)}; write it plainly, or '{text}' in quotes"
    if kind == "float" and not re.fullmatch(
        r"[-+]?([0-9]+(\.[0-9]+)?|\.[0-9]+)([eE][-+]?[0-9]+)?|[-+]?[0-9]+\.", text
    ):
        return f"YAML reads {text} as a number of its own kind; write it plainly, or '{text}' in quotes"
    if kind not in ("bool", "int", "float"):
        return (
            f"expected plain data, seen the tag !{kind}; a vaulted or computed value belongs in the inventory"
        )
    return None


def _integer(text: str) -> Any:
    return yaml.safe_load(text)


def _plain_mapping(
    node: Any, path: Path, document: Document, loader: Any, above: tuple[int, ...]
) -> dict[str, Any]:
    source = document.source
    mapping: dict[str, Any] = {}
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        name = key_node.value if isinstance(key_node, yaml.ScalarNode) else None
        here = (*path, str(name))
        if name is None:
            document.problems.append(
                Problem(source, dotted(path), "expected text as a key, seen a structure", line=line)
            )
            continue
        if not key_node.tag.endswith((":str", ":merge")):
            kind = key_node.tag.rpartition(":")[2]
            document.problems.append(
                Problem(source, dotted(here), f"expected text as a key; YAML reads {name} as {kind}: quote it",
                        line=line)
            )  # fmt: skip
        if name in mapping:
            document.problems.append(
                Problem(
                    source, dotted(here), f"given twice, first in line {document.places[here][1]}", line=line
                )
            )
            continue
        mapping[name] = _plain(value_node, here, document, loader, above)
        document.places[here] = source, line
    return mapping


def overlay(base: Document, over: Document) -> Document:
    """``over`` on top of ``base``: nested mappings merged, anything else replaced, null takes a key away.

    Every value is told of where it stands. A null that takes nothing away is a problem: its key is misspelled.
    """
    merged = Document(None, over.source, dict(base.places), [*over.problems, *base.problems])

    def below(path: Path, places: Mapping[Path, Any]) -> list[Path]:
        return [known for known in places if known[: len(path)] == path]

    def lay(low: Mapping[str, Any], high: Mapping[str, Any], path: Path) -> dict[str, Any]:
        if path in over.places:
            merged.places[path] = over.places[path]
        data = dict(low)
        for name, value in high.items():
            here = (*path, name)
            mine = data.get(name)
            if isinstance(mine, Mapping) and isinstance(value, Mapping):
                data[name] = lay(mine, value, here)
                continue
            for known in below(here, merged.places):
                del merged.places[known]
            if value is not None:
                data[name] = value
                merged.places |= {known: over.places[known] for known in below(here, over.places)}
            elif name in data:
                del data[name]
            else:
                near = nearest(name, data)
                told = f"; nearest: {near}" if near else ""
                message = f"null takes a key away, and {base.source} has no such key{told}"
                merged.problems.append(over.problem(here, message, near))
        return data

    merged.data = lay(base.data, over.data, ())
    return merged


def dump(data: Mapping[str, Any]) -> str:
    """Plain data as YAML in its own order, lists indented under their key, nothing shortened or folded."""

    class Dumper(yaml.SafeDumper):
        def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
            super().increase_indent(flow, False)

        def ignore_aliases(self, data: Any) -> bool:
            return True

    text: str = yaml.dump(dict(data), Dumper=Dumper, sort_keys=False, width=1000, allow_unicode=True)
    return text


# -- checking -----------------------------------------------------------------------------------------

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
