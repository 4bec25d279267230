# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What vllm_serve restores after a failed change when the image of the recorded server is gone. Modules are stand-ins."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from helpers.playbook import run_playbook
from helpers.recipe import ROOT

IMAGE = "vllm/vllm-openai@sha256:" + "a" * 64
# The host has the image once it was pulled.
INFO = """
import json, os
from ansible.module_utils.basic import AnsibleModule
module = AnsibleModule({"container": {}, "state_dir": {}})
folder = module.params["state_dir"]
missing = json.load(open(f"{folder}/missing.json"))
if os.path.exists(f"{folder}/pulled"):
    missing = [one for one in missing if not one.startswith("image ")]
recorded = {"current": {"missing": missing, "stamps": []}}
serving = {"recipe": "r", "container": {"image": "%s"}}
module.exit_json(state={"current": {"serving": serving}}, recorded=recorded)
"""
PULL = """
from ansible.module_utils.basic import AnsibleModule
module = AnsibleModule({"image": {}, "state_dir": {}})
open(module.params["state_dir"] + "/pulled", "w").write(module.params["image"])
module.exit_json(changed=True)
"""
NOTHING = "- ansible.builtin.meta: noop\n"
PLAY = """
- hosts: localhost
  gather_facts: false
  tasks:
    - ansible.builtin.include_role: {name: sparkfleet.vllm.vllm_serve, tasks_from: restore}
"""


@pytest.fixture
def restore(tmp_path: Path):
    root = tmp_path / "collections/ansible_collections/sparkfleet/vllm"
    (root / "plugins/modules").mkdir(parents=True)
    (root / "plugins/modules/serve_info.py").write_text(INFO % IMAGE)
    (root / "plugins/modules/image_pull.py").write_text(PULL)
    tasks = root / "roles/vllm_serve/tasks"
    tasks.mkdir(parents=True)
    for name in ("restore", "look"):
        (tasks / f"{name}.yml").symlink_to(ROOT / f"roles/vllm_serve/tasks/{name}.yml")
    for name in ("compare", "start", "boot"):
        (tasks / f"{name}.yml").write_text(NOTHING)
    (tmp_path / "play.yml").write_text(PLAY)

    def run(missing: list[str]) -> tuple[str, str]:
        """What was pulled, and what the play said."""
        (tmp_path / "missing.json").write_text(json.dumps(missing))
        variables = {
            "ansible_connection": "local",
            "vllm_serve_container": "c",
            "vllm_serve_state_dir": str(tmp_path),
            "vllm_serve_python": sys.executable,
            "__vllm_serve_serving": {"recipe": "r"},
            "vllm_serve_change": {"state": "other", "kept": True},
            "__vllm_serve_room": {"made": False},
        }
        done = run_playbook(
            "--inventory=localhost,",
            f"--extra-vars={json.dumps(variables)}",
            tmp_path / "play.yml",
            ANSIBLE_COLLECTIONS_PATH=str(tmp_path / "collections"),
        )
        pulled = tmp_path / "pulled"
        return pulled.read_text() if pulled.exists() else "", done.stdout + done.stderr

    return run


def test_the_image_that_is_gone_is_pulled_before_the_server_is_restored(restore) -> None:
    pulled, said = restore([f"image {IMAGE}"])
    assert pulled == IMAGE and "failed=0" in said


def test_what_else_is_missing_is_told_and_nothing_is_pulled(restore) -> None:
    pulled, said = restore(["body in /models"])
    assert pulled == "" and "seen nothing of body in /models" in said
