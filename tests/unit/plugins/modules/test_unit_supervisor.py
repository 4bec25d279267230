# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The supervisor on a host, as the module puts it there: by content, once, with a key that nobody is shown."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.sparkfleet.vllm.plugins.modules import unit_supervisor as module
from helpers import printed

KEY = "0123456789abcdef" * 4


class Host:
    def __init__(self, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.store, self.state, self.capsys = root / "store", root / "state", capsys
        self.key = self.state / "unit/key"

    def call(self, check: bool = False, **given: Any) -> dict[str, Any]:
        options = {"store": str(self.store), "state_dir": str(self.state), **given}
        called = options | {"_ansible_check_mode": check}
        with patch_module_args(called), pytest.raises(SystemExit):
            module.main()
        return printed.result(self.capsys.readouterr().out)


@pytest.fixture
def host(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Host:
    return Host(tmp_path, capsys)


def test_the_head_makes_a_key_and_a_worker_takes_it(host: Host, tmp_path: Path):
    head = host.call(generate=True)
    assert head["changes"] == ["program", "folder", "key"]
    assert len(bytes.fromhex(head["key"])) == 32
    worker = Host(tmp_path / "worker", host.capsys)
    told = worker.call(key=head["key"])
    assert worker.key.read_text() == host.key.read_text() == head["key"] + "\n"
    assert "key" not in told and head["key"] not in json.dumps(told)
    assert told["sha256"] == head["sha256"]


def test_the_program_runs_where_nothing_but_python_is(host: Host):
    found = host.call(generate=True)
    assert Path(found["path"]) == host.store / "supervisor" / found["sha256"]
    done = subprocess.run(
        [sys.executable, "-I", "-S", found["path"], "--help"],
        env={},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, "--start-within" in done.stdout) == (0, True), done.stderr


def test_only_its_owner_enters_the_folder_and_reads_the_key(host: Host):
    found = host.call(generate=True)
    assert found["folder"] == str(host.key.parent)
    assert stat.S_IMODE(host.key.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(host.key.stat().st_mode) == 0o600


def test_a_second_run_changes_nothing_and_keeps_the_key(host: Host):
    first = host.call(generate=True)
    second = host.call(generate=True)
    assert (second["changed"], second["changes"], second["diff"]) == (False, [], [])
    assert second["key"] == first["key"]
    # Without the option, the key stays, and is not told.
    third = host.call()
    assert (third["changed"], "key" in third) == (False, False)


def test_a_check_changes_nothing(host: Host):
    for given in ({"generate": True}, {"key": KEY}, {}):
        found = host.call(check=True, **given)
        assert found["changes"] == ["program", "folder", "key"]
        assert "key" not in found
    assert not host.store.exists() and not host.state.exists()


def test_the_diff_shows_no_key(host: Host):
    host.call(key=KEY)
    other = KEY[::-1]
    found = host.call(key=other)
    assert [(each["before"], each["after"]) for each in found["diff"]] == [("there\n", "another one\n")]
    assert KEY not in json.dumps(found) and other not in json.dumps(found)


@pytest.mark.parametrize("damage", ["altered", "missing", "more"])
def test_a_program_that_somebody_altered_is_written_anew(host: Host, damage: str):
    path = Path(host.call(generate=True)["path"])
    good = {each: each.read_bytes() for each in path.rglob("*.py")}
    if damage == "altered":
        (path / "__main__.py").write_text("raise SystemExit(7)\n")
    if damage == "missing":
        (path / "sparkfleet/_unit/wire.py").unlink()
    if damage == "more":
        (path / "json.so").write_text("what Python would import first")
    assert host.call()["changes"] == ["program"]
    assert {each: each.read_bytes() for each in path.rglob("*") if each.is_file()} == good


@pytest.mark.parametrize("damage", ["open folder", "open key", "no key"])
def test_what_others_could_read_is_put_right(host: Host, damage: str):
    host.call(key=KEY)
    if damage == "open folder":
        host.key.parent.chmod(0o755)
    if damage == "open key":
        host.key.chmod(0o644)
    if damage == "no key":
        host.key.write_text("gibberish")
    assert host.call(key=KEY)["changes"] == [damage.split()[1]]
    assert host.call(key=KEY)["changed"] is False
    assert stat.S_IMODE(host.key.parent.stat().st_mode) == 0o700
    assert (stat.S_IMODE(host.key.stat().st_mode), host.key.read_text()) == (0o600, KEY + "\n")


def test_other_programs_and_files_stay(host: Host):
    other = host.store / "supervisor" / ("f" * 64) / "__main__.py"
    other.parent.mkdir(parents=True)
    other.write_text("")
    host.key.parent.mkdir(parents=True)
    (host.key.parent / "status.json").write_text("{}")
    host.call(generate=True)
    assert other.exists() and (host.key.parent / "status.json").exists()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "expected the key of the unit, seen none; do: set up the head first"),
        ({"key": "abc"}, "expected a key of a unit, seen no 64 hexadecimal digits"),
    ],
    ids=str,
)
def test_without_a_good_key_nothing_is_touched(host: Host, given: dict[str, Any], said: str):
    found = host.call(**given)
    assert found["failed"] is True and said in found["msg"]
    assert not host.store.exists() and not host.state.exists()


def test_a_disk_that_refuses_fails_the_host(host: Host):
    host.store.write_text("a file")
    found = host.call(generate=True)
    assert found["failed"] is True
    assert "make room there, or mend the disk" in found["msg"]
