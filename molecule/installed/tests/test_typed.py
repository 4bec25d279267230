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
from places import BIN, HOST, ROOT, call, look, release

NEWEST = ROOT / ".cache/newest/bin"
"""Of the newest ansible-core."""


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


def playbook(core: Path, home: Path, name: str, *options: str) -> str:
    words = [core / "ansible-playbook", f"sparkfleet.vllm.{name}", "-i", "inventory/mine", *options]
    output = call(*words, within=home, ANSIBLE_NOCOLOR="1")
    assert "DEPRECATION" not in output.upper()
    return output


def recap(output: str) -> dict[str, tuple[int, int, int]]:
    found = re.findall(
        r"^(\S+) +: ok=\d+ +changed=(\d+) +unreachable=(\d+) +failed=(\d+)", output, re.MULTILINE
    )
    return {
        name: (int(changed), int(unreachable), int(failed)) for name, changed, unreachable, failed in found
    }


def passed(output: str) -> list[str]:
    return re.findall(r"^(inst-\d) .* pass$", output, re.MULTILINE)


@pytest.fixture(scope="module")
def deployed(home: Path) -> str:
    """What the first site on the oldest said."""
    return playbook(BIN, home, "site")


def test_site_deploys_on_the_oldest(home: Path, deployed: str) -> None:
    """What a controller deployed before, if it did, had a key, and now there is none."""
    assert passed(deployed) == [HOST]
    assert not any(entry.startswith("VLLM_API_KEY=") for entry in look()["container"]["spec"]["env"])
    assert (home / "inventory/recipes/mine.lock.yml").exists()


@pytest.mark.usefixtures("deployed")
def test_site_changes_nothing_on_the_newest(home: Path) -> None:
    before = look()["container"]
    output = playbook(NEWEST, home, "site")
    assert passed(output) == [HOST]
    assert recap(output) == {HOST: (0, 0, 0)}, output
    assert look()["container"] == before


@pytest.mark.usefixtures("deployed")
def test_verify_and_drift_on_the_newest(home: Path, tmp_path: Path) -> None:
    verified = playbook(NEWEST, home, "verify")
    assert passed(verified) == [HOST], verified
    for output in (verified, playbook(NEWEST, home, "drift", "-e", f"drift_output={tmp_path}")):
        assert recap(output) == {HOST: (0, 0, 0)}, output
    assert (tmp_path / "drift.html").exists()
