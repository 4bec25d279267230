# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module as Ansible runs it: options, results, and what its action plugin allows it in time."""

from __future__ import annotations

import json
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from ansible.module_utils.testing import patch_module_args
from ansible_collections.sparkfleet.vllm.plugins.action.spec_decode_assert import ActionModule
from ansible_collections.sparkfleet.vllm.plugins.module_utils._gate import docker_container
from ansible_collections.sparkfleet.vllm.plugins.module_utils._serve import verdict
from ansible_collections.sparkfleet.vllm.plugins.modules import spec_decode_assert as module
from helpers import printed
from helpers.gate import MTP, FakeContainer
from helpers.stub_server import serving

REQUIRED = {"container": "vllm", "served_model": "huihui-gemma4"}


def run(capsys: pytest.CaptureFixture[str], args: dict[str, Any], check: bool = False) -> dict[str, Any]:
    with patch_module_args(args | {"_ansible_check_mode": check}), pytest.raises(SystemExit):
        module.main()
    return printed.result(capsys.readouterr().out)


@pytest.fixture
def container(monkeypatch: pytest.MonkeyPatch) -> FakeContainer:
    fake = FakeContainer()
    monkeypatch.setattr(docker_container, "DockerContainer", lambda name, secrets: fake)
    return fake


@pytest.mark.parametrize("check", [False, True])
def test_pass(container: FakeContainer, capsys: pytest.CaptureFixture[str], check: bool) -> None:
    with serving(name="huihui-gemma4", api_key="key-12345678") as (_, url):
        result = run(
            capsys, REQUIRED | {"base_url": url, "api_key": "key-12345678", "speculation": MTP}, check
        )
    assert (result["changed"], result["verdict"], result["diagnosis"]) == (False, "pass", "ok")
    assert result["acceptance_rate"] == pytest.approx(0.69, abs=0.005)
    assert "key-12345678" not in json.dumps(result)


def test_every_result_is_documented(container: FakeContainer, capsys: pytest.CaptureFixture[str]) -> None:
    documented = yaml.safe_load(module.RETURN)
    with serving(name="huihui-gemma4") as (_, url):
        result = run(capsys, REQUIRED | {"base_url": url, "speculation": MTP})
    assert set(result) - {"changed", "invocation"} <= set(documented)
    assert set(documented) - set(result) == {"log_tail", "network"}


def test_a_server_without_speculation_is_held_to_no_drafts(
    container: FakeContainer, capsys: pytest.CaptureFixture[str]
) -> None:
    """As the record of a recipe without speculation has it."""
    with serving(name="huihui-gemma4", speculation=None) as (_, url):
        result = run(capsys, REQUIRED | {"base_url": url, "acceptance_floor": 0, "minimum_drafts": 0})
    assert (result["verdict"], "drafts" in result) == ("pass", False), result


def test_fail(container: FakeContainer, capsys: pytest.CaptureFixture[str]) -> None:
    with serving(name="huihui-gemma4", acceptance=0.0) as (_, url):
        result = run(capsys, REQUIRED | {"base_url": url, "speculation": MTP})
    assert result["failed"] is True
    assert (result["verdict"], result["diagnosis"]) == ("fail", "drafts_never_accepted")
    assert result["drafts"] > 200
    assert "do next: " in result["msg"]


def test_foreign_traffic_warns(
    container: FakeContainer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    warnings: list[str] = []
    monkeypatch.setattr(module.AnsibleModule, "warn", lambda self, text: warnings.append(text))
    with serving(name="huihui-gemma4", foreign=100) as (_, url):
        result = run(capsys, REQUIRED | {"base_url": url, "speculation": MTP, "foreign_traffic": "warn"})
    assert result["verdict"] == "pass"
    # On a busy machine, a second one may say that the speed is not measurable.
    assert len([warning for warning in warnings if "somebody else" in warning]) == 1


def test_no_engine(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nonexistent.sock")
    result = run(capsys, REQUIRED)
    assert (result["failed"], result["diagnosis"]) == (True, "engine_unreachable")


def test_a_numeric_string_counts_as_a_number(
    container: FakeContainer, capsys: pytest.CaptureFixture[str]
) -> None:
    """A template turns numbers of a dict into text; the check of positions must not stumble over that."""
    with serving(name="huihui-gemma4") as (_, url):
        result = run(
            capsys, REQUIRED | {"base_url": url, "speculation": MTP | {"num_speculative_tokens": "1"}}
        )
    assert result["verdict"] == "pass"


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"container": "", "ready_timeout": 1}, "container: expected its name"),
        ({"acceptance_floor": 1.5}, "acceptance_floor"),
        ({"acceptance_floor": -0.1}, "acceptance_floor"),
        ({"minimum_drafts": -1}, "minimum_drafts"),
        ({"minimum_drafts": 0, "speculation": MTP}, "minimum_drafts"),
        ({"minimum_drafts": 200}, "minimum_drafts: expected 0 without a speculation"),
        ({"acceptance_floor": 0.4}, "acceptance_floor: expected 0 without a speculation"),
        ({"max_tokens": 1}, "max_tokens"),
        ({"concurrency": 65}, "concurrency"),
        ({"ready_timeout": 0}, "ready_timeout"),
        ({"base_url": "127.0.0.1:8000"}, "base_url"),
        ({"files": [{"path": "/p", "md5": "XYZ"}]}, "files[0].md5"),
        ({"files": [{"path": "/p", "sha256": "1" * 32}]}, "files[0].sha256"),
        ({"files": [{"path": "p", "md5": "1" * 32}]}, "files[0].path"),
        ({"files": [{"path": "/p"}]}, "one of the following is required: md5, sha256"),
        ({"speculation": {"num_speculative_tokens": 0}}, "speculation.num_speculative_tokens"),
        ({"foreign_traffic": "ignore"}, "foreign_traffic"),
        ({"headless": True, "speculation": MTP}, "speculation: expected none with headless"),
        ({"image": "r/vllm:latest"}, "image: expected one by digest"),
    ],
)
def test_bad_options(
    container: FakeContainer, capsys: pytest.CaptureFixture[str], options: dict[str, Any], named: str
) -> None:
    result = run(capsys, REQUIRED | options)
    assert result["failed"] is True
    assert named in result["msg"]
    assert container.looks == 0


@pytest.mark.parametrize(
    ("args", "expected"),
    [({}, 1200 + 900 + 300), ({"ready_timeout": "60"}, 1260), ({"ready_timeout": "x"}, 2400)],
)
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


def test_the_verdict_lies_on_the_host_for_whoever_watches_it(
    container: FakeContainer, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "gate.json"
    told = REQUIRED | {"speculation": MTP, "verdict_path": str(path), "recipe": "gemma"}
    with serving(name="huihui-gemma4") as (_, url):
        run(capsys, told | {"base_url": url}, check=True)
        assert not path.exists()
        run(capsys, told | {"base_url": url, "verdict_path": str(tmp_path / "none" / "gate.json")})
        result = run(capsys, told | {"base_url": url})
    passed = verdict.parse(path.read_text())
    assert (passed["verdict"], passed["recipe"], passed["acceptance_floor"]) == ("pass", "gemma", 0.4)
    assert (passed["acceptance_rate"], passed["drafts"]) == (result["acceptance_rate"], result["drafts"])
    assert passed["passed_at"] == passed["at"] == pytest.approx(time.time(), abs=60)
    with serving(name="huihui-gemma4", acceptance=0.0) as (_, url):
        run(capsys, told | {"base_url": url})
    failed = verdict.parse(path.read_text())
    assert (failed["verdict"], failed["diagnosis"]) == ("fail", "drafts_never_accepted")
    assert failed["passed_at"] == passed["at"] < failed["at"]
    assert {each.name for each in tmp_path.iterdir()} == {"gate.json"}


def test_a_damaged_verdict_is_replaced_and_an_unwritable_one_fails_nothing(
    container: FakeContainer,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = tmp_path / "gate.json"
    path.write_text('{"version": 7')
    told = REQUIRED | {"speculation": MTP, "verdict_path": str(path)}
    warned: list[str] = []
    monkeypatch.setattr(module.AnsibleModule, "warn", lambda self, text: warned.append(text))
    with serving(name="huihui-gemma4") as (_, url):
        run(capsys, told | {"base_url": url})
        assert verdict.parse(path.read_text())["verdict"] == "pass"

        def full(*_: Any) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(module.files, "write", full)
        result = run(capsys, told | {"base_url": url})
    assert result["verdict"] == "pass"
    assert any("No space left on device" in text for text in warned)
