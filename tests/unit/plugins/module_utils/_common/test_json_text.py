# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The one place where JSON of others is read, and that it is the one."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest
from ansible_collections.sparkfleet.vllm.plugins.module_utils._common import json_text

PLUGINS = Path(__file__).resolve().parents[5] / "plugins"
HOME = "module_utils/_common/json_text.py"
OF_OUR_OWN = {
    "module_utils/_run/detached.py": "a result of this collection's own module, as Ansible reads it",
    "module_utils/_drift/look.py": "gives a value the form that a file would give it, in one breath with json.dumps",
}
"""Where else JSON is read, and why that is nobody's text."""


def readers() -> set[str]:
    """Files that read JSON by themselves, however they import it."""
    found = set()
    for path in PLUGINS.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and node.attr in ("load", "loads", "JSONDecoder"):
                if isinstance(node.value, ast.Name) and node.value.id == "json":
                    found.add(str(path.relative_to(PLUGINS)))
            elif isinstance(node, ast.ImportFrom) and node.module in ("json", "json.decoder"):
                found.add(str(path.relative_to(PLUGINS)))
    return found


def test_json_of_others_is_read_in_one_place():
    assert readers() == {HOME, *OF_OUR_OWN}


def nested(levels: int) -> str:
    return "[" * levels + "]" * levels


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "line 1, column 1: Expecting value"),
        ('{"a" 1}', "line 1, column 6: Expecting ':' delimiter"),
        ("1" * 5000, "4300 digits"),
        ("1" * 21, "a number of 21 digits"),
        ("[1e400]", "the number 1e400"),
        ("NaN", "the number NaN"),
        ("[-Infinity]", "the number -Infinity"),
        ("[" * 100_000, "nested deeper than 64 levels"),
        (nested(65), "nested deeper than 64 levels"),
        ('{"a":' * 65 + "1" + "}" * 65, "nested deeper than 64 levels"),
        ('"\udcff"', "surrogates not allowed"),
        (b'"\xff"', "can't decode byte 0xff"),
        (json.dumps("x" * 100), "more than 100 bytes"),
    ],
)
def test_what_nobody_should_send_is_refused_with_its_name(text: str | bytes, reason: str):
    with pytest.raises(json_text.JsonError) as caught:
        json_text.read(text, "the answer", limit=100 if "100 bytes" in reason else json_text.LIMIT)
    assert reason in caught.value.reason
    assert str(caught.value) == f"the answer cannot be read: {caught.value.reason}"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (b"\xef\xbb\xbf{}", {}),
        ("\ufeff[]", []),
        ('{"a": 1, "a": 2}', {"a": 2}),
        ('{"a": null}', {"a": None}),
        ('"\\ud83d\\ude00 \\\\ud800"', "\U0001f600 \\ud800"),
        ('{"\\udc00\\ud83d": "\\ud83d\\ud83d\\ude00\\n"}', {"\ufffd\ufffd": "\ufffd\U0001f600\n"}),
        (str(2**64), 2**64),
        (f"-{2**63}", -(2**63)),
        ("1.5e300", 1.5e300),
    ],
)
def test_what_programs_write_is_read_as_they_read_it(text: str | bytes, value: object):
    assert json_text.read(text, "x") == value
    assert json_text.read(nested(64), "x")


def test_what_a_reader_may_ask_for():
    assert json_text.read('{"a": null, "b": [{"c": null}]}', "x", nulls=False) == {"b": [{}]}
    assert json_text.read("[Infinity, 1e400, 1%s]" % ("0" * 30), "x", any_number=True) == [
        float("inf"),
        float("inf"),
        10**30,
    ]


def test_a_file_is_read_up_to_its_limit(tmp_path):
    path = tmp_path / "x.json"
    path.write_text("[1]")
    assert json_text.read_file(path) == [1]
    with pytest.raises(json_text.JsonError, match=f"^{path} cannot be read: more than 2 bytes$"):
        json_text.read_file(path, limit=2)
    with pytest.raises(FileNotFoundError):
        json_text.read_file(tmp_path / "none")
