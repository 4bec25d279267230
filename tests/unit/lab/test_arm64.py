# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What `make arm64` leaves out of the unit tests: tests that are there, and each for a reason."""

from __future__ import annotations

import ast
import re

from helpers.recipe import ROOT

SCRIPT = (ROOT / "molecule/lab/arm64.sh").read_text()
LINES = [
    line
    for line in (ROOT / "molecule/lab/arm64/left_out.txt").read_text().splitlines()
    if line and not line.startswith("#")
]
LINE = re.compile(r"(?P<path>tests/[^ :]+\.py)(?:::(?P<test>\w+))? +# (?P<why>\w.*)")


def functions(path: str) -> set[str]:
    tree = ast.parse((ROOT / path).read_text())
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def test_each_is_a_test_that_would_run_and_says_why_it_does_not() -> None:
    folders = re.findall(r" (tests/unit/[\w/]+)", SCRIPT)
    assert len(folders) == 2
    for line in LINES:
        found = LINE.fullmatch(line)
        assert found, f"expected PATH[::TEST] # WHY, seen {line!r}"
        path, test = found["path"], found["test"]
        assert any(path.startswith(f"{folder}/") for folder in folders), f"{path} would not run anyway"
        assert (ROOT / path).is_file(), f"{path} is gone: take it out of left_out.txt"
        assert test is None or test in functions(path), f"{path} has no {test}: take it out of left_out.txt"


def test_each_is_left_out_once() -> None:
    paths = [line.split()[0] for line in LINES]
    assert paths == sorted(set(paths))
