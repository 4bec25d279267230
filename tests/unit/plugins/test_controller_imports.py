# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the controller imports. Ansible forks a worker for each host and task, and each imports anew what it runs there: half a second
for docker and requests, which only hosts need."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from conftest import COLLECTIONS

PLUGINS = Path(__file__).resolve().parents[3] / "plugins"
HEAVY = ("docker", "requests", "urllib3", "huggingface_hub", "libtorrent")
ON_THE_CONTROLLER = sorted(
    path.relative_to(PLUGINS).with_suffix("")
    for folder in ("action", "filter", "plugin_utils")
    for path in (PLUGINS / folder).rglob("*.py")
)


@pytest.fixture(scope="module")
def heavy() -> dict[str, list[str]]:
    """{file below plugins: the heavy libraries that it imports and ansible-core does not}, each asked in a process forked for it."""
    code = (
        "import importlib, os, sys\n"
        "import ansible.plugins.action, ansible.plugins.filter, jinja2, yaml\n"
        "before = set(sys.modules)\n"
        "for name in sys.argv[1:]:\n"
        "    if not os.fork():\n"
        "        importlib.import_module('ansible_collections.sparkfleet.vllm.plugins.' + name)\n"
        "        print(name, *sorted({each.partition('.')[0] for each in set(sys.modules) - before}), flush=True)\n"
        "        os._exit(0)\n"
        "    os.wait()\n"
    )
    names = [".".join(path.parts) for path in ON_THE_CONTROLLER]
    run = subprocess.run(
        [sys.executable, "-c", code, *names],
        env={"PYTHONPATH": str(COLLECTIONS)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert not run.stderr
    return {
        name.replace(".", "/"): [each for each in HEAVY if each in imported]
        for name, *imported in map(str.split, run.stdout.splitlines())
    }


@pytest.mark.parametrize("path", ON_THE_CONTROLLER, ids=str)
def test_what_runs_on_the_controller_imports_no_library_of_the_hosts(
    path: Path, heavy: dict[str, list[str]]
) -> None:
    assert heavy[str(path)] == []
