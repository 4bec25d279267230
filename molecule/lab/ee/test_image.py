# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The execution environment that ee.sh has built, used as a controller uses it: without a network, and not as root."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import yaml
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).resolve().parents[3]
IMAGE = "sparkfleet-lab/ee:latest"
GALAXY = yaml.safe_load((ROOT / "galaxy.yml").read_text())
PINNED = dict(
    line.split("==") for line in (ROOT / "requirements/dev.txt").read_text().splitlines() if "==" in line
)
PLAY = """
- hosts: localhost
  gather_facts: false
  tasks:
    - sparkfleet.vllm.recipe_load: {name: huihui-gemma4-mtp-n1}
      register: loaded
    - ansible.builtin.debug: {msg: "SEEN {{ loaded.recipe_path }}"}
"""
INSTALLED = "/usr/share/ansible/collections/ansible_collections/sparkfleet/vllm"


def run(*command: str, mounts: tuple[str, ...] = (), given: bytes = b"") -> bytes:
    begin = ["docker", "run", "--rm", "-i", "--network", "none", "--label", "sparkfleet.lab=ee"]
    volumes = [word for mount in mounts for word in ("-v", mount)]
    done = subprocess.run([*begin, *volumes, IMAGE, *command], input=given, capture_output=True, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr).decode(errors="replace")
    return done.stdout


def shell(script: str, mounts: tuple[str, ...] = ()) -> str:
    return run("sh", "-euc", script, mounts=mounts).decode()


def private_data(folder: Path) -> Path:
    """A directory in the form in which a controller gives it to ansible-runner."""
    (folder / "project").mkdir(parents=True)
    (folder / "project/play.yml").write_text(PLAY)
    (folder / "inventory").mkdir()
    (folder / "inventory/hosts").write_text("localhost ansible_connection=local\n")
    return folder


def test_what_is_in_it():
    told = shell(
        "id -u; ansible --version; ansible-runner --version; ssh -V 2>&1; python -c 'import huggingface_hub, requests'"
    )
    assert told.splitlines()[0] == "1000"
    assert f"ansible [core {PINNED['ansible-core']}]" in told and "OpenSSH" in told
    assert PINNED["ansible-runner"] in told


def test_its_collections():
    listed = json.loads(shell("ansible-galaxy collection list --format json 2>/dev/null"))
    found = {name: it["version"] for path in listed.values() for name, it in path.items()}
    assert found["sparkfleet.vllm"] == GALAXY["version"]
    for name, wanted in GALAXY["dependencies"].items():
        assert found[name] in SpecifierSet(wanted)


def test_nothing_of_how_it_was_built_is_left():
    left = shell("ls -d /output /build /var/lib/apt/lists/* 2>/dev/null || true")
    assert left == ""
    image = json.loads(
        subprocess.run(["docker", "image", "inspect", IMAGE], capture_output=True, check=True).stdout
    )[0]
    names = {entry.split("=")[0] for entry in image["Config"]["Env"]}
    assert names == {"PATH", "PIP_BREAK_SYSTEM_PACKAGES"}


def test_every_playbook_parses_as_it_is_installed():
    names = " ".join(
        f"sparkfleet.vllm.{path.stem}"
        for path in sorted((ROOT / "playbooks").glob("*.yml"))
        if "." not in path.stem
    )
    told = shell(f"ansible-playbook --syntax-check -i {INSTALLED}/inventory/spark {names}")
    assert f"playbook: {INSTALLED}/playbooks/site.yml" in told and told.count("playbook: ") >= 12


def test_a_job_names_a_playbook_of_the_image(tmp_path):
    """A controller's templates do that: the project has no playbook, and nothing was installed for it."""
    data = private_data(tmp_path / "data")
    told = shell(
        "cp -r /data /runner/job && ansible-runner run /runner/job -p sparkfleet.vllm.site --cmdline=--syntax-check",
        mounts=(f"{data}:/data:ro",),
    )
    assert f"playbook: {INSTALLED}/playbooks/site.yml" in told


def test_ansible_runner_runs_in_it(tmp_path):
    data = private_data(tmp_path / "data")
    told = shell(
        "cp -r /data /runner/job && ansible-runner run /runner/job -p play.yml", mounts=(f"{data}:/data:ro",)
    )
    assert f"SEEN {INSTALLED}/recipes/huihui-gemma4-mtp-n1.yml" in told


def test_it_works_for_a_controller_that_sends_a_job(tmp_path):
    data = private_data(tmp_path / "data")
    back = tmp_path / "back"
    runner = str(ROOT / ".venv/bin/ansible-runner")
    sent = subprocess.run(
        [runner, "transmit", str(data), "-p", "play.yml"], capture_output=True, check=True
    ).stdout
    streamed = run("ansible-runner", "worker", given=sent)
    subprocess.run([runner, "process", str(back)], input=streamed, capture_output=True, check=True)
    assert (back / "artifacts/rc").read_text() == "0"
    events = [json.loads(path.read_text()) for path in (back / "artifacts/job_events").iterdir()]
    said = "".join(event["stdout"] for event in events)
    assert f"SEEN {INSTALLED}/recipes/huihui-gemma4-mtp-n1.yml" in said
