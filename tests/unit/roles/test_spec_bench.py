# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The role speculation_sweep in a play of its own, over a host that is made up: what is started, measured, kept and brought back.

The real role and private actions run. The role that serves and the module that measures are stand-ins which write down what they
were asked for; with an engine and a server the same is shown by the scenario benchmark.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers.playbook import run_playbook
from helpers.recipe import ROOT
from helpers.sweep import constructed

MTP: dict[str, Any] = {"method": "mtp", "num_speculative_tokens": 1}
DEEPER: dict[str, Any] = MTP | {"num_speculative_tokens": 2}
DEEPEST: dict[str, Any] = MTP | {"num_speculative_tokens": 3}
SERVING: dict[str, Any] = {
    "recipe": "r",
    "container": {"name": "c", "command": ["/models/body", "--speculative-config", json.dumps(MTP)]},
    "models": {"body": {"path": "/b", "mount": "/models/body"}},
    "gate": {"served_model": "m", "base_url": "{{ lab_folder }}", "speculation": MTP},
}
SAY = """
- name: Write down what is asked
  ansible.builtin.lineinfile:
    path: "{{ lab_log }}"
    line: "%s"
    create: true
    insertafter: EOF
    mode: "0644"
    firstmatch: false
    regexp: ^$
"""
TRY = (
    SAY
    % "start {{ (vllm_serve_record.gate.speculation or {'num_speculative_tokens': 0}).num_speculative_tokens }}"
    + """
- name: Fail as asked
  ansible.builtin.fail:
    msg: there is no room
  when: (vllm_serve_record.gate.speculation or {}).num_speculative_tokens | default(0) in lab_no_room
"""
)
RESTORE = (
    SAY % "restore {{ vllm_serve_host.driver }}"
    + """
- name: Fail as asked
  ansible.builtin.fail:
    msg: it does not come back
  when: lab_lost
"""
)
RECORDED = """
- name: Hand the record on
  ansible.builtin.set_fact:
    spark_recorded: {serving: "{{ lab_serving }}", host: {driver: "580"}}
"""
MEASURE = """
import json
from ansible.module_utils.basic import AnsibleModule

module = AnsibleModule({name: {"type": "raw"} for name in (
    "container", "base_url", "served_model", "api_key", "speculation", "kinds", "max_tokens", "warmup", "repeats",
    "concurrency", "ready_timeout", "idle_timeout", "measure_timeout", "foreign_traffic")})
depth = (module.params["speculation"] or {}).get("num_speculative_tokens", 0)
folder = module.params.pop("base_url")
told = json.load(open(f"{folder}/told.json"))
for name, line in (("log", f"measure {depth}"), ("asked", json.dumps(module.params))):
    with open(f"{folder}/{name}", "a") as file:
        file.write(line + "\\n")
if depth in told["broken"]:
    module.fail_json(msg="vLLM died")
measurement = json.load(open(%r))[depth]
if depth in told["without"]:
    measurement["loads"] = []
if depth in told["held_back"]:
    for load in measurement["loads"]:
        load["rate"].update(tokens_per_second=None, because="expected each answer in pieces")
module.exit_json(measurement=measurement)
"""
INFO = """
from ansible.module_utils.basic import AnsibleModule

AnsibleModule({"store": {"type": "path"}}).exit_json(driver="580", architecture="aarch64")
"""
PLAY = """
- hosts: all
  gather_facts: false
  tasks:
    - block:
        - include_role: {name: sparkfleet.vllm.speculation_sweep}
      rescue:
        - set_fact: {spark_failure: "{{ ansible_failed_result }}"}
    - copy:
        dest: "{{ lab_folder }}/result.json"
        content: "{{ {'sweep': spark_sweep | default(none), 'failure': (spark_failure | default({})).msg | default('')} | to_json }}"
      check_mode: false
"""


# Every host is another case; they go through the play side by side. The first drafted token pays, the second does not.
OFF: dict[str, Any] = {
    "lab_serving": SERVING
    | {
        "gate": {**SERVING["gate"], "speculation": None},
        "container": {"name": "c", "command": ["/models/body"]},
    },
}
CASES: dict[str, dict[str, Any]] = {
    "plain": {"speculation_sweep_api_key": "key-12345678"},
    "early": {
        "speculation_sweep_depths": [0, 1, 2, 3, 4],
        "speculation_sweep_stop_early": True,
        "speculation_sweep_propose": True,
    },
    "fails": {
        "speculation_sweep_candidates": [None, MTP, DEEPER, DEEPEST],
        "lab_broken": [2],
        "lab_no_room": [3],
    },
    "own-dies": {"lab_broken": [1]},
    "own-held-back": {"lab_held_back": [1]},
    "held-back": {
        "speculation_sweep_depths": [0, 1, 2],
        "speculation_sweep_propose": True,
        "lab_held_back": [2],
    },
    "lost": {"lab_lost": True},
    "breaks": OFF
    | {
        "speculation_sweep_candidates": [MTP, DEEPER],
        "speculation_sweep_stop_early": True,
        "lab_without_load": [1],
    },
    # By the name that the variable had before.
    "decides": {"spec_bench_decides": 8},
}


@dataclass(frozen=True)
class Host:
    """What became of one."""

    did: list[str]
    asked: list[dict[str, Any]]
    sweep: dict[str, Any]
    failure: str

    @property
    def states(self) -> list[tuple[int, str]]:
        return [
            ((each["speculation"] or {}).get("num_speculative_tokens", 0), each["state"])
            for each in self.sweep["candidates"]
        ]


def collection(folder: Path) -> None:
    """The real role and private actions, and what stands in for the rest."""
    root = folder / "collections/ansible_collections/sparkfleet/vllm"
    (root / "plugins/modules").mkdir(parents=True)
    for name in ("module_utils", "plugin_utils"):
        (root / "plugins" / name).symlink_to(ROOT / "plugins" / name)
    (root / "plugins/action").mkdir()
    for path in (ROOT / "plugins/action").glob("sweep_*.py"):
        (root / "plugins/action" / path.name).symlink_to(path)
    (root / "roles/vllm_serve/tasks").mkdir(parents=True)
    (root / "roles/speculation_sweep").symlink_to(ROOT / "roles/speculation_sweep")
    for name, text in {"load_record": RECORDED, "start_candidate": TRY, "restore": RESTORE}.items():
        (root / f"roles/vllm_serve/tasks/{name}.yml").write_text(text)
    draft = constructed(0.4, lambda tokens: 0.02 * (1 + 0.3 * tokens))
    measurements = [
        draft({**MTP, "num_speculative_tokens": tokens} if tokens else None)["measurement"]
        for tokens in range(5)
    ]
    (folder / "measurements.json").write_text(json.dumps(measurements))
    (root / "plugins/modules/spec_decode_bench.py").write_text(MEASURE % str(folder / "measurements.json"))
    (root / "plugins/modules/spark_info.py").write_text(INFO)


def play(folder: Path, names: Sequence[str], *options: str) -> tuple[dict[str, Host], str]:
    collection(folder)
    cases = {name: CASES[name] for name in names}
    hosts = {
        name: {
            "lab_folder": str(folder / name),
            "lab_log": str(folder / name / "log"),
            "lab_serving": SERVING,
            "lab_no_room": [],
            "lab_lost": False,
            "speculation_sweep_concurrency": [1],
            **case,
        }
        for name, case in cases.items()
    }
    for name, case in cases.items():
        (folder / name).mkdir()
        told = {
            "broken": case.get("lab_broken", []),
            "without": case.get("lab_without_load", []),
            "held_back": case.get("lab_held_back", []),
        }
        (folder / name / "told.json").write_text(json.dumps(told))
    variables = {
        "ansible_connection": "local",
        "ansible_python_interpreter": sys.executable,
        "speculation_sweep_python": sys.executable,
    }
    (folder / "hosts.yml").write_text(yaml.safe_dump({"all": {"hosts": hosts, "vars": variables}}))
    (folder / "play.yml").write_text(PLAY)
    done = run_playbook(
        f"--inventory={folder / 'hosts.yml'}",
        folder / "play.yml",
        *options,
        ANSIBLE_COLLECTIONS_PATH=str(folder / "collections"),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return {name: _read(folder / name) for name in hosts}, done.stdout


def _read(folder: Path) -> Host:
    def lines(name: str) -> list[str]:
        return (folder / name).read_text().splitlines() if (folder / name).exists() else []

    result = json.loads((folder / "result.json").read_text())
    return Host(
        lines("log"), [json.loads(line) for line in lines("asked")], result["sweep"], result["failure"]
    )


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Host]:
    return play(tmp_path_factory.mktemp("fleet"), list(CASES))[0]


def test_off_against_on_begins_with_what_serves_and_ends_with_it(fleet: dict[str, Host]) -> None:
    host = fleet["plain"]
    assert host.did == ["start 1", "measure 1", "start 0", "measure 0", "restore 580"]
    assert host.failure == ""
    assert host.states == [(1, "measured"), (0, "measured")]
    assert (host.sweep["host"], host.sweep["recipe"], host.sweep["proposal"]) == ("plain", "r", None)
    assert host.sweep["hardware"] == {"driver": "580", "architecture": "aarch64"}
    on, off = host.asked
    assert (on.pop("speculation"), off.pop("speculation")) == (MTP, None)
    assert on == off
    assert (on["container"], on["api_key"]) == ("c", "key-12345678")


def test_a_sweep_stops_early_and_proposes(fleet: dict[str, Host]) -> None:
    host = fleet["early"]
    assert host.states == [
        (1, "measured"), (0, "measured"), (2, "measured"), (3, "skipped"), (4, "skipped"),
    ]  # fmt: skip
    assert host.did[-3:] == ["start 2", "measure 2", "restore 580"]
    assert host.sweep["proposal"]["speculation"] == MTP


def test_a_candidate_that_fails_is_told_and_the_sweep_goes_on(fleet: dict[str, Host]) -> None:
    host = fleet["fails"]
    assert host.states == [(1, "measured"), (0, "measured"), (2, "failed"), (3, "failed")]
    assert [each["because"] for each in host.sweep["candidates"]] == ["", "", "vLLM died", "there is no room"]
    assert host.did[-4:] == ["start 2", "measure 2", "start 3", "restore 580"]
    assert host.failure == ""


def test_a_host_whose_own_server_cannot_be_measured_is_left_alone(fleet: dict[str, Host]) -> None:
    host = fleet["own-dies"]
    assert host.did == ["start 1", "measure 1", "restore 580"]
    assert "what serves cannot be measured, so nothing was stopped: vLLM died" in host.failure
    assert host.states == [(1, "failed")]


def test_a_host_whose_own_server_has_no_rate_is_left_alone(fleet: dict[str, Host]) -> None:
    host = fleet["own-held-back"]
    assert host.did == ["start 1", "measure 1", "restore 580"]
    assert "cannot be measured, so nothing was stopped: expected each answer in pieces" in host.failure
    assert host.states == [(1, "not measurable")]


def test_a_candidate_without_a_rate_is_told_and_not_proposed(fleet: dict[str, Host]) -> None:
    host = fleet["held-back"]
    assert host.states == [(1, "measured"), (0, "measured"), (2, "not measurable")]
    assert host.sweep["candidates"][2]["because"] == "expected each answer in pieces"
    assert host.sweep["proposal"]["speculation"] == MTP
    assert host.sweep["proposal"]["because"].endswith("not measurable and left out: mtp n=2")


def test_what_does_not_come_back_fails_the_host_and_the_figures_are_kept(fleet: dict[str, Host]) -> None:
    host = fleet["lost"]
    assert "what served is not back: it does not come back" in host.failure
    assert "site.yml" in host.failure
    assert host.states == [(1, "measured"), (0, "measured")]


def test_a_sweep_that_breaks_off_brings_back_what_served(fleet: dict[str, Host]) -> None:
    """A measurement without the load that decides: nobody can tell who is next."""
    host = fleet["breaks"]
    assert host.did == ["start 1", "measure 1", "restore 580"]
    assert "expected a load of concurrency 1, which decides" in host.failure


def test_what_does_not_add_up_is_refused_before_anything_starts(fleet: dict[str, Host]) -> None:
    assert "expected one of the loads 1 to decide, seen 8" in fleet["decides"].failure
    assert fleet["decides"].did == []


def test_check_mode_says_what_would_be_measured_and_does_nothing(tmp_path: Path) -> None:
    hosts, printed = play(tmp_path, ["early"], "--check")
    assert (hosts["early"].did, hosts["early"].sweep) == ([], None)
    said = [line.strip(" -'") for line in printed.splitlines()]
    first = said.index("r, each with 1 streams at a time:")
    assert said[first + 1 : first + 6] == [
        "mtp n=1, which serves now",
        "off",
        "mtp n=2",
        "mtp n=3",
        "mtp n=4",
    ]
