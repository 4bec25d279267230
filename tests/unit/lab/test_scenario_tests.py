# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The tests of the scenarios can be loaded by pytest as molecule starts it. That they pass takes a lab."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
SCENARIOS = sorted(path.parent.name for path in (ROOT / "molecule").glob("*/tests"))


def verifier() -> list[str]:
    """The options of pytest that say how tests are loaded, as molecule gives them."""
    options = yaml.safe_load((ROOT / ".config/molecule/config.yml").read_text())["verifier"]["options"]
    named = {name: str(value) for name, value in options.items() if name in ("p", "hosts", "import-mode")}
    return [
        word
        for name, value in named.items()
        for word in (f"-{name}" if len(name) == 1 else f"--{name}", value)
    ]


@pytest.mark.parametrize("name", SCENARIOS)
def test_its_tests_find_what_they_import(name: str) -> None:
    folder = ROOT / "molecule" / name
    loaded = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "--connection", "ansible",
         f"--ansible-inventory={folder / 'inventory'}", *verifier(), folder / "tests"],
        cwd=ROOT,
        env=os.environ | {
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "MOLECULE_PROJECT_DIRECTORY": str(ROOT),
            "MOLECULE_SCENARIO_DIRECTORY": str(folder),
        },
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    # A scenario may read what only its converge has made.
    assert loaded.returncode == 0 or "E   FileNotFoundError" in loaded.stdout, loaded.stdout
    assert "E   ModuleNotFoundError" not in loaded.stdout
