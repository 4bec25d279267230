# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""vLLM lets running answers end before it stops; the engine and systemd kill it later than that."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.sparkfleet.vllm.plugins.module_utils._host.unit import stopping_after
from helpers.playbook import run_playbook
from helpers.recipe import ROOT

ROLE = ROOT / "roles/vllm_serve"
COPY = {"ansible.builtin.copy": {"content": "{{ text }}", "dest": "{{ to }}", "mode": "0600"}}


def rendered(folder: Path, text: str, given: dict[str, Any]) -> str:
    """What a template of the role becomes by its defaults."""
    play = {
        "hosts": "localhost",
        "connection": "local",
        "gather_facts": False,
        "vars_files": [str(ROLE / "defaults/main.yml"), str(ROLE / "vars/main.yml")],
        "tasks": [COPY],
    }
    (folder / "play.yml").write_text(yaml.safe_dump([play]))
    known = {"text": text, "to": str(folder / "rendered"), "ansible_python_interpreter": sys.executable}
    done = run_playbook("-i", "localhost,", "-e", json.dumps(given | known), "play.yml", cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return (folder / "rendered").read_text()


def unit(folder: Path, command: list[str]) -> str:
    """The unit at boot of a container with that command."""
    serving = {"container": {"name": "vllm", "command": command, "auto_remove": False}}
    template = f"{{{{ lookup('ansible.builtin.template', '{ROLE}/templates/server.service.j2') }}}}"
    return rendered(folder, template, {"vllm_serve_candidate": {"serving": serving, "stamps": []}})


def seconds(text: str) -> tuple[int, int]:
    """How long the engine waits, and how long systemd does."""
    (engine,), (systemd,) = (
        re.findall(r"docker stop -t (\d+) ", text),
        re.findall(r"TimeoutStopSec=(\d+)$", text, re.M),
    )
    return int(engine), int(systemd)


@pytest.mark.parametrize(
    ("command", "engine"),
    [(["/models/body"], 30), (["/models/body", "--shutdown-timeout", "120", "--host", "0.0.0.0"], 150)],
)
def test_the_engine_waits_longer_than_the_server_and_systemd_longer_than_the_engine(
    tmp_path, command, engine
):
    assert seconds(unit(tmp_path, command)) == (engine, engine + 30)


def test_drift_expects_that_time_of_the_server_on_record(tmp_path):
    """This release asks for a time that the record of an earlier one does not have."""
    wanted = unit(tmp_path, ["/models/body", "--shutdown-timeout", "120"])
    recorded = unit(tmp_path, ["/models/body"])
    assert recorded != wanted
    assert stopping_after(wanted, 30) == recorded
    assert stopping_after("", 30) == ""


def test_every_container_is_made_and_stopped_with_that_time():
    def given(name: str, module: str) -> list[str]:
        tasks = yaml.safe_load((ROLE / "tasks" / name).read_text())
        every = [inner for task in tasks for inner in (task, *task.get("block", []))]
        return [task[module]["stop_timeout"] for task in every if module in task]

    makes, reclaims = "community.docker.docker_container", "sparkfleet.vllm.memory_reclaim"
    (made,), (stopped,), (replaced,) = (
        given("container.yml", makes),
        given("stop.yml", makes),
        given("room.yml", reclaims),
    )
    assert made == stopped == replaced == "{{ __vllm_serve_stop_timeout }}"


def test_a_server_that_is_on_no_record_is_stopped_with_the_time_of_any_other(tmp_path):
    (task,) = [task for task in yaml.safe_load((ROLE / "tasks/stop.yml").read_text()) if "vars" in task]
    given = {
        "__vllm_serve_serving": task["vars"]["__vllm_serve_serving"],
        "__vllm_serve_info": {"state": None},
    }
    assert rendered(tmp_path, "{{ __vllm_serve_stop_timeout }}", given) == "30"
