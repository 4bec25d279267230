"""What the module sees on a gateway, beside a stub of HAProxy's socket."""

from __future__ import annotations

import grp
import json
import os
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.sparkfleet.vllm.plugins.module_utils._gateway import file_set, haproxy
from ansible_collections.sparkfleet.vllm.plugins.module_utils._host import unit
from ansible_collections.sparkfleet.vllm.plugins.modules import gateway_drift
from helpers.haproxy_stub import Master, StubServer, serving

GROUP = grp.getgrgid(os.getegid()).gr_name
FILES = {"haproxy.cfg": "global\n", "keys.map": "hash anna\n"}
SECRETS = {"tls.pem": "THE-PRIVATE-KEY\n"}


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module, on a gateway that is as it should be."""
    monkeypatch.setattr(gateway_drift, "Haproxy", lambda path: haproxy.Haproxy(path, seconds=0.2))
    running = unit.Unit(text="", enabled="enabled", active="active")
    monkeypatch.setattr(unit, "look", lambda name: running)
    wanted = file_set.wanted(FILES, SECRETS, os.getegid())
    file_set.write(tmp_path / "set", wanted, os.getegid())
    (tmp_path / "unit").write_text("[Unit]\n")
    (tmp_path / "haproxy").touch()

    def ask(socket: str, **given: Any) -> dict[str, Any]:
        options = {
            "directory": str(tmp_path / "set"),
            "files": FILES,
            "secrets": SECRETS,
            "group": GROUP,
            "program": str(tmp_path / "haproxy"),
            "texts": {str(tmp_path / "unit"): "[Unit]\n"},
            "absent": [str(tmp_path / "left")],
            "state_dir": str(tmp_path / "state"),
            "socket": socket,
            **given,
        }
        with patch_module_args(options), pytest.raises(SystemExit):
            gateway_drift.main()
        text = capsys.readouterr().out
        assert "PRIVATE" not in text
        result: dict[str, Any] = json.loads(text)
        assert result["changed"] is False
        drift: dict[str, Any] = result["drift"]
        return drift

    return ask


def kinds(drift: dict[str, Any]) -> list[str]:
    return [finding["kind"] for finding in drift["findings"]]


def test_a_gateway_as_it_should_be(call: Any) -> None:
    with serving(Master({"7": {"chat/spark-1": StubServer()}})) as master:
        drift = call(master.socket)
    assert (drift["findings"], drift["unknown"], drift["known"]) == ([], {}, {})
    assert not any(" set server " in command for command in master.asked)


def test_what_was_done_by_hand_is_found(call: Any, tmp_path: Path) -> None:
    (tmp_path / "set/haproxy.cfg").write_text("global\n  maxconn 3\n")
    (tmp_path / "set/tls.pem").chmod(0o644)
    (tmp_path / "set/more.cfg").touch()
    (tmp_path / "unit").unlink()
    (tmp_path / "unit").symlink_to("/etc/shadow")
    (tmp_path / "left").symlink_to("nowhere")
    with serving(Master({"7": {"chat/spark-1": StubServer("maint")}})) as master:
        drift = call(master.socket)
    seen = {finding["expected"].split("/")[-1]: finding["seen"] for finding in drift["findings"]}
    assert kinds(drift).count("gateway-file") == 5
    assert seen["haproxy.cfg as the inventory makes it"] == "another content, from line 2 on"
    assert seen["tls.pem as the inventory makes it"] == "mode 0644, expected 0600"
    assert seen["unit as the inventory makes it"] == "not there"
    assert seen["left"] == "it is there"
    assert kinds(drift)[-1] == "server-out"


def test_without_haproxy_and_without_its_group(call: Any, tmp_path: Path) -> None:
    (tmp_path / "haproxy").unlink()
    assert kinds(call("/nowhere", group="nobody-has-it")) == ["gateway-missing"]


def test_a_socket_that_does_not_answer(call: Any) -> None:
    drift = call("/nowhere/master.sock")
    assert drift["findings"] == [] and "/nowhere/master.sock" in drift["unknown"]["gateway"]


def test_a_run_that_works_there(call: Any, tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    run = {
        "version": 1,
        "run": "1",
        "holder": "me@c",
        "controller": "",
        "since": "now",
        "pid": 1,
        "lease": 120,
    }
    (tmp_path / "state/run.json").write_text(json.dumps(run))
    with serving(Master({"7": {}})) as master:
        assert call(master.socket)["known"]["held"]["holder"] == "me@c"
