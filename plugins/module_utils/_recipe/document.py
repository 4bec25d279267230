# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""YAML files as plain data that knows where each value stands: reads them, lays one over another, and writes them.

schema.py compares them with a declared shape.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .._common.spelling import nearest

try:
    import yaml
except ImportError:  # only a module that runs without ansible-core's own Python can miss it; it says so
    HAS_YAML = False
else:
    HAS_YAML = True
Path = tuple["str | int", ...]
DEEPEST = 50
"""Levels of nesting. A recipe has seven."""


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


@dataclass
class Document:
    """What a file holds. ``places`` maps the path of a value to its file and its line, counted from 1."""

    data: Any
    source: str
    places: dict[Path, tuple[str, int]] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def problem(self, path: Path, message: str, near: str | None = None) -> Problem:
        """A problem of the value at ``path``, with the place of the value; of an absent one, the place where it would be."""
        above = (path[:n] for n in range(len(path), -1, -1))
        source, line = next((self.places[part] for part in above if part in self.places), (self.source, None))
        return Problem(source, dotted(path), message, near, line)


def dotted(path: Path) -> str:
    """``("patches", 0, "commit")`` as a user writes it: ``patches[0].commit``."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def load(text: str, source: str) -> Document:
    """Read one YAML document as plain data: mappings with text keys, lists, text, numbers, booleans.

    YAML's surprises are problems, not values: a key given twice, ``on`` and ``yes`` as booleans, dates,
    ``0755``, ``1:30`` and ``8_000`` as numbers, tags, a structure that contains itself.
    """
    document = Document(None, source)
    try:
        loader = _bounded_loader()(text)
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


def _bounded_loader() -> Any:
    """A loader that counts the nodes of the text, and refuses those too deep to read."""

    class Loader(yaml.SafeLoader):
        nodes = depth = 0

        def compose_node(self, parent: Any, index: Any) -> Any:
            self.nodes += 1
            self.depth += 1
            if self.depth > DEEPEST:
                raise _too_deep(self.peek_event())
            try:
                return super().compose_node(parent, index)  # type: ignore[no-untyped-call]
            finally:
                self.depth -= 1

    return Loader


def _too_deep(there: Any) -> Exception:
    return yaml.MarkedYAMLError(problem=f"nested deeper than {DEEPEST} levels", problem_mark=there.start_mark)


def _plain(node: Any, path: Path, document: Document, loader: Any, above: tuple[int, ...]) -> Any:
    document.places[path] = document.source, node.start_mark.line + 1
    # An alias may stand for a value with aliases in it, so a few lines can become millions of values.
    if len(document.places) > 10_000 + 2 * loader.nodes:
        said = "its aliases stand for too many values; write them out"
        raise yaml.MarkedYAMLError(problem=said, problem_mark=node.start_mark)
    if len(path) > DEEPEST:
        raise _too_deep(node)

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
        return f"YAML reads {text} as {_integer(text)}; write it plainly, or '{text}' in quotes"
    if kind == "float" and not re.fullmatch(
        r"[-+]?([0-9]+(\.[0-9]+)?|\.[0-9]+)([eE][-+]?[0-9]+)?|[-+]?[0-9]+\.", text
    ):
        return f"YAML reads {text} as a number of its own kind; write it plainly, or '{text}' in quotes"
    if kind not in ("bool", "int", "float"):
        return (
            f"expected plain data, seen the tag !{kind}; a vaulted or computed value belongs in the inventory"
        )
    return None


def _integer(text: str) -> str:
    try:
        return f"the number {yaml.safe_load(text)}"
    except ValueError:  # 0x_
        return "a number"


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

    Every value keeps the place where it stands. A null that takes nothing away is a problem: its key is misspelled.
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
