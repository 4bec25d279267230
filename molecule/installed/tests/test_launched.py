# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Job templates of controller/, launched in turn on hosts that nothing was deployed on."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
from launch import Controller, Job, injected
from places import HOSTS, LAB, call, look, on, project

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


def test_without_a_lock_in_the_project_nothing_is_touched(launch: Any) -> None:
    job = launch("Sparks: site", ok=False)
    assert job.status == "failed" and "spark_locked" in job.output
    assert all(not look(name)["container"] for name in HOSTS)


def test_lock_is_what_the_next_job_reads(controller: Controller, launch: Any) -> None:
    launch("Sparks: lock")
    assert (controller.project / "inventory/locks/mine.lock.yml").exists()


def test_site_deploys_shows_progress_and_hands_on_who_changed(launch: Any) -> None:
    job: Job = launch("Sparks: site")
    flat(job.artifacts)
    # Nothing served there that a rollback could bring back.
    assert job.artifacts == {"rollback_hosts": [], "sparkfleet_passed": [*HOSTS], "sparkfleet_failed": []}
    for name in HOSTS:
        said = [line for line in job.lines() if line.startswith(f"{name}: ")]
        assert any(re.search(r"\d+ (drafts|of \d+)", line) for line in said), said
        assert any("MB" in line for line in said), said
        assert look(name)["drafts"] >= 200
    assert any(re.match(r"host +image +body", line) for line in job.lines())


def test_the_secrets_reach_what_needs_them(launch: Any) -> None:
    for name in HOSTS:
        ask = "curl -s -o /dev/null -w '%{http_code}' http://127.0.0.1:8000/v1/models"
        assert on(name, ask) == "401"
        assert on(name, f"{ask} -H 'Authorization: Bearer {API_KEY}'") == "200"
        assert API_KEY not in on(name, "cat /proc/*/cmdline | tr '\\0' ' '")
        assert API_KEY not in on(name, "cat /var/lib/sparkfleet/*.json")


def test_a_second_launch_changes_nothing(launch: Any) -> None:
    before = {name: look(name)["container"] for name in HOSTS}
    job: Job = launch("Sparks: site")
    assert not job.changed
    assert job.artifacts == {"rollback_hosts": [], "sparkfleet_passed": [*HOSTS], "sparkfleet_failed": []}
    assert {name: look(name)["container"] for name in HOSTS} == before


def test_drift_names_the_host_that_somebody_edited(launch: Any) -> None:
    on(HOSTS[1], "docker update --restart=always sparkfleet-vllm")
    job: Job = launch("Sparks: drift", ok=False)
    flat(job.artifacts)
    assert job.artifacts == {"sparkfleet_drifted": [HOSTS[1]]}
    assert any("restart-policy" in line for line in job.lines())
    assert not job.changed


def test_verify_names_the_host_that_does_not_pass(launch: Any) -> None:
    on(HOSTS[1], "docker exec sparkfleet-vllm touch /tmp/never")
    job: Job = launch("Sparks: verify", ok=False)
    on(HOSTS[1], "docker exec sparkfleet-vllm rm /tmp/never")
    flat(job.artifacts)
    assert job.artifacts == {"sparkfleet_passed": [HOSTS[0]], "sparkfleet_failed": [HOSTS[1]]}
    assert not job.changed


def test_a_job_that_is_canceled_leaves_nothing_half_done(controller: Controller, launch: Any) -> None:
    """In the middle of a change that somebody committed, by the signal that a controller sends. The next job finishes."""
    before = {name: look(name) for name in HOSTS}
    canary = HOSTS[0]
    (controller.project / "inventory/mine/group_vars/sparks/zz.yml").write_text(
        "vllm_serve_extra_environment: {STUB_READY_AFTER: '10'}\n"
    )

    def changing() -> bool:
        seen = look(canary)["container"]
        return bool(seen and seen["id"] != before[canary]["container"]["id"])

    job: Job = launch("Sparks: site", cancel=changing, ok=False)
    assert job.status == "canceled"
    assert look(HOSTS[1])["container"] == before[HOSTS[1]]["container"]
    for name in HOSTS:
        assert look(name)["state"] == before[name]["state"], "nothing is on record that has not passed"
    job = launch("Sparks: site")
    assert job.artifacts == {
        # Each served something else before. The canary no longer did when this job began, and its record still knows.
        "rollback_hosts": [*HOSTS], "sparkfleet_passed": [*HOSTS], "sparkfleet_failed": [],
    }  # fmt: skip
    for name in HOSTS:
        seen = look(name)
        assert "STUB_READY_AFTER=10" in seen["container"]["spec"]["env"]
        assert json.loads(seen["state"])["current"]["serving"]["container"]["env"]["STUB_READY_AFTER"] == "10"
        assert seen["drafts"] >= 200


def test_no_secret_is_left_anywhere(controller: Controller) -> None:
    """Of all the jobs above: events, artifacts, output, and what stayed in the project. Not in `command`, in which ansible-runner
    notes the environment that it was given.
    """
    files = [path for path in controller.private.rglob("*") if path.is_file() and path.name != "command"]
    assert len(files) > 500
    for path in files:
        text = path.read_bytes()
        assert HUB_TOKEN.encode() not in text and API_KEY.encode() not in text, path
