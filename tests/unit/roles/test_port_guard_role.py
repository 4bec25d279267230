"""When the role has its module run, and with what: real role, filter and action, with a stand-in of the module. And where playbooks have it."""

from __future__ import annotations

import json
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
ports = [int(port) for port in asked["ports"]]
home = os.environ["HOME_OF_HOST"]
kept = json.load(open(os.path.join(home, "kept"))) if "state_dir" in asked else []
with open(os.path.join(home, "asked"), "a") as file:
    file.write(json.dumps({**{name: asked[name] for name in ("state", "sources", "monitoring_ports", "monitoring_sources")}, "ports": ports, "check": asked["_ansible_check_mode"]}) + "\\n")
known = sorted({*ports, *kept}) if asked["state"] == "present" else []
print(json.dumps({"changed": True, "ports": known, "drift": {"subjects": ["host"]}}))
"""
# Every host is another case. All see the same groups, so the gateways of a case are those of its run.
HOSTS: dict[str, dict[str, Any]] = {
    "unknown": {},
    "unguarded": {"spark_guarded": False},
    "guarded": {"spark_guarded": True},
    "more": {"port_guard_sources": ["192.0.2.64/26"], "kept": [8000, 9000]},
    "off": {"port_guard_gateways": [], "spark_guarded": False},
    "unwatched": {"spark_guarded": False, "spark_watchdog": False},
    "elsewhere": {"spark_guarded": False, "spark_watchdog": "act", "spark_watchdog_port": 9621},
}
PLAY = """
- hosts: sparks
  gather_facts: false
  tasks:
    - ansible.builtin.include_role:
        name: sparkfleet.vllm.port_guard
        public: true
        tasks_from: "{{ entry }}"
        apply: {environment: {HOME_OF_HOST: "{{ spark_state_dir }}"}}
      vars: {port_guard_ports: [8000]}
      loop: "{{ entries }}"
      loop_control: {loop_var: entry}
    - ansible.builtin.copy: {dest: "{{ spark_state_dir }}/drift", content: "{{ spark_drift | default({}) | to_json }}"}
"""


@dataclass(frozen=True)
class Run:
    output: str
    asked: dict[str, list[dict[str, Any]]]
    drift: dict[str, Any]


def run(
    folder: Path, gateways: dict[str, Any], *entries: str, monitoring: dict[str, Any] | None = None
) -> Run:
    vllm = folder / "collections/ansible_collections/sparkfleet/vllm"
    (vllm / "plugins/modules").mkdir(parents=True)
    (vllm / "plugins/modules/port_guard.py").write_text(MODULE)
    for name in (
        "roles",
        "meta",
        *(f"plugins/{part}" for part in ("action", "filter", "module_utils", "plugin_utils")),
    ):
        (vllm / name).symlink_to(ROOT / name)
    for name, variables in HOSTS.items():
        (folder / name).mkdir()
        (folder / name / "kept").write_text(json.dumps(variables.get("kept", [])))
    local = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
    shared = local | {"spark_state_dir": str(folder) + "/{{ inventory_hostname }}", "entries": list(entries)}
    inventory = {
        "sparks": {"hosts": HOSTS, "vars": shared},
        "gateways": {"hosts": gateways},
        "monitoring": {"hosts": monitoring or {}},
    }
    (folder / "hosts.yml").write_text(yaml.safe_dump(inventory))
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

    asked = {host: [json.loads(line) for line in read(host, "asked").splitlines()] for host in HOSTS}
    return Run(
        done.stdout + done.stderr, asked, {host: json.loads(read(host, "drift") or "null") for host in HOSTS}
    )


GATEWAYS = {
    "gate-1": {"ansible_host": "192.0.2.10"},
    "gate-2": {"ansible_host": "gate-2.example.com", "spark_address": "192.0.2.11"},
}
PRESENT: dict[str, Any] = {
    "state": "present",
    "ports": [8000, 8621],
    "sources": ["192.0.2.10", "192.0.2.11"],
    "monitoring_ports": [],
    "monitoring_sources": [],
    "check": False,
}
ABSENT = PRESENT | {"state": "absent", "sources": []}
MONITORING = {"watch-1": {"ansible_host": "192.0.2.20"}}


def test_without_gateways_only_a_host_that_may_have_rules_is_looked_at(tmp_path: Path) -> None:
    found = run(tmp_path, {}, "main", "narrow")
    more = ABSENT | {"sources": ["192.0.2.64/26"]}
    assert found.asked == {
        "unknown": [ABSENT],
        "unguarded": [],
        "guarded": [ABSENT],
        "more": [more],
        "off": [],
        "unwatched": [],
        "elsewhere": [],
    }, found.output


def test_the_gateways_of_the_inventory_may_connect_and_others_that_are_named(tmp_path: Path) -> None:
    """Once, except where the port of another server was kept, too."""
    found = run(tmp_path, GATEWAYS, "main", "narrow")
    more = PRESENT | {"sources": [*PRESENT["sources"], "192.0.2.64/26"]}
    assert found.asked == {
        "unknown": [PRESENT], "unguarded": [PRESENT], "guarded": [PRESENT], "more": [more, more], "off": [],
        "unwatched": [PRESENT | {"ports": [8000]}], "elsewhere": [PRESENT | {"ports": [8000, 9621]}],
    }, found.output  # fmt: skip


def test_a_gateway_that_is_named_and_has_no_address_is_refused_before_a_host_is_touched(
    tmp_path: Path,
) -> None:
    found = run(tmp_path, {"gate-1": {"ansible_host": "gate-1.example.com"}}, "main")
    assert (
        "gate-1: expected an IP address, seen: 'gate-1.example.com'; do: set spark_address of that host"
        in found.output
    )
    assert [each for each in found.asked.values() if each] == []


def test_drift_looks_and_publishes_what_it_found(tmp_path: Path) -> None:
    found = run(tmp_path, GATEWAYS, "drift")
    assert found.asked["guarded"] == [PRESENT | {"check": True}], found.output
    assert found.drift["guarded"] == {"port_guard": {"subjects": ["host"]}}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("prerequisites/main", "port_guard/main"),  # which brings iptables, and sees whether there are rules
        ("port_guard/narrow", "unchanged/record"),  # the rules are part of what is recorded
    ],
)
def test_where_a_run_has_the_role(one: str, other: str) -> None:
    order = places("tasks/change.yml")
    assert order.index(one) < order.index(other)


def test_the_monitoring_has_a_port_of_its_own_and_passes_at_that_of_the_server(tmp_path: Path) -> None:
    found = run(tmp_path, GATEWAYS, "main", monitoring=MONITORING)
    watched = {"monitoring_ports": [9100], "monitoring_sources": ["192.0.2.20"]}
    assert found.asked["unguarded"] == [PRESENT | watched], found.output


def test_without_gateways_the_server_stays_open_and_the_exporter_is_kept(tmp_path: Path) -> None:
    found = run(tmp_path, {}, "main", monitoring=MONITORING)
    watched = {"monitoring_ports": [9100], "monitoring_sources": ["192.0.2.20"]}
    assert found.asked["unguarded"] == [PRESENT | watched | {"ports": [], "sources": []}], found.output
