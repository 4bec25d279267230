# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Two workers: what the tests of a file share is made once, and other tests of a file run in both."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from helpers.recipe import ROOT

SHARED = """
import os, pytest

@pytest.fixture(scope="module")
def made():
    with open("made", "a") as file:
        file.write(os.environ["PYTEST_XDIST_WORKER"] + "\\n")

@pytest.mark.parametrize("number", range(12))
def test_it(made, number):
    pass
"""


@pytest.mark.parametrize(("scope", "workers"), [("module", 1), ("session", 2)])
def test_what_a_file_makes_for_its_tests_is_made_once(tmp_path: Path, scope: str, workers: int) -> None:
    (tmp_path / "conftest.py").write_text(
        f"import sys\nsys.path.insert(0, {str(ROOT / 'tests/unit')!r})\n"
        "from helpers.together import pytest_xdist_make_scheduler\n"
    )
    (tmp_path / "test_shared.py").write_text(SHARED.replace("module", scope))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-n", "2", "-p", "no:cacheprovider", f"--rootdir={tmp_path}"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert len((tmp_path / "made").read_text().split()) == workers
