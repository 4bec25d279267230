#!/usr/bin/env python3
# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Prints the files of this collection that a playbook or role uses: its roles, their plugins, and what those import.

inputs.py PATH...
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

ROOT = Path(__file__).parents[3]
NAMED = re.compile(r"\bsparkfleet\.vllm\.(\w+)")
IMPORTED = "ansible_collections.sparkfleet.vllm."


def named(text: str) -> Iterator[Path]:
    """Roles and plugins that a YAML file names. A module is the file with that name; a filter is one of several in a file."""
    for name in NAMED.findall(text):
        yield from (role for role in [ROOT / "roles" / name] if role.is_dir())
        for path in ROOT.glob("plugins/*/*.py"):
            if path.parent.name in ("modules", "action"):
                if path.stem == name:
                    yield path
            elif f'"{name}"' in path.read_text():
                yield path


def imported(path: Path) -> Iterator[Path]:
    """Files of the collection that a Python file imports, with the packages that they lie in."""
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            wanted = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                package = path.parents[node.level - 1].relative_to(ROOT)
                base = IMPORTED + ".".join([*package.parts, base]).rstrip(".")
            wanted = [base, *(f"{base}.{alias.name}" for alias in node.names)]
        else:
            continue
        for name in wanted:
            if name.startswith(IMPORTED):
                yield from _files(name.removeprefix(IMPORTED).split("."))


def _files(parts: list[str]) -> Iterator[Path]:
    for length in range(1, len(parts) + 1):
        at = ROOT.joinpath(*parts[:length])
        for path in (at / "__init__.py", at.with_name(f"{at.name}.py")):
            if path.is_file():
                yield path


def inputs(starts: Iterable[Path]) -> list[Path]:
    """All files that the given files and directories use, sorted."""
    seen: set[Path] = set()
    waiting = list(starts)
    while waiting:
        path = waiting.pop()
        if path in seen or "__pycache__" in path.parts:
            continue
        seen.add(path)
        if path.is_dir():
            waiting += path.iterdir()
        elif path.suffix == ".py":
            waiting += imported(path)
        elif path.suffix in (".yml", ".yaml"):
            waiting += named(path.read_text())
    return sorted(path for path in seen if path.is_file() and path.suffix != ".md")


if __name__ == "__main__":
    for found in inputs(Path(word).resolve() for word in sys.argv[1:]):
        print(found.relative_to(ROOT))
