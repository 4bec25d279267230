# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What scenarios expect of a refusal (molecule/lab/tasks/refused.yml): the very one that is expected passes, and no other."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest
import yaml
from helpers.playbook import run_playbook
from helpers.recipe import ROOT

GATE = {"diagnosis": "wrong_model"}
CASES: dict[str, tuple[str, dict[str, Any], bool]] = {
    "as expected": ("refuse", {"expected_words": ["expected a", "seen b"]}, True),
    "with nothing that must not be told": (
        "refuse",
        {"expected_words": [], "unexpected_words": ["secret"]},
        True,
    ),
    "of the gate": (
        "refuse",
        {"expected_words": [], "expected_diagnosis": "wrong_model", "spark_refusal": GATE},
        True,
    ),
    "none": ("accept", {"expected_words": ["expected a"]}, False),
    "none, where no words are expected": ("accept", {"expected_words": []}, False),
    "for another reason": ("refuse", {"expected_words": ["expected a", "seen c"]}, False),
    "that tells what it must not": ("refuse", {"expected_words": [], "unexpected_words": ["seen b"]}, False),
    "of a gate that was not asked": (
        "refuse",
        {"expected_words": [], "expected_diagnosis": "wrong_model"},
        False,
    ),
    "of a gate that nobody expected": ("refuse", {"expected_words": [], "spark_refusal": GATE}, False),
}


@pytest.fixture(scope="module")
def passed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bool]:
    """Which refusals pass, by case: a host each, which is this process."""
    folder = tmp_path_factory.mktemp("refused")
    (folder / "refuse.yml").write_text('- ansible.builtin.fail: {msg: "expected a, seen b"}\n')
    (folder / "accept.yml").write_text("- ansible.builtin.debug: {msg: all is well}\n")
    tasks = ROOT / "molecule/lab/tasks/refused.yml"
    (folder / "play.yml").write_text(f"""
- hosts: cases
  gather_facts: false
  tasks:
    - ansible.builtin.include_tasks: {tasks}
    - ansible.builtin.set_fact: {{it_passed: true}}

- hosts: localhost
  gather_facts: false
  tasks:
    - ansible.builtin.copy:
        content: "{{{{ dict(cases | zip(cases | map('extract', hostvars, 'it_passed') | map('default', false))) | to_json }}}}"
        dest: {folder}/passed.json
      vars: {{cases: "{{{{ groups.cases }}}}"}}
""")
    local = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
    hosts = {
        name: {**local, **given, "refused": str(folder / f"{what}.yml")}
        for name, (what, given, _) in CASES.items()
    }
    inventory = {"cases": {"hosts": hosts}, "ungrouped": {"hosts": {"localhost": local}}}
    (folder / "hosts.yml").write_text(yaml.safe_dump(inventory))
    run_playbook("-i", folder / "hosts.yml", folder / "play.yml", cwd=ROOT, ANSIBLE_LOCALHOST_WARNING="false")
    return dict(json.loads((folder / "passed.json").read_text()))


@pytest.mark.parametrize("case", CASES)
def test_a_refusal(passed, case):
    assert passed[case] is CASES[case][2]
