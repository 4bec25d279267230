"""docs/troubleshooting.md has an entry for each diagnosis that the code can make, and for no other."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import yaml
from ansible_collections.sparkfleet.vllm.plugins.modules import spec_decode_assert

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs/troubleshooting.md").read_text()
ENTRIES = dict(re.findall(r"^### `(\w+)`\n(.*?)(?=^#|\Z)", PAGE, flags=re.DOTALL | re.MULTILINE))
PASSED = "ok"
DIAGNOSIS = "plugins/module_utils/_gate/diagnosis.py"
MAKES = ("Finding", "RefusedError")
"""Whose first argument is a code."""


def named(call: ast.Call) -> list[str]:
    """The codes that a call makes: of a Finding, of an error that has one, or handed on as `diagnosis`."""
    values = [keyword.value for keyword in call.keywords if keyword.arg in ("diagnosis", "code")]
    if isinstance(call.func, ast.Name) and call.func.id in MAKES:
        values += call.args[:1]
    return [str(value.value) for value in values if isinstance(value, ast.Constant)]


def in_python() -> set[str]:
    # Findings of drift are not diagnoses: docs/drift.md has a table of them.
    found: set[str] = set()
    for path in ROOT.glob("plugins/**/*.py"):
        of_the_gate = path == ROOT / DIAGNOSIS
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            refuses = isinstance(node.func, ast.Name) and node.func.id == "RefusedError"
            if of_the_gate or refuses or any(it.arg == "diagnosis" for it in node.keywords):
                found |= set(named(node))
    return found


def in_roles() -> set[str]:
    text = "".join(path.read_text() for path in ROOT.glob("roles/*/tasks/*.yml"))
    return set(re.findall(r"^ +diagnosis: (\w+)$", text, flags=re.MULTILINE))


CODES = (in_python() | in_roles()) - {PASSED}


def test_the_codes_are_found_in_the_code():
    """Each way in which one is written, and each Finding by a name that can be read off."""
    written = {
        "drafts_never_accepted",
        "engine_unreachable",
        "arguments_refused",
        "devices_refused",
        "untouched",
    }
    assert written <= CODES
    text = (ROOT / DIAGNOSIS).read_text()
    calls = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)]
    assert sum(len(named(call)) for call in calls) == text.count("Finding(")


def test_every_diagnosis_has_an_entry_and_every_entry_is_a_diagnosis():
    assert set(ENTRIES) == CODES


def test_an_entry_says_what_is_seen_what_it_means_and_what_to_do():
    lacking = [
        code
        for code, text in ENTRIES.items()
        if not re.search(r"- Seen.*\n- Means.*\n- Do: ", text, re.DOTALL)
    ]
    assert lacking == []


def test_every_entry_is_found_by_what_one_sees():
    table = PAGE.partition("\n## ")[0]
    assert {code for code in CODES if f"`{code}`" not in table} == set()


def test_the_gates_own_page_names_what_it_can_say():
    documented = yaml.safe_load(spec_decode_assert.RETURN)
    listed = set(re.findall(r"V\((\w+)\)", " ".join(documented["diagnosis"]["description"]))) - {PASSED}
    elsewhere = {"measurement_timeout", "untouched"} | {
        f"{what}_refused" for what in ("arguments", "devices", "entrypoint", "mount", "version")
    }
    assert listed == CODES - elsewhere
