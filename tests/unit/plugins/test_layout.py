# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The house that docs/architecture.md draws: which package imports which, what may travel to a host, where a file and its test lie."""

from __future__ import annotations

import ast
import graphlib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).resolve().parents[3]
PLUGINS = ROOT / "plugins"
PAGE = (ROOT / "docs/architecture.md").read_text()
FRONTS = ("modules", "action", "filter", "doc_fragments")

FILES = {
    PurePosixPath(path.relative_to(PLUGINS).with_suffix("")): ast.parse(path.read_text())
    for path in sorted(PLUGINS.rglob("*.py"))
}
"""{path below plugins/, without .py: the file}"""


def imported(path: PurePosixPath) -> set[PurePosixPath]:
    """The files of plugins/ that a file imports."""
    found = set()
    for node in ast.walk(FILES[path]):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = path.parents[node.level - 1].joinpath(*(node.module or "").split("."))
            found |= {base} if base in FILES else {base / each.name for each in node.names}
    return found


IMPORTS = {path: imported(path) for path in FILES}


def package(path: PurePosixPath) -> str:
    """What the page calls the package of a file: `_gate` may travel, `report` may not, `plugin_utils` are the files right in it."""
    return path.parent.name


def between_packages() -> dict[str, set[str]]:
    """{package: the other packages that it imports}, without the fronts."""
    found: dict[str, set[str]] = {}
    for path, others in IMPORTS.items():
        if path.parts[0] not in FRONTS:
            found.setdefault(package(path), set()).update(map(package, others))
    return {name: others - {name} for name, others in found.items()}


def on_the_page() -> dict[str, set[str]]:
    """The same, as the table of the page has it."""
    rows = re.findall(r"^\| `(?:(?:module|plugin)_utils/)?(\w+)` \|[^|]+\|([^|]*)\|$", PAGE, re.M)
    return {name: set(re.findall(r"`(\w+)`", others)) for name, others in rows}


def floors() -> list[list[str]]:
    """The packages as the page draws them, those of the top floor first."""
    (drawn,) = re.findall(r"^    top .*?^    ground .*?$", PAGE, re.M | re.S)
    return [line.partition("|")[0].split()[1:] for line in drawn.splitlines()]


def ordered(graph: Mapping[str, Iterable[str]]) -> list[str]:
    """:raises AssertionError: there is a circle"""
    try:
        return list(graphlib.TopologicalSorter(graph).static_order())
    except graphlib.CycleError as error:
        raise AssertionError(f"a circle: {' -> '.join(error.args[1])}") from None


def test_every_import_leads_to_a_file() -> None:
    strays = {f"{path}: {other}" for path, others in IMPORTS.items() for other in others - set(FILES)}
    assert not strays


def test_packages_import_what_the_page_says_and_nothing_else() -> None:
    assert between_packages() == on_the_page()


def test_the_drawing_has_each_package_above_all_that_it_imports() -> None:
    level = {name: number for number, names in enumerate(reversed(floors())) for name in names}
    found = between_packages()
    assert sorted(level) == sorted(found)
    assert {
        f"{name} imports {other}" for name in found for other in found[name] if level[other] >= level[name]
    } == set()


def test_no_circle_of_packages_and_none_of_files() -> None:
    ordered(between_packages())
    ordered({str(path): map(str, others) for path, others in IMPORTS.items()})


def test_nobody_imports_a_front_but_one_of_its_kind_and_modules_import_only_what_travels() -> None:
    for path, others in IMPORTS.items():
        kind = path.parts[0]
        kinds = {other.parts[0] for other in others}
        assert kinds <= {"module_utils", *({"plugin_utils", kind} if kind != "modules" else set())}, path


def test_what_no_module_reaches_is_not_sent_to_hosts() -> None:
    reached: set[PurePosixPath] = set()
    pending = [path for path in FILES if path.parts[0] == "modules"]
    while pending:
        path = pending.pop()
        if path not in reached:
            reached.add(path)
            pending += IMPORTS[path]
    idle = {str(path) for path in FILES if path.parts[0] == "module_utils"} - {str(path) for path in reached}
    assert idle == set(), "reached by no module: it belongs in plugin_utils"


@pytest.mark.parametrize("path", FILES, ids=str)
def test_imports_of_the_collection_are_relative(path: PurePosixPath) -> None:
    for node in ast.walk(FILES[path]):
        if isinstance(node, ast.ImportFrom) and not node.level:
            assert not (node.module or "").startswith("ansible_collections.sparkfleet"), f"line {node.lineno}"
        if isinstance(node, ast.Import):
            assert not any("sparkfleet" in each.name for each in node.names), f"line {node.lineno}"


def test_a_folder_of_module_utils_is_private_and_its_files_have_plain_names() -> None:
    for path in FILES:
        if path.parts[0] == "module_utils":
            assert len(path.parts) == 3 and path.parts[1].startswith("_"), path
        if path.parts[0] == "plugin_utils":
            assert len(path.parts) in (2, 3) and not path.parts[1].startswith("_"), path
        assert not path.name.startswith("_"), path


def test_unit_tests_lie_where_the_code_does() -> None:
    """test_gate.py in module_utils/_gate tests module_utils/_gate/gate.py; test_gate_and_more.py would, too."""
    here = Path(__file__).resolve()
    for path in sorted(here.parent.rglob("*.py")):
        if path.parent == here.parent:
            continue  # of all plugins together
        place = PurePosixPath(path.parent.relative_to(here.parent))
        known = [file.name for file in FILES if file.parent == place]
        name = path.stem.removeprefix("test_")
        assert path.stem.startswith("test_"), path
        assert any(name == each or name.startswith(f"{each}_") for each in known), f"{path}: a test of what?"


def test_every_helper_is_used() -> None:
    text = "".join(path.read_text() for path in (ROOT / "tests/unit").rglob("*.py"))
    for path in (ROOT / "tests/unit/helpers").glob("*.py"):
        assert re.search(rf"from helpers(\.{path.stem} import| import .*\b{path.stem}\b)", text), path
