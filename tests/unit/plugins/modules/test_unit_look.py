# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A look at a member: what its supervisor says, what the engine says, and how long it waits for both to be well."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.sparkfleet.vllm.plugins.module_utils._host.engine_socket import EngineError
from ansible_collections.sparkfleet.vllm.plugins.modules import unit_look as module
from helpers import printed

GENERATION = "26b73c5de516ae26"


class Spark:
    """A host whose supervisor says something else each time that the module pauses."""

    def __init__(
        self, state: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        self.state, self.capsys = state, capsys
        self.says: list[str] = []
        self.engine: Any = {"State": {"Status": "running"}}
        self.asked: list[str] = []
        self.paused = 0
        (state / "unit").mkdir(parents=True)
        monkeypatch.setattr(module, "look", self.look)
        monkeypatch.setattr(module.time, "sleep", self.pause)
        monkeypatch.setattr(module.engine_socket, "get", self.ask)
        self._look = look

    def look(self, folder: Path) -> dict[str, Any]:
        if self.says:
            self.write(self.says.pop(0))
        return self._look(folder)

    def pause(self, _seconds: float) -> None:
        self.paused += 1

    def write(self, phase: str, age: float = 0.0) -> None:
        found = {
            "version": 1,
            "unit": "pair",
            "rank": 1,
            "nodes": 2,
            "generation": GENERATION,
            "phase": phase,
            "since": 1.0,
            "at": time.time() - age,
            "restarts": 0,
            "why": "",
            "members": {"0": {"phase": phase, "generation": GENERATION, "age": 0.1}},
        }
        (self.state / "unit/status.json").write_text(json.dumps(found))

    def ask(self, _socket: str, url: str, timeout: float = 5, expected: Any = None) -> Any:
        self.asked.append(url)
        if isinstance(self.engine, EngineError):
            raise self.engine
        return self.engine

    def call(self, **given: Any) -> dict[str, Any]:
        with patch_module_args({"state_dir": str(self.state), **given}), pytest.raises(SystemExit):
            module.main()
        return printed.result(self.capsys.readouterr().out)


look = module.look


@pytest.fixture
def spark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Spark:
    return Spark(tmp_path, monkeypatch, capsys)


def test_it_says_what_the_supervisor_and_the_engine_say(spark: Spark):
    spark.write("running")
    found = spark.call(container="vllm one")
    assert (found["changed"], found["phase"], found["generation"]) == (False, "running", GENERATION)
    assert (found["rank"], found["nodes"], found["container"], found["problem"]) == (1, 2, "running", "")
    assert 0 <= found["age"] < 10
    assert spark.asked == ["/containers/vllm%20one/json"]


def test_a_supervisor_that_is_not_at_work_is_a_finding_and_no_failure(spark: Spark):
    found = spark.call()
    assert (found["phase"], found["container"], spark.asked) == ("", "", [])
    assert found["problem"].endswith("seen none")
    spark.write("running", age=60)
    found = spark.call()
    assert (found["phase"], found["generation"]) == ("", GENERATION)
    assert "that says running" in found["problem"]


def test_it_waits_until_the_member_runs(spark: Spark):
    spark.says = ["waiting", "starting", "running", "ending"]
    assert spark.call(wait=60)["phase"] == "running"
    assert spark.paused == 2


def test_it_waits_for_no_unit_that_is_down(spark: Spark):
    spark.says = ["waiting", "down", "running"]
    assert spark.call(wait=60)["phase"] == "down"


def test_it_waits_no_longer_than_it_is_told_to(spark: Spark):
    spark.says = ["waiting", "running"]
    assert spark.call(wait=0)["phase"] == "waiting"


def test_a_container_that_is_not_there_is_a_finding_and_no_failure(spark: Spark):
    spark.engine = EngineError("no such container", 404)
    assert spark.call(container="vllm")["container"] == ""


def test_an_engine_that_does_not_answer_fails_the_look(spark: Spark):
    spark.engine = EngineError("/var/run/docker.sock: Connection refused")
    found = spark.call(container="vllm")
    assert found["failed"] is True
    assert "seen: /var/run/docker.sock: Connection refused; do: systemctl status docker" in found["msg"]
