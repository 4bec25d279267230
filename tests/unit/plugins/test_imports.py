# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the plugins import: of a library only what it offers, so that its next release does not break a Spark."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest
from helpers.recipe import ROOT

OURS = "ansible_collections.sparkfleet."
SOURCES = sorted(ROOT.glob("plugins/**/*.py"))


def imported(tree: ast.Module) -> Iterator[str]:
    """Names of modules, with those taken from them, also where importlib is given the name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield from (f"{node.module}.{name.name}" for name in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            given = [argument.value for argument in node.args if isinstance(argument, ast.Constant)]
            yield from (name for name in given if isinstance(name, str))


def private(name: str) -> bool:
    return any(part.startswith("_") and not part.startswith("__") for part in name.split("."))


@pytest.mark.parametrize(
    "text",
    [
        "import a._b",
        "from a._b import c",
        "from a import _b",
        "importlib.import_module('a._b').c",
        "import _a",
    ],
)
def test_a_private_name_is_seen_in_each_kind_of_import(text):
    assert any(map(private, imported(ast.parse(text))))


def test_nothing_private_of_a_library_is_imported():
    found = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in SOURCES
        for name in imported(ast.parse(path.read_text()))
        if not name.startswith(OURS) and private(name)
    ]
    assert len(SOURCES) > 100
    assert found == []
