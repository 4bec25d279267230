# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The play of README.md, as it is written there, on this host: it brings the stub's recipe, changes nothing the second time, and goes
back where the gate says no. The stub is told by extra variables to be the recipe, and to die.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).resolve().parents[1]
ROOT = HERE.parents[1]


@pytest.fixture(scope="module")
def play(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Runs it, and gives the exit status and what was printed."""
    folder = tmp_path_factory.mktemp("list")
    blocks = re.findall(r"^```yaml\n(.*?)^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    (text,) = [block for block in blocks if "roles:" in block]
    (folder / "play.yml").write_text(text)

    def run(**variables: Any) -> tuple[int, str]:
        command = [
            str(Path(sys.executable).with_name("ansible-playbook")),
            f"--inventory={HERE / 'inventory'}",
            f"--extra-vars=@{ROOT / 'molecule/lab/stub/vars.yml'}",
            f"--extra-vars={json.dumps({'recipe_lock_dir': str(folder), **variables})}",
            str(folder / "play.yml"),
        ]
        environment = os.environ | {
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".cache/collections"),
        }
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=False, timeout=600
        )
        return done.returncode, done.stdout + done.stderr

    return run


@pytest.fixture
def seen(sudo: Any) -> Any:
    """The recorded state, and the container's id and start."""

    def look() -> tuple[dict[str, Any], str]:
        state: dict[str, Any] = json.loads(sudo("cat /var/lib/sparkfleet/state.json"))
        return state, sudo("docker inspect --format '{{.Id}} {{.State.StartedAt}}' sparkfleet-vllm")

    return look


def test_it_brings_the_recipe_and_a_second_run_changes_nothing(play: Any, seen: Any) -> None:
    code, output = play()
    assert code == 0, output
    first = seen()
    assert first[0]["current"]["serving"]["recipe"] == "stub"
    assert first[0]["current"]["gate"]["drafts"] >= 200
    code, output = play()
    assert code == 0 and re.search(r"changed=0 .*failed=0", output), output
    assert seen() == first


def test_a_server_that_dies_gives_way_to_what_passed_before(play: Any, seen: Any) -> None:
    state, server = seen()
    code, output = play(vllm_serve_extra_environment={"STUB_DIE": "start"})
    assert code == 2, output
    assert "mat1 and mat2 shapes cannot be multiplied" in output
    assert "Rolled back to what passed before, and it passes again." in output
    assert seen()[0]["current"]["serving"] == state["current"]["serving"]
    assert seen()[1] != server
