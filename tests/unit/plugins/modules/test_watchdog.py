# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The watchdog put on a host and taken away again: files, units, what is said, and what is never said."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.sparkfleet.vllm.plugins.module_utils._host import request, unit
from ansible_collections.sparkfleet.vllm.plugins.module_utils._watchdog import install
from ansible_collections.sparkfleet.vllm.plugins.modules import watchdog
from helpers import printed
from helpers import watchdog as helper
from helpers.watchdog import SECRET

UNITS = ["sparkfleet-watchdog.timer", "sparkfleet-watchdog.service"]
AGENT = ["sparkfleet-watchdog-agent.socket", "sparkfleet-watchdog-agent@.service"]


class Host:
    def __init__(self, spark: helper.Spark, capsys: pytest.CaptureFixture[str]) -> None:
        self.spark, self._capsys = spark, capsys
        self.programs, self.directory = spark.root / "opt/watchdog", spark.state / "watchdog"
        self.printed = ""

    def set_up(self, check: bool = False, **given: Any) -> dict[str, Any]:
        options = {"state_dir": str(self.spark.state), "python": sys.executable, "_ansible_diff": True}
        with (
            patch_module_args(options | given | {"_ansible_check_mode": check}),
            pytest.raises(SystemExit),
        ):
            watchdog.main()
        self.printed = self._capsys.readouterr().out
        return printed.result(self.printed)

    def files(self) -> set[str]:
        """All but what Python has compiled, and the unit of the server."""
        found = (
            path
            for folder in ("opt", "state", "units", "run")
            for path in (self.spark.root / folder).rglob("*")
        )
        names = {str(path.relative_to(self.spark.root)) for path in found if path.is_file()}
        return {name for name in names if "__pycache__" not in name} - {
            "state/state.json",
            f"units/{helper.NAME}.service",
        }


@pytest.fixture
def host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Host]:
    with helper.spark(tmp_path) as spark:
        (spark.state / "watchdog").rmdir()
        made = Host(spark, capsys)
        monkeypatch.setattr(install, "PROGRAMS", made.programs)
        monkeypatch.setattr(install, "RUN", tmp_path / "run")
        monkeypatch.setattr(request, "PATH", f"{spark.programs}:/usr/bin:/bin")
        monkeypatch.setattr(unit, "UNITS", spark.units)
        yield made


def test_set_up_once_and_then_nothing_changes(host: Host) -> None:
    done = host.set_up(mode="act", api_key=SECRET)
    assert (done["changed"], done["changes"]) == (True, ["program", "settings", "key", *UNITS])
    assert host.spark.ordered() == [
        "daemon-reload",
        "enable sparkfleet-watchdog.timer",
        "restart sparkfleet-watchdog.timer",
    ]
    again = host.set_up(mode="act", api_key=SECRET)
    assert (again["changed"], again["changes"], again["diff"]) == (False, [], [])
    assert len(host.spark.ordered()) == 3


def test_the_key_is_roots_alone_and_is_never_said(host: Host) -> None:
    for key in (SECRET, "another-key-of-it"):
        host.set_up(mode="act", api_key=key, check=True)
        assert key not in host.printed
        host.set_up(mode="act", api_key=key)
        assert key not in host.printed
        path = host.directory / "key"
        assert (path.read_text(), oct(path.stat().st_mode & 0o777)) == (key, "0o600")
    assert "another one" in host.printed
    assert oct(host.directory.stat().st_mode & 0o777) == "0o700"
    assert host.set_up(mode="act")["changes"] == ["key"]
    assert not path.exists()


def test_check_mode_writes_nothing_and_says_the_same(host: Host) -> None:
    before = host.files()
    wanted = host.set_up(mode="observe", agent_address="192.0.2.1", check=True)
    assert (host.files(), host.spark.ordered()) == (before, [])
    assert wanted["diff"] == host.set_up(mode="observe", agent_address="192.0.2.1")["diff"]
    assert host.set_up(mode="off", check=True)["changed"]
    assert "state/watchdog/config.json" in host.files()


def test_the_program_on_the_host_runs(host: Host) -> None:
    host.set_up(mode="act", api_key=SECRET)
    (folder,) = host.programs.iterdir()
    text = (host.spark.units / "sparkfleet-watchdog.service").read_text()
    assert f"ExecStart={sys.executable} -I {folder} {host.spark.state}\n" in text
    assert list(folder.rglob("*.pyc"))
    environment = {"RUNTIME_DIRECTORY": str(host.spark.runtime)}
    done = subprocess.run(
        [sys.executable, "-I", str(folder), str(host.spark.state)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads((host.directory / "verdict.json").read_text())
    # This machine has no engine with such a container, or none at all.
    assert (found["mode"], found["verdict"]) in [("act", "stopped"), ("observe", "unknown")]
    assert (host.spark.runtime / "agent").read_text() == "up\n"


def test_a_program_that_was_edited_or_is_of_another_release_is_replaced(host: Host) -> None:
    host.set_up()
    (folder,) = host.programs.iterdir()
    (folder / "sparkfleet/_watchdog/judge.py").write_text("raise SystemExit\n")
    (host.programs / "0123456789abcdef").mkdir()
    assert host.set_up()["changes"] == ["program"]
    assert list(host.programs.iterdir()) == [folder]
    assert "raise SystemExit" not in (folder / "sparkfleet/_watchdog/judge.py").read_text()


def test_a_python_that_does_not_run_leaves_no_program(host: Host) -> None:
    failed = host.set_up(python="/nowhere/python")
    assert failed["failed"] and "/nowhere/python" in failed["msg"]
    assert list(host.programs.iterdir()) == []
    assert not (host.spark.units / UNITS[0]).exists()


def test_the_agent_comes_and_goes(host: Host) -> None:
    host.set_up()
    assert host.set_up(agent_address="2001:db8::1")["changes"] == AGENT
    assert "ListenStream=[2001:db8::1]:8621\n" in (host.spark.units / AGENT[0]).read_text()
    assert host.spark.ordered()[-1] == "restart sparkfleet-watchdog-agent.socket"
    assert host.set_up(agent_address="2001:db8::1")["changes"] == []
    assert host.set_up()["changes"] == AGENT
    assert host.spark.ordered()[-2:] == ["disable --now sparkfleet-watchdog-agent.socket", "daemon-reload"]
    assert not (host.spark.units / AGENT[1]).exists()


def test_a_timer_that_somebody_stopped_is_started(host: Host) -> None:
    host.set_up()
    (host.spark.systemd / "enabled-sparkfleet-watchdog.timer").unlink()
    assert host.set_up()["changes"] == ["sparkfleet-watchdog.timer"]
    assert host.set_up()["changes"] == []


def test_off_removes_everything_and_nothing_else(host: Host) -> None:
    before = host.files()
    host.set_up(mode="act", api_key=SECRET, agent_address="192.0.2.1")
    (host.directory / "evidence/20261130T000000Z-wedged").mkdir(parents=True)
    (host.directory / "evidence/20261130T000000Z-wedged/log").write_text("text")
    (host.spark.root / "run/sparkfleet-watchdog").mkdir()
    (host.spark.root / "run/sparkfleet-watchdog/agent").write_text("up\n")
    done = host.set_up(mode="off")
    assert done["changes"] == ["program", "settings", "key", UNITS[0], AGENT[0], UNITS[1], AGENT[1]]
    assert host.files() == before
    assert not host.directory.exists() and not host.programs.exists()
    assert host.set_up(mode="off")["changed"] is False


def test_off_is_also_what_yaml_makes_of_it(host: Host) -> None:
    assert host.set_up(mode=False)["changed"] is False
    assert host.files() == set()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"agent_address": "spark-1.example"}, "agent_address: expected an IP address"),
        ({"agent_address": "192.0.2.1", "agent_port": 22}, "agent_port: expected a TCP port"),
        ({"agent_address": "192.0.2.1\nExecStart=x"}, "agent_address: expected an IP address"),
        ({"interval": 1}, "interval: expected 5 to 120, seen 1"),
        ({"restarts": -1}, "restarts: expected from 0 on, seen -1"),
        ({"python": "/opt/x y/python"}, "python: expected a whole path"),
    ],
)
def test_what_no_unit_could_have_is_refused_before_anything_changes(
    host: Host, given: dict[str, Any], said: str
) -> None:
    failed = host.set_up(**given)
    assert failed["failed"] and said in failed["msg"]
    assert (host.files(), host.spark.ordered()) == (set(), [])
