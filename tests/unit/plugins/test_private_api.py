"""What of Ansible the plugins use: what it documents, and what no action plugin of any collection goes without."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from pathlib import Path

import pytest
from helpers.recipe import ROOT

ALLOWED = {
    "_connection", "_diff", "_display", "_execute_module", "_loader", "_low_level_execute_command", "_play_context",
    "_remove_tmp_path", "_shell", "_task", "_templar", "_transfer_data",
}  # fmt: skip
"""The line: what the guide on developing plugins names, and what community.docker, ansible.posix, ansible.utils and
kubernetes.core call in their own actions. It is called and read, and never replaced, overridden or removed."""
DECLARED = {"_requires_connection", "_supports_async", "_supports_check_mode"}
"""What an action states of itself, in its class."""


def private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("__")


def of(node: ast.Attribute, name: str) -> bool:
    return isinstance(node.value, ast.Name) and node.value.id == name


def own_names(trees: Iterable[ast.AST]) -> set[str]:
    """Private names that the plugins define themselves: functions, classes, fields of classes and of self, globals."""
    found: set[str] = set()
    for node in (node for tree in trees for node in ast.walk(tree)):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        if isinstance(node, ast.ClassDef | ast.Module):
            for line in node.body:
                found |= {name.id for name in ast.walk(line) if isinstance(name, ast.Name)}
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and of(node, "self"):
            found.add(node.attr)
    return {name for name in found if private(name)} - ALLOWED


def problems(text: str, own: set[str]) -> list[str]:
    """Lines on which private API of Ansible is used."""
    found = []
    for node in ast.walk(ast.parse(text)):
        used: list[str] = []
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "ansible":
            used = [*str(node.module).split("."), *(alias.name for alias in node.names)]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names if alias.name.partition(".")[0] == "ansible"]
            used = [part for name in names for part in name.split(".")]
        elif isinstance(node, ast.Attribute) and not of(node, "os"):
            written = not isinstance(node.ctx, ast.Load)
            used = [node.attr] if node.attr not in own and (written or node.attr not in ALLOWED) else []
        elif isinstance(node, ast.FunctionDef):
            used = [node.name] if node.name in ALLOWED else []
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("getattr", "setattr", "delattr"):
            named = node.args[1]
            used = [str(named.value)] if isinstance(named, ast.Constant) and named.value not in own else []
        found += [f"{getattr(node, 'lineno', 0)}: {name}" for name in used if private(name)]
    return found


SOURCES = {path: path.read_text() for path in sorted((ROOT / "plugins").rglob("*.py"))}
# The files that a module is shipped with are imported by names with an underscore.
OWN = own_names(ast.parse(text) for text in SOURCES.values()) | DECLARED | {path.stem for path in SOURCES}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT / "plugins")))
def test_no_plugin_uses_private_api_of_ansible(path: Path) -> None:
    assert problems(SOURCES[path], OWN) == []


@pytest.mark.parametrize(
    "text",
    [
        "Display()._final_q = None",
        "Display()._final_q.send_display()",
        "action._low_level_execute_command = job.execute",
        "del action._low_level_execute_command",
        "setattr(action, '_execute_module', mine)",
        "getattr(display, '_final_q')",
        "class A(ActionBase):\n    def _execute_module(self): ...",
        "action._parse_returned_data(answer)",
        "from ansible.module_utils._internal import _json",
        "from ansible.executor.task_result import _RawTaskResult",
        "import ansible._internal.templating",
    ],
)
def test_it_is_found(text: str) -> None:
    assert problems(text, OWN)


@pytest.mark.parametrize(
    "text", ["self._task.args", "self._connection._shell.quote('x')", "action._execute_module('x')"]
)
def test_what_every_collection_uses_is_not(text: str) -> None:
    assert problems(text, OWN) == []
