# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""No parser of outside text raises anything but what it declares, and none is without a property. `make fuzz` goes on for longer."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path
from types import CodeType, FrameType

import pytest
from conftest import COLLECTIONS, ROOT
from fuzz.parsers import PARSERS, Parser

INPUTS = 150
"""Of each parser, the same ones every time. All of them take half a minute of one core."""
PATIENCE = 600
PLUGINS = ROOT / "plugins"
READERS = {"json_text", "text_string_to_metric_families", "safe_load", "get_single_node"}
"""What reads text: a function that calls one of these is a parser."""
VERBS = ("parse", "read", "decode", "recalled", "heard")
"""What a parser is called."""
NO_PARSER = {
    "action/run_lock.py:reading": "formats what is read",
    "module_utils/_common/bounded.py:Session.read": "bytes of an answer; whoever asks for them parses them",
    "module_utils/_gate/container.py:read_file": "hashes bytes, whatever they are",
    "module_utils/_gate/observed.py:Life._read_evidence": "gives lines on: log of a container, log of vLLM",
    "module_utils/_gate/observed.py:Life._read_log": "gives lines on: log of a container, log of vLLM",
    "module_utils/_models/hub.py:Hub._list": "gives an answer on: listing of the Hub",
    "module_utils/_recipe/document.py:_integer": "a number of a recipe that has none in its good form",
    "module_utils/_run/detached.py:in_background": "an order of the controller's own",
    "module_utils/_run/lock_file.py:_asked": "an order of the controller's own",
    "module_utils/_swarm/peer.py:_read": "a pipe of its own",
    "modules/snapshot_peer.py:parse": "options, whose form the module declares",
    "plugin_utils/recipes.py:read": "gives a text on: recipe",
    "plugin_utils/report/base.py:readable": "facts of a host; test_base_readable.py breaks each leaf of them",
}
"""Called like one, or calls a reader, and needs no property; why."""


def _qualified(tree: ast.AST, inside: str = "") -> dict[str, ast.FunctionDef]:
    found: dict[str, ast.FunctionDef] = {}
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef):
            found[inside + node.name] = node
        if isinstance(node, ast.ClassDef):
            found |= _qualified(node, f"{inside}{node.name}.")
    return found


def _calls_a_reader(function: ast.FunctionDef) -> bool:
    called = [node.func for node in ast.walk(function) if isinstance(node, ast.Call)]
    names = {
        name
        for func in called
        for node in ast.walk(func)
        for name in (getattr(node, "id", ""), getattr(node, "attr", ""))
    }
    return bool(names & READERS)


def parsers() -> set[str]:
    """`file:function` of every parser in plugins/, by what it calls and by its name."""
    found = set()
    for path in PLUGINS.rglob("*.py"):
        for name, function in _qualified(ast.parse(path.read_text())).items():
            verb = name.rpartition(".")[2].strip("_").startswith(VERBS)
            if verb or _calls_a_reader(function):
                found.add(f"{path.relative_to(PLUGINS)}:{name}")
    return found


def entered() -> set[str]:
    """`file:function` of all that the properties run into with a good answer."""
    seen: set[CodeType] = set()

    def note(frame: FrameType, event: str, _argument: object) -> None:
        if event == "call":
            seen.add(frame.f_code)

    for parser in PARSERS:
        sys.setprofile(note)
        try:
            parser.read(parser.good)
        finally:
            sys.setprofile(None)
    home = COLLECTIONS / "ansible_collections/sparkfleet/vllm/plugins"
    return {
        f"{Path(code.co_filename).relative_to(home)}:{code.co_qualname}"
        for code in seen
        if Path(code.co_filename).is_relative_to(home)
    }


@pytest.mark.parametrize("parser", PARSERS, ids=lambda parser: parser.name)
def test_a_good_answer_is_taken(parser: Parser):
    parser.read(parser.good)


def test_every_parser_has_a_property():
    assert parsers() - entered() == set(NO_PARSER)


def test_another_answer_raises_only_what_is_declared():
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("run.py"), "inputs", str(INPUTS)],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{INPUTS * len(PARSERS):,} inputs, 0 crashes" in done.stdout
