# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a snapshot of a lab host is made from: with one file too few, tests would go on with a host of yesterday."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "molecule/lab/snapshot"))

import inputs

UTILS = "ansible_collections.sparkfleet.vllm.plugins.module_utils"


@pytest.fixture
def collection(tmp_path, monkeypatch):
    """Writes files of a collection, and gives what one of them comes to."""
    monkeypatch.setattr(inputs, "ROOT", tmp_path)

    def write(files, start):
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return [str(path.relative_to(tmp_path)) for path in inputs.inputs([tmp_path / start])]

    return write


def test_a_playbook_comes_to_its_roles_their_plugins_and_what_those_import(collection):
    files = {
        "play.yml": "roles: [{role: sparkfleet.vllm.one}]",
        "roles/one/tasks/main.yml": "- sparkfleet.vllm.look:\n- debug: {msg: '{{ x | sparkfleet.vllm.shown }}'}",
        "roles/one/templates/unit.j2": "[Unit]",
        "roles/one/README.md": "text",
        "roles/other/tasks/main.yml": "- sparkfleet.vllm.touch:",
        "plugins/modules/look.py": f"from {UTILS} import _wanted\nimport json",
        "plugins/action/look.py": "import os",
        "plugins/modules/touch.py": "",
        "plugins/filter/show.py": 'from ..module_utils.probed import probes\nFILTERS = {"shown": probes.shown}',
        "plugins/filter/other.py": 'FILTERS = {"hidden": str}',
        "plugins/module_utils/_wanted.py": "",
        "plugins/module_utils/_unused.py": "",
        "plugins/module_utils/probed/__init__.py": "",
        "plugins/module_utils/probed/probes.py": "from .. import _deep\nfrom . import disk",
        "plugins/module_utils/probed/disk.py": "",
        "plugins/module_utils/_deep.py": "",
    }
    assert collection(files, "play.yml") == [
        "play.yml",
        "plugins/action/look.py",
        "plugins/filter/show.py",
        "plugins/module_utils/_deep.py",
        "plugins/module_utils/_wanted.py",
        "plugins/module_utils/probed/__init__.py",
        "plugins/module_utils/probed/disk.py",
        "plugins/module_utils/probed/probes.py",
        "plugins/modules/look.py",
        "roles/one/tasks/main.yml",
        "roles/one/templates/unit.j2",
    ]


def test_a_host_that_is_set_up_comes_to_what_sets_it_up():
    script = ROOT / "molecule/lab/snapshot/inputs.py"
    said = subprocess.run(
        [sys.executable, script, script.with_name("set-up.yml")], capture_output=True, text=True, check=True
    )
    found = said.stdout.split()
    expected = {
        "roles/prerequisites/tasks/install.yml",
        "roles/prerequisites/defaults/main.yml",
        "plugins/modules/spark_info.py",
    }
    assert expected <= set(found)
    assert not [path for path in found if "model_sync" in path]
    assert all((ROOT / path).is_file() for path in found)
