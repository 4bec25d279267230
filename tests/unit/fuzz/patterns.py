# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every regular expression of plugins/ on texts that it was not made for: patterns.py. Prints what takes no time in proportion.

In a process of its own: `re` lets nothing else run meanwhile.
"""

from __future__ import annotations

import ast
import importlib
import re
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from re import _constants as op  # type: ignore[attr-defined]
from re import _parser  # type: ignore[attr-defined]
from types import FrameType
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from conftest import ROOT

PLUGINS = ROOT / "plugins"
HOME = "ansible_collections.sparkfleet.vllm.plugins"
SIZE = 1_000_000
"""Characters of each text."""
LIMIT = 2.0
"""Seconds of processor time for one text. In proportion it takes some hundredths; to the power of two, hours."""
METHODS = ("search", "match", "fullmatch", "finditer", "findall", "sub", "split")
MADE = {
    "modules/spec_decode_assert.py": "digits of a number that the module declares",
    "module_utils/_host/toolkit.py": "the name of a package, escaped",
    "module_utils/_host/netplan.py": "the name of an interface, escaped",
    "module_utils/_recipe/rules.py": "names of this schema; HIDDEN, which is one of those that are tried",
    "module_utils/_recipe/recipe.py": "HIDDEN of rules.py",
    "module_utils/_recipe/resolve.py": "COMMIT of recipe.py",
    "module_utils/_recipe/schema.py": "patterns of the schemas, which are tried",
    "module_utils/_images/engine.py": "REFUSALS, which are tried",
    "module_utils/_bundle/layout.py": "SHA256 of manifest.py",
    "plugin_utils/serving/record.py": "HIDDEN of rules.py",
    "module_utils/_vllm/log.py": "_PHASES, which are tried",
    "module_utils/_serve/device_request.py": "_CURES, which are tried",
    "module_utils/_gate/diagnosis.py": "its table of cures, which is tried",
    "module_utils/_common/pinned.py": "_LINE and _WHEEL, which are tried",
    "module_utils/_images/push.py": "_END, which is tried",
    "module_utils/_prune/store.py": "_COMPANION, which is tried",
}
"""Where an expression is made of something else than a text in its place, and of what."""


@dataclass(frozen=True)
class Used:
    """An expression, and how it is applied."""

    pattern: str | bytes
    flags: int
    method: str
    where: str


def files() -> dict[str, str]:
    return {str(path.relative_to(PLUGINS)): path.read_text() for path in sorted(PLUGINS.rglob("*.py"))}


def written() -> tuple[list[Used], set[str]]:
    """Expressions that stand where they are used, and the files in which one is made of something else."""
    found, made = [], set()
    for name, text in files().items():
        for node in ast.walk(ast.parse(text)):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                continue
            if getattr(node.func.value, "id", "") != "re" or node.func.attr == "escape":
                continue
            pattern = node.args[0]
            if not isinstance(pattern, ast.Constant) or not isinstance(pattern.value, str | bytes):
                made.add(name)
            elif node.func.attr in METHODS:
                flags = [
                    *(key.value for key in node.keywords if key.arg == "flags"),
                    *node.args[2 + (node.func.attr == "sub") :],
                ]
                value = sum(int(getattr(re, flag.attr)) for flag in flags if isinstance(flag, ast.Attribute))
                found.append(Used(pattern.value, value, node.func.attr, f"{name}:{node.lineno}"))
    return found, made


def compiled() -> Iterator[Used]:
    """Those of a module, alone or in its tables. One whose method nobody names is searched for."""
    texts = "\n".join(files().values())
    for name in files():
        module = importlib.import_module(f"{HOME}.{name.removesuffix('.py').replace('/', '.')}")
        for variable, value in vars(module).items():
            for pattern in _within(value):
                methods = set(re.findall(rf"\b{variable}\.({'|'.join(METHODS)})\(", texts)) or {"search"}
                for method in methods:
                    yield Used(pattern.pattern, pattern.flags, method, f"{name}:{variable}")


def _within(value: Any) -> Iterator[re.Pattern[str]]:
    if isinstance(value, re.Pattern):
        yield value
    elif isinstance(value, (tuple, list)):
        for each in value:
            yield from _within(each)


def tables() -> Iterator[Used]:
    """Expressions that are kept as texts."""
    engine = importlib.import_module(f"{HOME}.module_utils._images.engine")
    rules = importlib.import_module(f"{HOME}.module_utils._recipe.rules")
    recipe = importlib.import_module(f"{HOME}.module_utils._recipe.recipe")
    for words, *_rest in engine.REFUSALS:
        yield Used(words, 0, "search", "module_utils/_images/engine.py:REFUSALS")
    yield Used(rules.HIDDEN, 0, "search", "module_utils/_recipe/rules.py:HIDDEN")
    yield Used(recipe.COMMIT, 0, "fullmatch", "module_utils/_recipe/recipe.py:COMMIT")


# -- texts that an expression half fits


def _fits(item: tuple[Any, Any], char: str) -> bool:
    kind, value = item
    if kind is op.LITERAL:
        return bool(ord(char) == value)
    if kind is op.RANGE:
        return bool(value[0] <= ord(char) <= value[1])
    classes = {
        op.CATEGORY_DIGIT: r"\d", op.CATEGORY_NOT_DIGIT: r"\D", op.CATEGORY_SPACE: r"\s", op.CATEGORY_NOT_SPACE: r"\S",
        op.CATEGORY_WORD: r"\w", op.CATEGORY_NOT_WORD: r"\W",
    }  # fmt: skip
    return kind is op.CATEGORY and bool(re.fullmatch(classes[value], char))


def _one_of(items: list[tuple[Any, Any]]) -> str:
    negated = items[0][0] is op.NEGATE
    for char in "a0 A.-_/:x\t\n\"'[]{}()%=,;!\x00" + "".join(
        chr(value) for kind, value in items if kind is op.LITERAL
    ):
        if any(_fits(item, char) for item in items[negated:]) != negated:
            return char
    return "a"


def sample(parsed: Any, stops: list[tuple[str, str]], before: str = "") -> str:
    """A text that the expression takes. `stops` gets, for each part that may repeat, what stands before it and the part."""
    text = ""
    for kind, value in parsed:
        if kind is op.LITERAL:
            text += chr(value)
        elif kind is op.NOT_LITERAL:
            text += "a" if value != ord("a") else "b"
        elif kind is op.ANY:
            text += "x"
        elif kind is op.IN:
            text += _one_of(value)
        elif kind is op.BRANCH:
            branches = [sample(branch, stops, before + text) for branch in value[1]]
            text += branches[0]
        elif kind is op.SUBPATTERN:
            text += sample(value[-1], stops, before + text)
        elif kind in (op.MAX_REPEAT, op.MIN_REPEAT, op.POSSESSIVE_REPEAT):
            unit = sample(value[2], stops, before + text)
            if value[1] > 1:
                stops.append((before + text, unit or "a"))
            text += unit * max(int(value[0]), 1)
    return text


def shapes(used: Used) -> set[str]:
    """Texts of :data:`SIZE` that take it far, and then not to its end."""
    stops: list[tuple[str, str]] = []
    whole = sample(_parser.parse(used.pattern, used.flags), stops)
    units = {" ", "\n", whole, whole[:-1], *(before + unit for before, unit in stops)} - {""}
    made = {unit * (SIZE // len(unit)) for unit in units}
    for before, unit in stops:
        made |= {before + unit * (SIZE // len(unit)) + end for end in ("", "\x00", "\n\x00")}
    return made


def apply(used: Used, text: str) -> None:
    pattern: Any = re.compile(used.pattern, used.flags)
    given = text if isinstance(used.pattern, str) else text.encode()
    if used.method == "sub":
        pattern.sub(given[:0], given)
    elif used.method == "finditer":
        list(pattern.finditer(given))
    else:
        getattr(pattern, used.method)(given)


class Slow(BaseException):
    """A text took too long."""


def _slow(_signal: int, _frame: FrameType | None) -> None:
    raise Slow


def main() -> int:
    signal.signal(signal.SIGVTALRM, _slow)
    inline, made = written()
    every = {*inline, *compiled(), *tables()}
    bad = [
        f"{name}: an expression that is made of something else, which nobody tries"
        for name in sorted(made - set(MADE))
    ]
    bad += [f"{name}: named here, and has no such expression" for name in sorted(set(MADE) - made)]
    for used in sorted(every, key=lambda used: used.where):
        for text in sorted(shapes(used)):
            try:
                signal.setitimer(signal.ITIMER_VIRTUAL, LIMIT)
                apply(used, text)
            except Slow:
                bad.append(
                    f"{used.where}: {used.method} of {used.pattern!r} takes too long for {text[:60]!r}… (ends {text[-20:]!r})"
                )
                break
            finally:
                signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    print("\n".join(bad))
    print(f"{len(every)} expressions, {len(bad)} complaints")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
