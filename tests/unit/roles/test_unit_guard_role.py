"""When the role has its module run, and with what: the real role, with a stand-in of the module. And where playbooks have it."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers.places import places
from helpers.playbook import run_playbook
from helpers.recipe import ROOT

# Writes down what it was asked for, in the directory of the host's state.
MODULE = """#!/usr/bin/python
# WANT_JSON
import json, os, sys
asked = json.load(open(sys.argv[1]))
ports = {name: list(map(int, asked[name])) for name in ("ports", "open_ports")}
shown = {name: asked.get(name) for name in ("members", "records")} | ports | {"check": asked["_ansible_check_mode"]}
with open(os.path.join(asked["state_dir"], "asked"), "a") as file:
    file.write(json.dumps(shown) + "\\n")
known = json.load(open(os.path.join(asked["state_dir"], "recorded")))
print(json.dumps({"changed": True, "members": [*asked["members"], *known], "drift": {"subjects": ["host"]}}))
"""
INSTALL = """
- ansible.builtin.copy: {dest: "{{ unit_guard_state_dir }}/installed", content: "{{ unit_guard_packages | join(' ') }}"}
"""
UNIT = {"members": [{"host": "a", "address": "192.0.2.11"}, {"host": "b", "address": "192.0.2.12"}]}
# Every host is another case.
HOSTS: dict[str, dict[str, Any]] = {
    "unknown": {},
    "alone": {"spark_member": {}, "spark_unit_guarded": False, "unit_guard_more_members": ["192.0.2.99"]},
    "left": {"spark_member": {}, "spark_unit_guarded": True, "recorded": ["192.0.2.11"]},
    "member": {"spark_member": UNIT, "spark_unit_guarded": False},
    "more": {
        "spark_member": UNIT,
        "spark_unit_guarded": True,
        "unit_guard_more_members": ["192.0.2.13"],
        "unit_guard_open_ports": [40022],
        "unit_guard_ports": [8700, 29501],
        "spark_watchdog_port": 9621,
        "ansible_port": 2222,
    },
}
PLAY = """
- hosts: sparks
  gather_facts: false
  tasks:
    - ansible.builtin.include_role:
        name: sparkfleet.vllm.unit_guard
        public: true
        tasks_from: "{{ entry }}"
      loop: "{{ entries }}"
      loop_control: {loop_var: entry}
    - ansible.builtin.copy: {dest: "{{ spark_state_dir }}/drift", content: "{{ spark_drift | default({}) | to_json }}"}
"""


@dataclass(frozen=True)
class Run:
    output: str
    asked: dict[str, list[dict[str, Any]]]
    installed: dict[str, str]
    drift: dict[str, Any]


def run(folder: Path, *entries: str) -> Run:
    vllm = folder / "collections/ansible_collections/sparkfleet/vllm"
    (vllm / "plugins/modules").mkdir(parents=True)
    (vllm / "plugins/modules/unit_guard.py").write_text(MODULE)
    shutil.copytree(ROOT / "roles/unit_guard", vllm / "roles/unit_guard")
    (vllm / "roles/unit_guard/tasks/install.yml").write_text(INSTALL)
    for name in ("meta", *(f"plugins/{part}" for part in ("action", "module_utils", "plugin_utils"))):
        (vllm / name).symlink_to(ROOT / name)
    for name, variables in HOSTS.items():
        (folder / name).mkdir()
        (folder / name / "recorded").write_text(json.dumps(variables.get("recorded", [])))
    local = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
    shared = local | {"spark_state_dir": str(folder) + "/{{ inventory_hostname }}", "entries": list(entries)}
    (folder / "hosts.yml").write_text(yaml.safe_dump({"sparks": {"hosts": HOSTS, "vars": shared}}))
    (folder / "play.yml").write_text(PLAY)
    done = run_playbook(
        "-i",
        folder / "hosts.yml",
        folder / "play.yml",
        ANSIBLE_COLLECTIONS_PATH=str(folder / "collections"),
    )

    def read(host: str, name: str) -> str:
        path = folder / host / name
        return path.read_text() if path.exists() else ""

    return Run(
        done.stdout + done.stderr,
        {host: [json.loads(line) for line in read(host, "asked").splitlines()] for host in HOSTS},
        {host: packages for host in HOSTS if (packages := read(host, "installed"))},
        {host: json.loads(read(host, "drift") or "null") for host in HOSTS},
    )


NONE: dict[str, Any] = {
    "members": [],
    "records": None,
    "ports": [],
    "open_ports": [22, 8000, 8621, 9100, 5000, 6881, 8618],
    "check": False,
}
MEMBER = NONE | {"members": ["192.0.2.11", "192.0.2.12"], "ports": [8622, 29501]}
MORE = {
    "members": [*MEMBER["members"], "192.0.2.13"],
    "records": None,
    "ports": [8700, 29501],
    "open_ports": [2222, 8000, 9621, 9100, 5000, 6881, 8618, 40022],
    "check": False,
}


def test_only_a_host_with_a_unit_or_with_rules_is_asked_and_only_members_get_nft(tmp_path: Path) -> None:
    """And in the end those once more that were in a unit."""
    found = run(tmp_path, "main", "narrow")
    now = {"records": ["current"]}
    assert found.asked == {
        "unknown": [NONE],
        "alone": [],
        "left": [NONE, NONE | now],
        "member": [MEMBER, MEMBER | now],
        "more": [MORE, MORE | now],
    }, found.output
    assert found.installed == {"member": "nftables", "more": "nftables"}


def test_drift_looks_and_publishes_what_it_found(tmp_path: Path) -> None:
    found = run(tmp_path, "drift")
    assert found.asked["member"] == [MEMBER | {"records": ["current"], "check": True}], found.output
    assert found.drift["member"] == {"unit_guard": {"subjects": ["host"]}}
    assert found.installed == {}


@pytest.mark.parametrize(
    ("name", "order"),
    [
        # Once the unit is known, before one of its servers starts, and after the last one that left it ended.
        (
            "tasks/change.yml",
            [
                "vllm_serve/prepare",
                "unit_guard/main",
                "rollout/main",
                "unit_guard/narrow",
                "unchanged/record",
            ],
        ),
        (
            "rollback.yml",
            ["vllm_serve/prepare_rollback", "unit_guard/main", "rollout/main", "unit_guard/narrow"],
        ),
        ("drift.yml", ["prerequisites/drift", "vllm_serve/compose_record", "unit_guard/drift"]),
    ],
)
def test_where_a_playbook_has_the_role(name: str, order: list[str]) -> None:
    assert [place for place in places(name) if place in order] == order
