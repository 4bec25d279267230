# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Two places that people run the playbooks from: a controller's private data directory, and a directory of one's own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
SCENARIO = Path(os.environ["MOLECULE_SCENARIO_DIRECTORY"])
LAB = ROOT / ".cache/lab"
HOST = next(iter(yaml.safe_load((SCENARIO / "inventory/hosts.yml").read_text())["sparks"]["hosts"]))
"""The only host of the scenario."""
BIN = Path(sys.executable).parent
"""Programs of the oldest supported ansible-core."""
AGENT = """
ansible_ssh_private_key_file: ""
ansible_ssh_common_args: -o UserKnownHostsFile={{ lab_ssh }}/known_hosts.d/{{ ansible_host }}
"""
CONFIG = "[defaults]\ninject_facts_as_vars = false\n[ssh_connection]\npipelining = true\n"


def outside() -> dict[str, str]:
    """The environment of somebody who has never seen this checkout."""
    return {
        name: value for name, value in os.environ.items() if not name.startswith(("ANSIBLE_", "MOLECULE_"))
    }


def call(*command: str | Path, within: Path, **environment: str) -> str:
    done = subprocess.run(
        [str(word) for word in command], cwd=within, env=outside() | environment,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def add_inventory(home: Path) -> None:
    """Add somebody's hosts, variables and recipe, as separate files."""
    shutil.copytree(SCENARIO / "inventory", home / "inventory/mine", symlinks=False)
    (home / "inventory/recipes").mkdir()
    recipe = (ROOT / "molecule/lab/stub/recipe/stub.yml").read_text()
    (home / "inventory/recipes/mine.yml").write_text(recipe.replace("name: stub\n", "name: mine\n", 1))
    # The lab's variables look for its keys and known hosts beside ansible.cfg.
    (home / ".cache").mkdir(exist_ok=True)
    (home / ".cache/lab").symlink_to(LAB)


def install(within: Path, there: Path, source: Path = ROOT) -> None:
    """Install this checkout, or another one, as a collection, from the archive that is made of it."""
    call(BIN / "ansible-galaxy", "collection", "build", "--force", "--output-path", within, within=source)
    (archive,) = within.glob("sparkfleet-vllm-*.tar.gz")
    call(BIN / "ansible-galaxy", "collection", "install", "--force", archive, "-p", there, within=within)


def project(private: Path) -> Path:
    """A job's private data directory. Its project is somebody's inventory; the collection lies beside it, as in an image."""
    home = private / "project"
    home.mkdir()
    (home / "ansible.cfg").write_text(CONFIG)
    add_inventory(home)
    # The controller gives the key through an agent.
    with (home / "inventory/mine/group_vars/sparks/yours.yml").open("a") as file:
        file.write(AGENT)
    install(private, private / "collections")
    return home


def release(home: Path, source: Path = ROOT) -> Path:
    """A directory with somebody's inventory and an installed archive."""
    home.mkdir()
    install(home, home / "collections", source)
    (home / "ansible.cfg").write_text(CONFIG.replace("\n", "\ncollections_path = collections\n", 1))
    add_inventory(home)
    return home / "collections/ansible_collections/sparkfleet/vllm"


def on(script: str) -> str:
    """The output of a script, as root on the host."""
    return call("docker", "exec", f"sparkfleet-lab-{HOST}", "bash", "-euc", script, within=ROOT)


def look() -> dict[str, Any]:
    """What serves and what is recorded, by the host."""
    script = (SCENARIO.parent / "rollout/files/look.py").read_text()
    inside = ["docker", "exec", "--interactive", f"sparkfleet-lab-{HOST}", "python3", "-", str(time.time())]
    done = subprocess.run(inside, input=script, capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout))
