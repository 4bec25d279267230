"""A set of files for HAProxy: checked before it has its place, there as a whole, and followed; beside stand-ins of HAProxy and systemd."""

from __future__ import annotations

import grp
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.sparkfleet.vllm.plugins.modules import gateway_config
from helpers.haproxy_stub import Master, serving

GOOD = {"haproxy.cfg": "global\n", "keys.map": "a b\n"}
SECRETS = {"tls.pem": "PRIVATE\n"}
PROGRAM = """#!/bin/sh
grep -q broken "$3" || exit 0
echo "[ALERT] (7) : config : parsing [$3:1] : unknown keyword" >&2
exit 1
"""
SYSTEMCTL = """#!/bin/sh
echo "$1" >> {log}
[ "$1" = reload ] && [ -e {log}.fails ] && {{ echo "Job failed" >&2; exit 1; }}
[ "$1" = is-active ] && [ -e {log}.stopped ] && exit 3
exit 0
"""


class Host:
    """A gateway with the set in `folder`, an HAProxy that runs, and what systemd was asked."""

    def __init__(self, root: Path, capsys: pytest.CaptureFixture[str], master: Master) -> None:
        self.root, self.capsys, self.master = root, capsys, master
        self.folder = root / "etc/sparkfleet"
        self.log = root / "systemctl.log"
        self.comes = True
        self.script("haproxy", PROGRAM)
        self.script("bin/systemctl", SYSTEMCTL.format(log=self.log))
        master.before = self.follow

    def script(self, name: str, text: str) -> None:
        path = self.root / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)

    def asked(self) -> list[str]:
        return self.log.read_text().split() if self.log.exists() else []

    def follow(self, command: str) -> None:
        """A reload brings a new worker each time, if one comes at all."""
        pid = str(7 + self.asked().count("reload"))
        if self.comes and pid not in self.master.workers:
            self.master.workers = {pid: {}, **self.master.workers}

    def call(self, **given: Any) -> dict[str, Any]:
        options = {
            "directory": str(self.folder),
            "files": GOOD,
            "group": grp.getgrgid(os.getegid()).gr_name,
            "program": str(self.root / "haproxy"),
            "socket": self.master.socket,
            "timeout": 1,
            "_ansible_diff": True,
            **given,
        }
        with patch_module_args(options), pytest.raises(SystemExit):
            gateway_config.main()
        found: dict[str, Any] = json.loads(self.capsys.readouterr().out)
        return found

    def there(self) -> dict[str, str]:
        return {path.name: path.read_text() for path in self.folder.iterdir()} if self.folder.exists() else {}

    def left_over(self) -> list[str]:
        return [path.name for path in self.folder.parent.iterdir() if path != self.folder]


@pytest.fixture
def host(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Host]:
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    with serving(Master({"7": {}})) as master:
        yield Host(tmp_path, capsys, master)


def test_the_set_is_there_and_followed_once(host: Host) -> None:
    result = host.call()
    assert (result["changed"], result["reloaded"], result["changed_files"]) == (True, True, list(GOOD))
    assert host.there() == GOOD
    assert host.left_over() == []
    assert host.asked() == ["is-active", "reload"]
    again = host.call()
    assert (again["changed"], again["reloaded"], again["diff"]) == (False, False, [])
    assert host.asked() == ["is-active", "reload"]


def test_what_is_not_in_the_set_goes(host: Host) -> None:
    host.call()
    (host.folder / "old.map").write_text("x")
    assert host.call()["changed_files"] == ["old.map"]
    assert host.there() == GOOD
    assert host.left_over() == []


def test_a_mode_that_somebody_changed_is_mended(host: Host) -> None:
    host.call()
    (host.folder / "keys.map").chmod(0o666)
    result = host.call()
    assert result["changed_files"] == ["keys.map"]
    assert (result["diff"][0]["before_header"], result["diff"][0]["after_header"]) == (
        "keys.map (0666)",
        "keys.map (0640)",
    )
    assert stat.S_IMODE((host.folder / "keys.map").stat().st_mode) == 0o640
    assert stat.S_IMODE(host.folder.stat().st_mode) == 0o750


def test_a_secret_is_for_root_alone_and_in_no_result(host: Host) -> None:
    result = host.call(secrets=SECRETS)
    assert stat.S_IMODE((host.folder / "tls.pem").stat().st_mode) == 0o600
    assert (host.folder / "tls.pem").read_text() == SECRETS["tls.pem"]
    changed = host.call(secrets={"tls.pem": "ANOTHER\n"})
    assert changed["changed_files"] == ["tls.pem"]
    assert "PRIVATE" not in json.dumps([result, changed])
    assert "ANOTHER" not in json.dumps(changed)


@pytest.mark.parametrize("check", [True, False])
def test_a_broken_set_replaces_nothing(host: Host, check: bool) -> None:
    host.call()
    result = host.call(files=GOOD | {"haproxy.cfg": "broken\n"}, _ansible_check_mode=check)
    assert "expected a configuration that HAProxy accepts, seen: [ALERT]" in result["msg"]
    assert "unknown keyword; do: correct the inputs" in result["msg"]
    assert host.there() == GOOD
    assert host.left_over() == []
    assert host.asked() == ["is-active", "reload"]


def test_a_check_shows_and_changes_nothing(host: Host) -> None:
    result = host.call(_ansible_check_mode=True)
    assert (result["changed"], result["reloaded"]) == (True, False)
    assert result["diff"][0] == {
        "before_header": "haproxy.cfg (absent)",
        "after_header": "haproxy.cfg (0640)",
        "before": "",
        "after": "global\n",
    }
    assert (host.there(), host.asked()) == ({}, [])


def test_a_check_before_the_package_is_there(host: Host) -> None:
    (host.root / "haproxy").unlink()
    assert host.call(group="no-such-group", _ansible_check_mode=True)["changed"] is True
    assert "do: install the package" in host.call(group="no-such-group")["msg"]


def test_an_haproxy_that_does_not_run_is_not_reloaded(host: Host) -> None:
    Path(f"{host.log}.stopped").touch()
    result = host.call()
    assert (result["changed"], result["reloaded"], host.asked()) == (True, False, ["is-active"])
    host.log.unlink()
    assert host.call(files={"haproxy.cfg": "# 2\n"}, reload=False)["changed"] is True
    assert host.asked() == []


@pytest.mark.parametrize("fault", ["fails", "no worker"])
def test_a_set_that_haproxy_does_not_follow_goes_back(host: Host, fault: str) -> None:
    host.call()
    host.comes = False
    if fault == "fails":
        Path(f"{host.log}.fails").touch()
    result = host.call(files=GOOD | {"haproxy.cfg": "# another\n"})
    assert ("Job failed" if fault == "fails" else "no new worker within 1 s") in result["msg"]
    assert f"The former set is back in {host.folder}" in result["msg"]
    assert host.there() == GOOD
    assert host.left_over() == []
    assert host.asked().count("reload") == 3
