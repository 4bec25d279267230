# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The archive, installed in a directory of one's own: its playbooks by their full names, with one's own inventory, recipe and
lock, on the oldest ansible-core that is supported and on the newest.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from places import BIN, HOSTS, call, look, release


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    made = tmp_path_factory.mktemp("person") / "fleet"
    installed = release(made)
    before = digest(installed)
    yield made
    assert digest(installed) == before, "a run writes nothing into the collection"


def digest(root: Path) -> dict[str, str]:
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in root.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


@pytest.fixture(params=[BIN], ids=["oldest"])
def ansible_playbook(request: pytest.FixtureRequest, home: Path):
    def run(name: str, *options: str) -> str:
        words = [
            request.param / "ansible-playbook",
            f"sparkfleet.vllm.{name}",
            "-i",
            "inventory/mine",
            *options,
        ]
        return call(*words, within=home, ANSIBLE_NOCOLOR="1")

    return run


def recap(output: str) -> dict[str, tuple[int, int, int]]:
    found = re.findall(
        r"^(\S+) +: ok=\d+ +changed=(\d+) +unreachable=(\d+) +failed=(\d+)", output, re.MULTILINE
    )
    return {
        name: (int(changed), int(unreachable), int(failed)) for name, changed, unreachable, failed in found
    }


def test_site_serves_and_a_second_run_changes_nothing(home: Path, ansible_playbook) -> None:
    ansible_playbook("site")
    assert (home / "inventory/recipes/mine.lock.yml").exists()
    before = {name: look(name)["container"] for name in HOSTS}
    output = ansible_playbook("site")
    assert recap(output) == dict.fromkeys(HOSTS, (0, 0, 0)), output
    assert len(re.findall(r"^inst-\d .* pass$", output, re.MULTILINE)) == len(HOSTS), output
    assert {name: look(name)["container"] for name in HOSTS} == before


def test_verify_and_drift(ansible_playbook, tmp_path: Path) -> None:
    for output in (ansible_playbook("verify"), ansible_playbook("drift", "-e", f"drift_output={tmp_path}")):
        assert recap(output) == dict.fromkeys(HOSTS, (0, 0, 0)), output
        assert "DEPRECATION" not in output.upper()
    assert (tmp_path / "drift.html").exists()
