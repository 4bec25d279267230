# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Two Sparks of a unit and one that serves nothing yet, as an inventory says it and the role vllm_serve computes it. Nobody is connected to."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers import unit
from helpers.playbook import run_playbook
from helpers.recipe import ROOT

ROLE = "sparkfleet.vllm.vllm_serve"
RECIPE = {
    "name": "pair",
    "image": {"entrypoint": ["vllm", "serve"], "caches": {}, "refused": []},
    "models": {"body": {"mount": "/models/b", "path": "/srv/s/models/o--b/1"}},
    "topology": unit.TOPOLOGY,
    "serve": {
        "port": 8000,
        "arguments": {"max-model-len": 8192},
        "environment": {},
        "devices": ["/dev/infiniband"],
    },
    "expect": {"acceptance_floor": 0, "minimum_drafts": 0},
}
FLEET: dict[str, Any] = {
    "spark_fabric": unit.fabric(),
    "spark_unit_interface": "enp1s0f0np0",
    "vllm_serve_image": "o/i@sha256:" + "a" * 64,
    "vllm_serve_bind": "192.0.2.1",
    "vllm_serve_api_key": "key-12345678",
    "recipe": RECIPE,
}
SECOND: dict[str, Any] = {"spark_fabric": unit.fabric("192.0.2.2"), "vllm_serve_bind": "192.0.2.2"}
SHOWN = "{{ {'serving': spark_candidate.serving, 'environment': __vllm_serve_environment, 'member': spark_member} | to_json }}"
TASKS: list[dict[str, Any]] = [
    {"ansible.builtin.include_role": {"name": ROLE, "tasks_from": "compose_record", "public": True}},
    {"sparkfleet.vllm.unit_check": {"unit": "{{ vllm_serve_unit }}"}, "when": "vllm_serve_unit | length > 0"},
    {
        "ansible.builtin.copy": {
            "content": SHOWN,
            "dest": "{{ made }}/{{ inventory_hostname }}",
            "mode": "0600",
        }
    },
]


def composed(folder: Path, *options: str, second: Any = None, **fleet: Any) -> tuple[dict[str, Any], str]:
    """{host: what the role has computed} of the hosts that were not refused, and all that was printed."""
    (folder / "made").mkdir()
    hosts = {
        "spark-1": {"spark_unit": "pair"},
        "spark-2": {"spark_unit": "pair", **SECOND, **(second or {})},
    }
    everywhere = {
        "ansible_connection": "local",
        "ansible_python_interpreter": sys.executable,
        "made": str(folder / "made"),
    }
    inventory = {"sparks": {"hosts": hosts, "vars": everywhere | FLEET | fleet}}
    (folder / "hosts.yml").write_text(yaml.safe_dump(inventory))
    play = [{"hosts": "sparks", "gather_facts": False, "tasks": TASKS}]
    (folder / "play.yml").write_text(yaml.safe_dump(play))
    done = run_playbook("-i", "hosts.yml", "play.yml", *options, cwd=folder)
    found = {path.name: json.loads(path.read_text()) for path in (folder / "made").iterdir()}
    return found, done.stdout + done.stderr


def test_an_inventory_and_a_recipe_make_two_members_and_the_key_is_the_heads_alone(tmp_path: Path) -> None:
    made, printed = composed(tmp_path)
    assert sorted(made) == ["spark-1", "spark-2"], printed
    head, worker = made["spark-1"], made["spark-2"]
    assert [made[host]["serving"]["unit"]["rank"] for host in sorted(made)] == [0, 1]
    assert head["environment"] == head["serving"]["container"]["env"] | {"VLLM_API_KEY": "key-12345678"}
    assert worker["environment"] == worker["serving"]["container"]["env"]
    assert "key-12345678" not in json.dumps(worker) + json.dumps(head["serving"])
    container = worker["serving"]["container"]
    assert (container["network_mode"], container["capabilities"]) == ("host", ["IPC_LOCK"])
    assert container["env"]["VLLM_HOST_IP"] == "192.0.2.2" and container["command"][-1] == "--headless"
    assert head["serving"]["gate"]["base_url"] == "http://192.0.2.1:8000"


def test_one_spark_is_no_unit_whatever_the_inventory_says(tmp_path: Path) -> None:
    alone = {name: value for name, value in RECIPE.items() if name != "topology"}
    made, printed = composed(tmp_path, recipe=alone, spark_fabric={})
    assert sorted(made) == ["spark-1", "spark-2"], printed
    for host in made.values():
        assert host["member"] == {} and "unit" not in host["serving"]
        assert host["serving"]["container"]["network_mode"] == "bridge"
        assert host["environment"]["VLLM_API_KEY"] == "key-12345678"


@pytest.mark.parametrize(
    ("options", "second", "says"),
    [
        (["--limit", "spark-1"], {}, "expected all members of the unit pair in this run, seen none of spark-2"),
        ([], {"spark_fabric": {}}, "expected to know the network of spark-2 (spark_fabric), seen nothing of it"),
        ([], {"vllm_serve_extra_arguments": {"max-model-len": 1024}}, "argument --max-model-len: spark-1 8192, spark-2 1024; give all"),
        ([], {"vllm_serve_models": {}}, "expected all members of the unit pair to be prepared, since it changes as one, seen spark-2 failed"),
    ],
)  # fmt: skip
def test_what_one_member_lacks_holds_the_whole_unit(
    tmp_path: Path, options: list[str], second: dict[str, Any], says: str
) -> None:
    made, printed = composed(tmp_path, *options, second=second)
    assert says in " ".join(printed.split()) and made == {}, printed


@pytest.mark.parametrize("entry_point", ["main", "prepare"])
def test_members_are_compared_as_soon_as_it_is_known_what_they_should_serve(entry_point: str) -> None:
    tasks = yaml.safe_load((ROOT / f"roles/vllm_serve/tasks/{entry_point}.yml").read_text())
    kinds = [
        task.get("ansible.builtin.import_tasks") or next(iter({*task} - {"name", "when"})) for task in tasks
    ]
    assert kinds.index("sparkfleet.vllm.unit_check") == kinds.index("compose_record.yml") + 1
