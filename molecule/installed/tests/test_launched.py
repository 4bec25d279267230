# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Job templates of controller/, launched on a host that is set up and serves nothing.

Each test asks for what it begins with, a lock or a deployment, and leaves the host as it found it or as the project says.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
from launch import Controller, Job, injected
from places import HOST, LAB, call, look, on, project

HUB_TOKEN, API_KEY = "hf_of_the_fleet_and_of_nobody_else", "key-of-the-clients"
SECRETS = injected("Hugging Face Hub token", hub_token=HUB_TOKEN) | injected("vLLM API key", api_key=API_KEY)


@pytest.fixture(scope="module")
def controller(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Controller]:
    private = tmp_path_factory.mktemp("controller")
    home = project(private)
    yield Controller(private, home, {"spark_controller_locks": str(home / "inventory/locks")})
    call("rm", "-rf", private, within=LAB)


@pytest.fixture(scope="module")
def launch(controller: Controller) -> Any:
    return partial(controller.launch, environment=SECRETS)


def flat(artifacts: dict[str, Any]) -> None:
    """What every later node of a workflow gets as extra variables: few, small, and of names that are nobody else's."""
    assert all(re.match(r"(sparkfleet|rollback)_[a-z_]+$", name) for name in artifacts), artifacts
    for value in artifacts.values():
        values = value if isinstance(value, list) else [value]
        assert all(isinstance(entry, str | int | bool) for entry in values), artifacts
    assert len(json.dumps(artifacts)) < 1024


@pytest.fixture(scope="module")
def locked(controller: Controller, launch: Any) -> Path:
    """The lock in the project."""
    launch("Sparks: lock")
    return controller.project / "inventory/locks/mine.lock.yml"


@pytest.fixture(scope="module")
def deployed(locked: Path, launch: Any) -> Job:
    """The first job that deployed."""
    return cast(Job, launch("Sparks: site"))


def test_lock_is_what_the_next_job_reads(locked: Path) -> None:
    assert locked.exists()


def test_without_a_lock_in_the_project_nothing_is_touched(locked: Path, launch: Any) -> None:
    before = look()
    aside = locked.rename(locked.with_suffix(".aside"))
    job = launch("Sparks: site", ok=False)
    aside.rename(locked)
    assert job.status == "failed" and "spark_locked" in job.output
    assert look() == before


def test_site_deploys_shows_progress_and_hands_on_who_changed(deployed: Job) -> None:
    flat(deployed.artifacts)
    # Nothing served there that a rollback could bring back.
    assert deployed.artifacts == {"rollback_hosts": [], "sparkfleet_passed": [HOST], "sparkfleet_failed": []}
    said = [line for line in deployed.lines() if line.startswith(f"{HOST}: ")]
    assert any(re.search(r"\d+ (drafts|of \d+)", line) for line in said), said
    assert any("MB" in line for line in said), said
    assert look()["drafts"] >= 200
    assert any(re.match(r"host +image +body", line) for line in deployed.lines())


@pytest.mark.usefixtures("deployed")
def test_the_secrets_reach_what_needs_them() -> None:
    ask = "curl -s -o /dev/null -w '%{http_code}' http://127.0.0.1:8000/v1/models"
    assert on(ask) == "401"
    assert on(f"{ask} -H 'Authorization: Bearer {API_KEY}'") == "200"
    assert API_KEY not in on("cat /proc/*/cmdline | tr '\\0' ' '")
    assert API_KEY not in on("cat /var/lib/sparkfleet/*.json")


@pytest.mark.usefixtures("deployed")
def test_a_second_launch_changes_nothing(launch: Any) -> None:
    before = look()["container"]
    job: Job = launch("Sparks: site")
    assert not job.changed
    assert job.artifacts == {"rollback_hosts": [], "sparkfleet_passed": [HOST], "sparkfleet_failed": []}
    assert look()["container"] == before


@pytest.mark.usefixtures("deployed")
def test_drift_names_the_host_that_somebody_edited(launch: Any) -> None:
    policy = look()["container"]["spec"]["host"]["RestartPolicy"]
    on("docker update --restart=always sparkfleet-vllm")
    job: Job = launch("Sparks: drift", ok=False)
    on(f"docker update --restart={policy['Name']}:{policy['MaximumRetryCount']} sparkfleet-vllm")
    flat(job.artifacts)
    assert job.artifacts == {"sparkfleet_drifted": [HOST]}
    assert any("restart-policy" in line for line in job.lines())
    assert not job.changed


@pytest.mark.usefixtures("deployed")
def test_verify_names_the_host_that_does_not_pass(launch: Any) -> None:
    on("docker exec sparkfleet-vllm touch /tmp/never")
    job: Job = launch("Sparks: verify", ok=False)
    on("docker exec sparkfleet-vllm rm /tmp/never")
    flat(job.artifacts)
    assert job.artifacts == {"sparkfleet_passed": [], "sparkfleet_failed": [HOST]}
    assert not job.changed


@pytest.mark.usefixtures("deployed")
def test_a_job_that_is_canceled_leaves_nothing_half_done(controller: Controller, launch: Any) -> None:
    """In the middle of a change that somebody committed, by the signal that a controller sends. The next job finishes."""
    before = look()
    (controller.project / "inventory/mine/group_vars/sparks/zz.yml").write_text(
        "vllm_serve_extra_environment: {STUB_READY_AFTER: '10'}\n"
    )

    def changing() -> bool:
        seen = look()["container"]
        return bool(seen and seen["id"] != before["container"]["id"])

    job: Job = launch("Sparks: site", cancel=changing, ok=False)
    assert job.status == "canceled"
    assert look()["state"] == before["state"], "nothing is on record that has not passed"
    job = launch("Sparks: site")
    # It served something else before. It no longer did when this job began, and its record still knows.
    assert job.artifacts == {"rollback_hosts": [HOST], "sparkfleet_passed": [HOST], "sparkfleet_failed": []}
    seen = look()
    assert "STUB_READY_AFTER=10" in seen["container"]["spec"]["env"]
    assert json.loads(seen["state"])["current"]["serving"]["container"]["env"]["STUB_READY_AFTER"] == "10"
    assert seen["drafts"] >= 200


@pytest.mark.usefixtures("deployed")
def test_no_secret_is_left_anywhere(controller: Controller) -> None:
    """Of all the jobs so far: events, artifacts, output, and what stayed in the project. Not in `command`, in which ansible-runner
    notes the environment that it was given.
    """
    files = [path for path in controller.private.rglob("*") if path.is_file() and path.name != "command"]
    assert len(files) > 100 * len(controller.jobs) / 2
    for path in files:
        text = path.read_bytes()
        assert HUB_TOKEN.encode() not in text and API_KEY.encode() not in text, path
