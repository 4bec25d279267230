# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs of ansible-playbook: the program itself, with the configuration of this repository. quick/sitecustomize.py makes them cheaper."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from helpers.recipe import ROOT

PROGRAM = Path(sys.executable).with_name("ansible-playbook")
QUICK = Path(__file__).with_name("quick")
PATIENCE = 600
"""Seconds: for what never ends, not for what is slow."""


def environment(*path: Path, **given: str) -> dict[str, str]:
    """What a run gets from its environment: where it finds Python's own modules beyond the installed ones, and variables."""
    return os.environ | {
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        # As on a fleet: of a module no file is left behind, and no shell is started to make one.
        "ANSIBLE_PIPELINING": "1",
        "PYTHONPATH": os.pathsep.join(map(str, [QUICK, *path])),
        **given,
    }


def run_playbook(
    *arguments: str | Path, cwd: Path | None = None, **given: str
) -> subprocess.CompletedProcess[str]:
    """One run to its end. `given`: variables of its environment."""
    return subprocess.run(
        [PROGRAM, *arguments],
        cwd=cwd, env=environment(**given), capture_output=True, text=True, check=False, timeout=PATIENCE,
    )  # fmt: skip
