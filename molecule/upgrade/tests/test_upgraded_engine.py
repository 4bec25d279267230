# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host whose engine moves to its other image store, and back: refused while it serves, then served again from each.

One story, on an engine that keeps its images in containerd.
"""

from __future__ import annotations

import json
import re
import subprocess
from typing import Any

import pytest
import testing
from places import HOST, LAB, ROOT, SCENARIO, on

NAME = "sparkfleet-vllm"
SETTING = "features.containerd-snapshotter"
STUB = {
    "spark_recipe": str(ROOT / "molecule/lab/stub/recipe/stub.yml"),
    "recipe_lock_dir": str(LAB / "upgrade"),
    "drift_output": str(LAB / "upgrade"),
}
TO_OVERLAY2: dict[str, Any] = {"prerequisites_daemon_config": {"features": {"containerd-snapshotter": False}}}


def playbook(name: str, *options: str, passes: bool = True, **extra: Any) -> str:
    """What it printed, as one line: messages are wrapped."""
    done: subprocess.CompletedProcess[str] = testing.play(
        testing.PLAYBOOKS / f"{name}.yml", SCENARIO / "inventory", *options, **STUB, **extra
    )
    output = done.stdout + done.stderr
    assert (done.returncode == 0) is passes, output
    return " ".join(output.split())


def unchanged(output: str) -> bool:
    return re.search(rf"{HOST} : ok=\d+ changed=0 unreachable=0 failed=0", output) is not None


def in_containerd() -> bool:
    return "io.containerd.snapshotter" in on("docker info --format '{{ json .DriverStatus }}'")


def served() -> dict[str, Any]:
    """The container that serves."""
    (seen,) = json.loads(on(f"docker inspect {NAME}"))
    assert seen["State"]["Running"], seen["State"]
    on("curl -sSf http://127.0.0.1:8000/v1/models")
    return dict(seen)


@pytest.fixture(scope="module")
def first() -> dict[str, Any]:
    """What serves before anybody thinks of another store."""
    playbook("site")
    if not in_containerd():
        pytest.skip("this lab has no engine that keeps images in containerd")
    return served()


@pytest.fixture(scope="module")
def refused(first: dict[str, Any]) -> str:
    return playbook("site", passes=False, **TO_OVERLAY2)


@pytest.fixture(scope="module")
def moved(refused: str) -> dict[str, Any]:
    """What serves after the move, as the documentation tells it."""
    playbook("stop")
    playbook("site", **TO_OVERLAY2)
    return served()


@pytest.fixture(scope="module")
def back(moved: dict[str, Any]) -> dict[str, Any]:
    """Somebody changes the store by hand, under a server, and a run mends what that leaves."""
    on('sed -i \'s/"containerd-snapshotter": false/"containerd-snapshotter": true/\' /etc/docker/daemon.json')
    told = playbook("drift", passes=False)
    assert "engine-not-restarted" in told and SETTING in told, told
    served()
    on("systemctl restart docker")
    assert in_containerd()
    playbook("site")
    return served()


def test_a_move_is_refused_while_it_serves_and_its_cost_is_told(first, refused):
    for words in (
        "it would stop sparkfleet-vllm",
        "is pulled again before anything serves",
        "playbooks/stop.yml --limit",
    ):
        assert words in refused, refused
    assert served()["State"]["StartedAt"] == first["State"]["StartedAt"]
    assert in_containerd()


def test_a_stopped_host_is_moved_and_serves_from_the_other_store(first, moved):
    assert not in_containerd()
    assert moved["Id"] != first["Id"]
    assert unchanged(playbook("site", **TO_OVERLAY2))
    assert "1 host, 1 clean" in playbook("drift", **TO_OVERLAY2)


def test_a_move_by_hand_ends_in_a_host_that_serves(back):
    assert in_containerd()
    assert unchanged(playbook("site"))
    assert "1 host, 1 clean" in playbook("drift")
