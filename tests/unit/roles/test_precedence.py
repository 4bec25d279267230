"""Role defaults < recipe < inventory < extra vars, as the defaults of the real vllm_serve role see them."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers.playbook import run_playbook
from helpers.recipe import ROOT, SHIPPED

# What is shown: two of the role's inputs that a recipe sets too, and one that follows from the arguments in force.
SHOW = """
- hosts: all
  gather_facts: false
  tasks:
    {load}
    - include_role: {{name: shown}}
"""
LOAD = """- sparkfleet.vllm.recipe_load: {name: "{{ spark_recipe }}", lock: ignore}
      register: loaded
    - set_fact: {recipe: "{{ loaded.recipe }}"}"""
TASK = """
- debug:
    msg: >-
      SEEN {{ {'port': vllm_serve_port, 'floor': vllm_serve_acceptance_floor, 'memory': vllm_serve_memory_fraction} | to_json }}
"""


def seen(folder: Path, recipe: bool, inventory: bool, extra: bool) -> dict[str, float]:
    role = folder / "roles" / "shown"
    (role / "tasks").mkdir(parents=True)
    (role / "tasks" / "main.yml").write_text(TASK)
    shutil.copytree(ROOT / "roles" / "vllm_serve" / "defaults", role / "defaults")
    path = folder / "mine.yml"
    path.write_text(
        SHIPPED.read_text()
        .replace("name: huihui-gemma4-mtp-n1", "name: mine")
        .replace("port: 8000", "port: 8101")
        .replace("acceptance_floor: 0.40", "acceptance_floor: 0.51")
    )
    (folder / "play.yml").write_text(SHOW.format(load=LOAD if recipe else ""))
    variables: dict[str, Any] = {"ansible_connection": "local", "spark_recipe": str(path)}
    if inventory:
        variables |= {
            "vllm_serve_port": 8102,
            "vllm_serve_acceptance_floor": 0.52,
            "vllm_serve_extra_arguments": {"gpu-memory-utilization": 0.5},
        }
    (folder / "hosts.yml").write_text(yaml.safe_dump({"all": {"hosts": {"one": None}, "vars": variables}}))
    arguments = (
        ["-e", json.dumps({"vllm_serve_port": 8103, "vllm_serve_acceptance_floor": 0.53})] if extra else []
    )
    done = run_playbook(
        "-i",
        folder / "hosts.yml",
        folder / "play.yml",
        *arguments,
        ANSIBLE_CALLBACK_RESULT_FORMAT="json",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (found,) = re.findall(r'"SEEN (.*)"', done.stdout)
    values: dict[str, float] = json.loads(found.replace('\\"', '"'))
    return values


@pytest.mark.parametrize(
    ("levels", "expected"),
    [
        ({"recipe": False, "inventory": False, "extra": False}, {"port": 8000, "floor": 0.4, "memory": 0.9}),
        ({"recipe": True, "inventory": False, "extra": False}, {"port": 8101, "floor": 0.51, "memory": 0.65}),
        ({"recipe": True, "inventory": True, "extra": False}, {"port": 8102, "floor": 0.52, "memory": 0.5}),
        ({"recipe": True, "inventory": True, "extra": True}, {"port": 8103, "floor": 0.53, "memory": 0.5}),
        ({"recipe": False, "inventory": True, "extra": False}, {"port": 8102, "floor": 0.52, "memory": 0.5}),
    ],
    ids=["role default", "recipe", "inventory", "extra vars", "inventory without a recipe"],
)
def test_precedence(tmp_path, levels, expected):
    assert seen(tmp_path, **levels) == expected


DEPTH = """
- hosts: all
  gather_facts: false
  tasks:
    - sparkfleet.vllm.recipe_load: {name: "{{ spark_recipe }}", lock: ignore}
      register: loaded
    - set_fact: {recipe: "{{ loaded.recipe | sparkfleet.vllm.recipe_tuned(lab_lock) }}"}
    - include_role: {name: shown}
"""
SHOW_DEPTH = """
- debug:
    msg: "SEEN {{ inventory_hostname }}={{ (vllm_serve_arguments | combine(vllm_serve_extra_arguments, recursive=true))['speculative-config'].num_speculative_tokens }}"
"""


def test_a_measured_speculation_is_stronger_than_the_recipe_and_weaker_than_the_inventory(tmp_path):
    role = tmp_path / "roles" / "shown"
    (role / "tasks").mkdir(parents=True)
    (role / "tasks" / "main.yml").write_text(SHOW_DEPTH)
    shutil.copytree(ROOT / "roles" / "vllm_serve" / "defaults", role / "defaults")
    (tmp_path / "play.yml").write_text(DEPTH)
    measured = {"speculation": {"num_speculative_tokens": 2, "method": "mtp", "options": {}}}
    inventory = {"vllm_serve_extra_arguments": {"speculative-config": {"num_speculative_tokens": 3}}}
    hosts = {
        "recipe": {"lab_lock": {}},
        "lock": {"lab_lock": measured},
        "inventory": {"lab_lock": measured} | inventory,
    }
    variables = {"ansible_connection": "local", "spark_recipe": str(SHIPPED)}
    (tmp_path / "hosts.yml").write_text(yaml.safe_dump({"all": {"hosts": hosts, "vars": variables}}))
    done = run_playbook("-i", tmp_path / "hosts.yml", tmp_path / "play.yml")
    assert done.returncode == 0, done.stdout + done.stderr
    found = dict(re.findall(r"SEEN (\w+)=(\d)", done.stdout))
    assert found == {"recipe": "1", "lock": "2", "inventory": "3"}
