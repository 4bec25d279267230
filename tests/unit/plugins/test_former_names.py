# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A task with a former name runs the module, with its action."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest
import yaml
from helpers.playbook import run_playbook
from helpers.recipe import ROOT

ROUTING = yaml.safe_load((ROOT / "meta/runtime.yml").read_text())["plugin_routing"]
FORMER = {name: route["redirect"] for name, route in ROUTING["modules"].items() if "redirect" in route}
PLAY = """
- hosts: localhost
  connection: local
  gather_facts: false
  tasks:
    - sparkfleet.vllm.spark_settled: {state_dir: "{{ folder }}"}
      register: spark_settled
    - sparkfleet.vllm.bundle_take:
      register: bundle_take
      ignore_errors: true
    # Whoever has lost the lock of the run changes nothing more: an action says so, not the module by itself.
    - sparkfleet.vllm.run_lock: {state_dir: "{{ folder }}"}
    - file: {path: "{{ folder }}/run.json", state: absent}
    - sparkfleet.vllm.bundle_open: {path: "{{ folder }}", packages_only: true, address: 127.0.0.1}
      register: bundle_open
      ignore_errors: true
    - copy:
        dest: "{{ folder }}/results.json"
        content: "{{ {'spark_settled': spark_settled, 'bundle_take': bundle_take, 'bundle_open': bundle_open} | to_json }}"
"""


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("former")
    (folder / "play.yml").write_text(PLAY)
    known = {"folder": str(folder), "ansible_python_interpreter": sys.executable}
    done = run_playbook("--inventory=localhost,", f"--extra-vars={json.dumps(known)}", "play.yml", cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, Any] = json.loads((folder / "results.json").read_text())
    return found


def test_the_action_of_host_unchanged_adds_what_was_asked_for(results: dict[str, Any]) -> None:
    assert results["spark_settled"]["settled"] is False
    assert len(results["spark_settled"]["inputs"]) == 64


def test_bundle_import_is_an_action_alone(results: dict[str, Any]) -> None:
    assert "missing required arguments" in results["bundle_take"]["msg"]


def test_bundle_serve_works_under_the_lock_of_the_run(results: dict[str, Any]) -> None:
    assert "expected the lock of this run on this host, seen none" in results["bundle_open"]["msg"]


def test_a_former_name_leads_to_a_module_that_is_there_and_to_its_action() -> None:
    """The play above runs each of them; one that comes later belongs into it."""
    assert sorted(FORMER) == ["bundle_open", "bundle_take", "spark_settled"]
    for name, now in FORMER.items():
        own = now.rpartition(".")[2]
        assert (ROOT / f"plugins/modules/{own}.py").exists()
        if (ROOT / f"plugins/action/{own}.py").exists():
            assert ROUTING["action"][name]["redirect"] == now
        else:
            assert ROUTING["modules"][own]["action_plugin"] == "sparkfleet.vllm.under_lock"
