"""The program of the series as the module puts it on a host: it runs there without Ansible, once, and goes without a trace."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.sparkfleet.vllm.plugins.module_utils._host import unit
from ansible_collections.sparkfleet.vllm.plugins.module_utils._host.request import ProbeError, run_command
from ansible_collections.sparkfleet.vllm.plugins.module_utils._series import install
from ansible_collections.sparkfleet.vllm.plugins.modules import host_series as module
from helpers import printed


class Host:
    """A folder in place of the host, and a stand-in of systemctl."""

    def __init__(self, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.root, self.capsys = root, capsys
        self.units, self.state, self.out = root / "units", root / "state", root / "out"
        for folder in (self.units, self.state, self.out):
            folder.mkdir()
        self.asked: list[str] = []
        self.started = self.broken = False

    def run(self, argv: list[str], timeout: float) -> str:
        if argv[0] != "systemctl":
            return run_command(argv, timeout)
        if argv[1] == "show":
            on = ("enabled", "active") if self.started else ("disabled", "inactive")
            return f"UnitFileState={on[0]}\nActiveState={on[1]}\n"
        if self.broken:
            raise ProbeError("systemctl exited 1: Job failed")
        self.asked.append(" ".join(argv[1:]))
        self.started = argv[1] in ("enable", "restart") or (self.started and argv[1] != "disable")
        return ""

    def call(self, check: bool = False, **given: Any) -> dict[str, Any]:
        options = {"state_dir": str(self.state), "folder": str(self.out), "python": sys.executable, **given}
        with patch_module_args(options | {"_ansible_check_mode": check}), pytest.raises(SystemExit):
            module.main()
        return printed.result(self.capsys.readouterr().out)


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Host:
    made = Host(tmp_path, capsys)
    monkeypatch.setattr(unit, "UNITS", made.units)
    monkeypatch.setattr(install, "PROGRAMS", tmp_path / "programs")
    for each in (unit, install):
        monkeypatch.setattr(each, "run_command", made.run)
    return made


def test_the_program_runs_without_ansible_and_without_this_collection(host: Host) -> None:
    assert host.call()["changed"] is True
    service = (host.units / install.SERVICE).read_text()
    (line,) = [line for line in service.splitlines() if line.startswith("ExecStart=")]
    argv = line.partition("=")[2].split()
    nowhere = {"PATH": "/nonexistent"}
    # Without the packages of this environment: Ansible is not found.
    done = subprocess.run(
        [argv[0], "-S", *argv[1:]], env=nowhere, capture_output=True, text=True, check=False
    )
    assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr
    assert "sparkfleet_run_held 0\n" in (host.out / "sparkfleet.prom").read_text()
    absent = subprocess.run([argv[0], "-S", "-c", "import ansible"], capture_output=True, check=False)
    assert absent.returncode != 0


def test_a_second_run_changes_nothing(host: Host) -> None:
    first = host.call()
    assert host.asked == ["daemon-reload", f"enable {install.TIMER}", f"restart {install.TIMER}"]
    second = host.call()
    assert (second["changed"], second["diff"], second["program"]) == (False, [], first["program"])
    assert len(host.asked) == 3


def test_a_check_changes_nothing_and_shows_what_it_would(host: Host) -> None:
    found = host.call(check=True)
    assert found["changed"] is True
    assert {each["after_header"] for each in found["diff"]} == {
        "program", "timer", install.SERVICE, install.TIMER
    }  # fmt: skip
    assert (list(host.units.iterdir()), host.asked) == ([], [])


def test_a_program_that_somebody_altered_is_written_anew(host: Host) -> None:
    digest = host.call()["program"]
    path = install.PROGRAMS / digest / "__main__.py"
    good = path.read_text()
    path.write_text("raise SystemExit(7)\n")
    assert host.call()["changed"] is True
    assert path.read_text() == good


def test_another_interval_starts_the_timer_anew(host: Host) -> None:
    host.call()
    host.asked.clear()
    assert host.call(interval=30)["changed"] is True
    assert host.asked == ["daemon-reload", f"restart {install.TIMER}"]
    assert "OnUnitActiveSec=30\n" in (host.units / install.TIMER).read_text()


def test_it_goes_without_a_trace(host: Host) -> None:
    host.call()
    for name in ("sparkfleet.prom", "sparkfleet-gpu.prom", "other.prom"):
        (host.out / name).write_text("")
    assert host.call(state="absent")["changed"] is True
    assert [path.name for path in host.out.iterdir()] == ["other.prom"]
    assert (list(host.units.iterdir()), install.PROGRAMS.exists()) == ([], False)
    assert host.call(state="absent")["changed"] is False


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"interval": 1}, "interval: expected 5 to 3600 seconds, seen 1"),
        ({"folder": "/a b"}, "folder: expected a whole path"),
        ({"state_dir": "/x%h"}, "state_dir: expected a whole path"),
    ],
)
def test_what_no_unit_is_made_of_touches_nothing(host: Host, given: dict[str, Any], said: str) -> None:
    found = host.call(**given)
    assert found["failed"] is True
    assert said in found["msg"]
    assert list(host.units.iterdir()) == []


def test_a_systemd_that_refuses_fails_the_host(host: Host) -> None:
    host.broken = True
    found = host.call()
    assert found["failed"] is True
    assert (
        "seen: systemctl exited 1: Job failed; do: systemctl status sparkfleet-series.timer" in found["msg"]
    )
    assert json.dumps(found).count("Traceback") == 0
