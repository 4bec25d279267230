# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module as Ansible runs it: options, results, and what its action plugin allows it in time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from ansible.module_utils.testing import patch_module_args
from ansible_collections.sparkfleet.vllm.plugins.action.spec_decode_bench import ActionModule
from ansible_collections.sparkfleet.vllm.plugins.module_utils._gate import docker_container
from ansible_collections.sparkfleet.vllm.plugins.modules import spec_decode_bench as module
from conftest import COLLECTIONS
from helpers.gate import MTP, FakeContainer
from helpers.stub_server import serving

KEY = "key-12345678"
SMALL = {"served_model": "m", "kinds": ["code"], "max_tokens": 200, "repeats": 1, "warmup": 0}


def run(capsys: pytest.CaptureFixture[str], args: dict[str, Any], check: bool = False) -> dict[str, Any]:
    with patch_module_args(args | {"_ansible_check_mode": check}), pytest.raises(SystemExit):
        module.main()
    return json.loads(capsys.readouterr().out)


@pytest.fixture
def container(monkeypatch: pytest.MonkeyPatch) -> FakeContainer:
    fake = FakeContainer()
    monkeypatch.setattr(docker_container, "DockerContainer", lambda name, secrets: fake)
    return fake


def test_a_measurement_has_what_its_page_says(
    container: FakeContainer, capsys: pytest.CaptureFixture[str]
) -> None:
    documented = yaml.safe_load(module.RETURN)
    with serving(name="m", api_key=KEY) as (_, url):
        given = {
            "base_url": url,
            "container": "vllm",
            "api_key": KEY,
            "speculation": MTP,
            "concurrency": [2, 1],
        }
        result = run(capsys, SMALL | given)
    assert result["changed"] is False
    assert KEY not in json.dumps(result)
    assert set(result) - {"changed", "invocation"} == set(documented) - {"diagnosis", "log_tail"}
    measurement = result["measurement"]
    contains = documented["measurement"]["contains"]
    assert set(measurement) == set(contains)
    assert [set(load) for load in measurement["loads"]] == [set(contains["loads"]["contains"])] * 2
    assert measurement["container"] == result["container"]


def test_without_a_container_no_engine_is_asked(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nonexistent.sock")
    with serving(name="m", speculation=None) as (_, url):
        result = run(capsys, SMALL | {"base_url": url})
    assert result["measurement"]["container"] is None
    assert run(capsys, SMALL | {"container": "vllm"})["diagnosis"] == "engine_unreachable"


WITHOUT_DOCKER = """
import json, sys
sys.modules["docker"] = None
from ansible.module_utils.testing import patch_module_args
from ansible_collections.sparkfleet.vllm.plugins.modules import spec_decode_bench
with patch_module_args(json.loads(sys.argv[1])):
    spec_decode_bench.main()
"""


def without_docker(args: dict[str, Any]) -> dict[str, Any]:
    """As on a host that has no docker package."""
    command = [sys.executable, "-c", WITHOUT_DOCKER, json.dumps(args)]
    environment = os.environ | {"PYTHONPATH": str(COLLECTIONS)}
    run = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert run.stdout, run.stderr
    return json.loads(run.stdout)


def test_only_a_container_needs_the_docker_package() -> None:
    with serving(name="m", speculation=None) as (_, url):
        measured = without_docker(SMALL | {"base_url": url})
        refused = without_docker(SMALL | {"base_url": url, "container": "vllm"})
    assert measured["measurement"]["served_model"] == "m"
    assert refused["failed"] and "Python library (docker)" in refused["msg"]


def test_fail(container: FakeContainer, capsys: pytest.CaptureFixture[str]) -> None:
    with serving(name="m", foreign=100) as (_, url):
        result = run(capsys, SMALL | {"base_url": url, "container": "vllm", "speculation": MTP})
    assert (result["failed"], result["diagnosis"]) == (True, "foreign_traffic")
    assert "measurement" not in result
    assert "do next: " in result["msg"]


def test_check_mode_measures_nothing(container: FakeContainer, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, SMALL | {"container": "vllm"}, check=True)["skipped"] is True
    assert container.looks == 0


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"kinds": []}, "kinds"),
        ({"kinds": ["verse"]}, "kinds"),
        ({"kinds": ["code", "code"]}, "kinds"),
        ({"max_tokens": 1}, "max_tokens"),
        ({"warmup": -1}, "warmup"),
        ({"repeats": 0}, "repeats"),
        ({"concurrency": []}, "concurrency"),
        ({"concurrency": [1, 1]}, "concurrency"),
        ({"concurrency": [1, 65]}, "concurrency[1]"),
        ({"measure_timeout": 0}, "measure_timeout"),
        ({"base_url": "127.0.0.1:8000"}, "base_url"),
        ({"speculation": {"num_speculative_tokens": 0}}, "speculation.num_speculative_tokens"),
        ({"foreign_traffic": "ignore"}, "foreign_traffic"),
    ],
)
def test_bad_options(
    container: FakeContainer, capsys: pytest.CaptureFixture[str], options: dict[str, Any], named: str
) -> None:
    result = run(capsys, SMALL | {"container": "vllm"} | options)
    assert result["failed"] is True
    assert named in result["msg"]
    assert container.looks == 0


def test_the_idle_limit_is_for_a_server_with_a_log() -> None:
    limits = {"ready_timeout": 900, "idle_timeout": 5, "measure_timeout": 60}
    params = {"served_model": "m", "speculation": None, "foreign_traffic": "fail", **limits}
    assert module.wanted(params | {"container": "vllm"}).idle_timeout == 5
    assert module.wanted(params | {"container": None}).idle_timeout == 900


@pytest.mark.parametrize(("args", "expected"), [({}, 1200 + 3600 + 900), ({"measure_timeout": 60}, 2160)])
def test_the_job_may_take_what_its_limits_say(
    args: dict[str, Any], expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def run_with_progress(action: Any, name: str, args: Any, task_vars: Any, timeout: int) -> dict[str, Any]:
        asked.append(timeout)
        return {}

    action = ActionModule.__new__(ActionModule)
    action._task = SimpleNamespace(args=args, async_val=0, check_mode=False)
    monkeypatch.setattr(
        "ansible_collections.sparkfleet.vllm.plugins.plugin_utils.under_lock.UnderLock.run", lambda *_: {}
    )
    monkeypatch.setattr(
        "ansible_collections.sparkfleet.vllm.plugins.plugin_utils.asks_server.run_with_progress",
        run_with_progress,
    )
    action.run(None, {})
    assert asked == [expected]
