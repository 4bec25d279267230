# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An upgrade of the collection: a host that 0.1.0 deployed goes on with this release, and nothing that serves is started again.

One story: 0.1.0 deploys, the archive of this release takes its place, and the same inventory, recipe and lock go on.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from places import BIN, HOST, ROOT, call, install, look, on, release
from testing import until

FORMER = "b2b19ecce859296f10347d8f5ae8d8e54e251bb7"
"""The commit of 0.1.0."""
NAME = "sparkfleet-vllm"
UNIT = f"systemctl show --property=ActiveState,MainPID {NAME}"


def playbook(home: Path, name: str, *options: str) -> str:
    words = [BIN / "ansible-playbook", f"sparkfleet.vllm.{name}", "-i", "inventory/mine", *options]
    return call(*words, within=home, ANSIBLE_NOCOLOR="1")


def changed(output: str) -> int:
    (found,) = re.findall(rf"^{HOST} +: ok=\d+ +changed=(\d+) +unreachable=0 +failed=0", output, re.MULTILINE)
    return int(found)


def life() -> tuple[str, str]:
    """The very process."""
    container = look()["container"]
    return container["id"], container["started"]


def policy() -> str:
    return str(look()["container"]["spec"]["host"]["RestartPolicy"]["Name"])


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """0.1.0, installed in a directory with somebody's inventory."""
    made = tmp_path_factory.mktemp("upgrade")
    archive = subprocess.run(["git", "archive", FORMER], cwd=ROOT, capture_output=True, check=False)
    assert archive.returncode == 0, (
        f"the checkout needs its history: git fetch --unshallow\n{archive.stderr.decode()}"
    )
    (made / "source").mkdir()
    subprocess.run(["tar", "-x"], cwd=made / "source", input=archive.stdout, check=True)
    release(made / "fleet", made / "source")
    yield made / "fleet"


@pytest.fixture(scope="module")
def former(home: Path) -> dict[str, Any]:
    """What 0.1.0 deployed and recorded; the collection is this release from then on, and the recipe asks for what its shipped ones do."""
    playbook(home, "site")
    seen = look()
    assert policy() == "on-failure"
    install(home, home / "collections")
    recipe = home / "inventory/recipes/mine.yml"
    recipe.write_text(
        recipe.read_text().replace("  arguments:\n", "  arguments:\n    shutdown-timeout: 60\n", 1)
    )
    return seen


@pytest.fixture(scope="module")
def upgraded(home: Path, former: dict[str, Any]) -> str:
    """The first run of this release."""
    return playbook(home, "site")


@pytest.mark.usefixtures("upgraded")
def test_the_server_is_not_started_again(former):
    assert life() == (former["container"]["id"], former["container"]["started"])


def test_it_is_measured_and_its_unit_watches_it_from_then_on(former, upgraded):
    assert re.search(rf"^{HOST} .* pass$", upgraded, re.MULTILINE), upgraded
    unit = dict(line.split("=") for line in on(UNIT).split())
    assert unit["ActiveState"] == "active" and int(unit["MainPID"]) > 0
    assert policy() == "no"
    assert look()["state"] == former["state"], "what is recorded stays"


@pytest.mark.usefixtures("upgraded")
def test_a_second_run_changes_nothing_and_drift_is_clean(home):
    assert changed(playbook(home, "site")) == 0
    assert "1 host, 1 clean" in playbook(home, "drift")


@pytest.mark.usefixtures("upgraded")
def test_it_comes_back_when_it_dies(former):
    before = life()
    on(f"kill -9 $(docker inspect --format '{{{{.State.Pid}}}}' {NAME})")
    until(lambda: life() != before and look()["drafts"] is not None)
    assert life()[0] == former["container"]["id"]


@pytest.mark.usefixtures("upgraded")
def test_all_of_this_release_can_be_had_at_once(home, former):
    playbook(home, "site", "-e", '{"vllm_serve_keep_recorded": false}')
    assert life()[0] != former["container"]["id"]
    assert any("/cache/compiled/" in bind for bind in look()["container"]["spec"]["host"]["Binds"])
    # And back to what 0.1.0 had started.
    playbook(home, "rollback")
    assert any(
        bind.endswith("/cache/vllm:/root/.cache/vllm:rw")
        for bind in look()["container"]["spec"]["host"]["Binds"]
    )
