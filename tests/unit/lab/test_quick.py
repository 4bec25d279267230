# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is kept of an archive's modules is their code: a process with quick/ in its PYTHONPATH does what one without it does."""

from __future__ import annotations

import marshal
import os
import re
import shutil
import subprocess
import sys
import zipfile
from importlib.util import source_hash
from pathlib import Path

import pytest
from helpers.playbook import QUICK, environment, run_playbook
from helpers.recipe import ROOT

SOURCE = "WHAT = 'first'\ndef where():\n    return where.__code__.co_filename\n"
ASK = (
    "import sys; sys.path.insert(0, sys.argv[1]); import made.part; print(made.part.WHAT, made.part.where())"
)


class Place:
    """A checkout with nothing in it but quick/, and an archive."""

    def __init__(self, root: Path) -> None:
        self.root, self.quick = root, root / "tests/unit/helpers/quick"
        shutil.copytree(QUICK, self.quick, ignore=shutil.ignore_patterns("__pycache__"))
        self.kept = root / ".cache/bytecode" / str(sys.implementation.cache_tag) / "made.part.py"

    def run(self, code: str, *arguments: str | Path) -> list[str]:
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments],
            env=os.environ | {"PYTHONPATH": str(self.quick)}, capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert done.stderr == ""
        return done.stdout.split()

    def imported(self, source: str, archive: str = "made.zip") -> str:
        """WHAT of a module, imported from an archive; its code says that it is from there."""
        path = self.root / archive
        with zipfile.ZipFile(path, "w") as opened:
            opened.writestr("made/__init__.py", "")
            opened.writestr("made/part.py", source)
        what, where = self.run(ASK, path)
        assert where == str(path / "made/part.py")
        return what


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_what_is_kept_is_used_for_the_same_source_alone(place: Place) -> None:
    assert place.imported(SOURCE) == "first"
    assert place.kept.is_file()
    other = SOURCE.replace("first", "kept")
    place.kept.write_bytes(
        source_hash(SOURCE.encode()) + marshal.dumps(compile(other, "elsewhere.py", "exec"))
    )
    assert place.imported(SOURCE, "moved.zip") == "kept"
    assert place.imported(SOURCE.replace("first", "later")) == "later"
    assert place.imported(SOURCE) == "first"


@pytest.mark.parametrize("length", [0, 3, 8, 20])
def test_half_of_it_is_nothing(place: Place, length: int) -> None:
    assert place.imported(SOURCE) == "first"
    place.kept.write_bytes(place.kept.read_bytes()[:length])
    assert place.imported(SOURCE) == "first"


def test_a_process_that_can_keep_nothing_does_without(place: Place) -> None:
    (place.root / ".cache").touch()
    assert place.imported(SOURCE) == "first"


def test_a_fork_leaves_the_memory_of_its_parent_alone(place: Place) -> None:
    code = "import gc, os\nif not os.fork():\n    print(gc.get_freeze_count(), flush=True); os._exit(0)\nos.wait()"
    (frozen,) = place.run(code)
    assert int(frozen) > 1000


def test_tests_that_run_a_playbook_have_it() -> None:
    """But for one, which shows what Ansible does of itself."""
    starts = re.compile(r"""with_name\(["']ansible-playbook""")
    found = {path.name for path in (ROOT / "tests/unit").rglob("*.py") if starts.search(path.read_text())}
    assert found == {"playbook.py", "test_background_runs.py"}


def test_a_run_and_the_modules_that_it_executes_have_it(tmp_path: Path) -> None:
    """As every test that runs ansible-playbook gets it from helpers/playbook.py, and with what a test gives."""
    (tmp_path / "library").mkdir()
    (tmp_path / "library/told.py").write_text(
        "import json, os, zipimport\nfrom ansible.module_utils.basic import AnsibleModule\n"
        "AnsibleModule({}).exit_json(quick=zipimport._compile_source.__module__, given=os.environ['GIVEN'])\n"
    )
    (tmp_path / "play.yml").write_text("""
- hosts: localhost
  gather_facts: false
  tasks:
    - told:
      register: told
    - debug: {msg: "SEEN {{ told.quick }} {{ told.given }}"}
""")
    known = f"ansible_python_interpreter={sys.executable}"
    done = run_playbook(
        "-i", "localhost,", "-c", "local", "-e", known, "play.yml", cwd=tmp_path, GIVEN="this"
    )
    assert "SEEN sitecustomize this" in done.stdout, done.stdout + done.stderr
    assert environment(tmp_path)["PYTHONPATH"].split(os.pathsep) == [str(QUICK), str(tmp_path)]
