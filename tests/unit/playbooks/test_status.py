# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""status.yml as a person runs it: real playbook, role, modules and report, on hosts that are this machine."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.parse
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import COLLECTIONS, ROOT
from helpers.page import stands_alone
from helpers.playbook import run_playbook
from helpers.server import Handler, served


class Prometheus(Handler):
    """Has one value of each series of the host `one`, and one alert."""

    def do_GET(self) -> None:
        path, _mark, fields = self.path.partition("?")
        results: list[Any]
        if path.endswith("/query"):
            kind, results = "vector", [{"metric": {"alertname": "SparkQueueLong", "spark": "one"}}]
        else:
            start = float(dict(urllib.parse.parse_qsl(fields))["start"])
            kind, results = "matrix", [{"metric": {"spark": "one"}, "values": [[start + 600, "0.5"]]}]
        answer = {"status": "success", "data": {"resultType": kind, "result": results}}
        self.answer(200, json.dumps(answer).encode())


def play(folder: Path, *arguments: str, watched: bool = True) -> subprocess.CompletedProcess[str]:
    local = {
        "ansible_connection": "local",
        "ansible_become": False,
        "ansible_python_interpreter": sys.executable,
    }
    hosts = {
        "one": local | {"spark_venv": str(Path(sys.executable).parents[1])},
        "lost": {"ansible_host": "127.0.0.1", "ansible_port": 1, "ansible_become": False},
        "bare": local | {"spark_venv": "/nowhere"},
    }
    inventory: dict[str, Any] = {
        "sparks": {"hosts": hosts, "vars": {"spark_state_dir": str(folder / "state")}}
    }
    if watched:
        inventory["monitoring"] = {"hosts": {"watch": local}}
    (folder / "hosts.yml").write_text(yaml.safe_dump(inventory))
    return run_playbook(
        "-i", "hosts.yml", ROOT / "playbooks/status.yml", *arguments,
        cwd=folder, ANSIBLE_COLLECTIONS_PATH=str(COLLECTIONS),
    )  # fmt: skip


def report(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "status/status.json").read_text())
    return found


def test_hosts_that_do_not_answer_are_in_the_report_and_fail_after_it(tmp_path: Path) -> None:
    with served(ThreadingHTTPServer(("127.0.0.1", 0), Prometheus)) as server:
        address = f"status_prometheus=127.0.0.1:{server.server_address[1]}"
        done = play(tmp_path, "-e", address, "-e", "status_interval=0.1")
    assert done.returncode == 2, done.stdout + done.stderr
    made = report(tmp_path)
    assert {name: host["verdict"] for name, host in made["hosts"].items()} == {
        "one": "empty", "lost": "unseen", "bare": "unseen",
    }  # fmt: skip
    assert made["hosts"]["lost"]["reasons"][0].startswith("the host did not answer")
    assert "/nowhere/bin/python" in made["hosts"]["bare"]["reasons"][0]
    assert made["monitoring"] == {"host": "watch", "problem": ""}
    assert made["hosts"]["one"]["day"]["waiting"][1] == 0.5 and made["hosts"]["lost"]["day"] == {}
    assert made["hosts"]["one"]["now"]["memory"]["total"] > 0
    assert "fires: SparkQueueLong one" in done.stdout
    recap = {
        line.split()[0]: line for line in done.stdout.partition("PLAY RECAP")[2].splitlines() if " : " in line
    }
    assert [name for name, line in recap.items() if "failed=1" in line] == ["bare", "lost"]
    assert all("changed=0" in line for line in recap.values())
    stands_alone((tmp_path / "status/status.html").read_text())


def test_a_monitoring_host_without_an_answer_costs_the_day_alone(tmp_path: Path) -> None:
    done = play(tmp_path, "--limit", "one", "-e", "status_prometheus=127.0.0.1:1")
    assert done.returncode == 0, done.stdout + done.stderr
    made = report(tmp_path)
    assert list(made["hosts"]) == ["one"] and made["day"] is None
    assert made["monitoring"]["problem"].startswith(
        "watch: http://127.0.0.1:1: expected an answer of Prometheus"
    )


def test_check_mode_and_a_fleet_without_monitoring(tmp_path: Path) -> None:
    began = time.time()
    done = play(tmp_path, "--check", "--limit", "one", "-e", "status_output=here", watched=False)
    assert done.returncode == 0, done.stdout + done.stderr
    made = json.loads((tmp_path / "here/status.json").read_text())
    assert made["monitoring"] == {"host": "", "problem": "the inventory has no group monitoring"}
    assert made["hosts"]["one"]["now"]["at"] >= int(began)
    assert "without the last day: the inventory has no group monitoring" in done.stdout


@pytest.mark.parametrize("word", ["run_lock", "under_lock"])
def test_it_takes_no_lock(word: str) -> None:
    texts = [path.read_text() for path in (ROOT / "roles/status").rglob("*.yml")]
    assert word not in "".join([*texts, (ROOT / "playbooks/status.yml").read_text()])
