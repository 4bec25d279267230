"""Asks the hosts, not Ansible, whether what the playbook claims is so."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml

SCENARIO = Path(os.environ["MOLECULE_SCENARIO_DIRECTORY"])
ROOT = Path(os.environ["MOLECULE_PROJECT_DIRECTORY"])
CONTAINER = "sparkfleet-vllm"
STORE = "/srv/sparkfleet"


@pytest.fixture(scope="module")
def recipe():
    return yaml.safe_load((ROOT / "recipes/huihui-gemma4-mtp-n1.yml").read_text())


@pytest.fixture(scope="module")
def lock():
    return yaml.safe_load((SCENARIO / "lab-locks/huihui-gemma4-mtp-n1.lock.yml").read_text())


@pytest.fixture
def container(sudo):
    return json.loads(sudo(f"docker inspect {CONTAINER}"))[0]


def test_the_locked_image_serves(container, lock):
    assert container["State"]["Running"]
    assert container["Config"]["Image"] == lock["image"]["pinned"]


def test_the_recipes_arguments_arrived(container, recipe):
    command = container["Config"]["Cmd"]
    speculation = json.loads(command[command.index("--speculative-config") + 1])
    assert speculation == recipe["serve"]["arguments"]["speculative-config"]
    assert command[0] == recipe["models"]["body"]["mount"]
    assert command[command.index("--max-model-len") + 1] == "8192"


def test_least_privilege(container):
    config = container["HostConfig"]
    assert not config["Privileged"]
    assert config["CapDrop"] == ["ALL"]
    assert config["NetworkMode"] != "host" and config["IpcMode"] == "private"
    assert "no-new-privileges" in " ".join(config["SecurityOpt"])
    assert config["RestartPolicy"] == {"Name": "no", "MaximumRetryCount": 0}
    assert all(port["HostIp"] == "127.0.0.1" for ports in config["PortBindings"].values() for port in ports)
    writable = [bind for bind in config["Binds"] if not bind.endswith(":ro")]
    digest = container["Config"]["Image"].partition("@sha256:")[2]
    assert writable and all(bind.startswith(f"{STORE}/cache/compiled/{digest}/") for bind in writable)


def test_the_patch_in_the_container_is_the_locked_one(sudo, lock, recipe):
    (patch,) = lock["patches"]
    target = recipe["patches"][0]["target"]
    assert sudo(f"docker exec {CONTAINER} md5sum {target}").split()[0] == patch["md5"]
    stored = f"{STORE}/patches/{patch['sha256']}/{patch['name']}"
    assert sudo(f"sha256sum {stored}").split()[0] == patch["sha256"]


@pytest.mark.parametrize("role", ["body", "draft"])
def test_every_model_file_has_its_locked_sha256(sudo, lock, role):
    model = lock["models"][role]
    directory = f"{STORE}/models/{model['repository'].replace('/', '--')}/{model['commit']}"
    for name, file in model["files"].items():
        assert sudo(f"sha256sum {directory}/{name}").split()[0] == file["sha256"], name


def test_the_server_names_the_recipes_model_and_answers_a_chat(sudo, recipe):
    served = recipe["serve"]["arguments"]["served-model-name"]
    models = json.loads(sudo("curl -fsS http://127.0.0.1:8000/v1/models"))
    assert [model["id"] for model in models["data"]] == [served]
    body = json.dumps({"model": served, "messages": [{"role": "user", "content": "hello"}], "max_tokens": 8})
    answer = json.loads(
        sudo(
            f"curl -fsS -H 'Content-Type: application/json' -d '{body}' http://127.0.0.1:8000/v1/chat/completions"
        )
    )
    assert answer["choices"][0]["message"]["content"]


def test_vllms_own_counters_show_the_share_the_draft_was_built_for(sudo):
    metrics = sudo("curl -fsS http://127.0.0.1:8000/metrics")

    def total(name):
        found = re.findall(rf"^vllm:{name}_total\{{[^}}]*\}} ([0-9.e+]+)$", metrics, re.M)
        assert found, name
        return sum(map(float, found))

    drafts, accepted = total("spec_decode_num_drafts"), total("spec_decode_num_accepted_tokens")
    assert drafts >= 200
    assert 0.64 <= accepted / drafts <= 0.74


def test_what_passed_is_recorded(sudo, container, lock):
    state = json.loads(sudo("cat /var/lib/sparkfleet/state.json"))
    serving = state["current"]["serving"]
    assert serving["container"]["image"] == lock["image"]["pinned"]
    assert serving["container"]["command"] == container["Config"]["Cmd"]
    assert state["current"]["gate"]["drafts"] >= 200
    assert state["last_good"] is None


def test_the_engine_keeps_its_settings_and_knows_the_mirror(host, sudo):
    daemon = json.loads(sudo("cat /etc/docker/daemon.json"))
    assert daemon["registry-mirrors"]
    assert host.service("docker").is_running


def ansible(*arguments):
    return subprocess.run(
        ["ansible-playbook", "-i", str(SCENARIO / "inventory"), *arguments],
        cwd=ROOT, capture_output=True, text=True, env=os.environ | {"ANSIBLE_FORCE_COLOR": "false", "ANSIBLE_NOCOLOR": "true"},
    )  # fmt: skip


@pytest.fixture(scope="module")
def recap():
    """Host -> counters of a playbook's recap."""

    def parse(output):
        rows = re.findall(r"^(\S+)\s+: (ok=.*)$", output, re.M)
        return {name: dict(pair.split("=") for pair in counters.split()) for name, counters in rows}

    return parse


def test_a_check_run_afterwards_would_change_nothing(recap):
    ran = ansible("--check", "--diff", "playbooks/site.yml")
    assert ran.returncode == 0, ran.stdout[-4000:]
    counters = recap(ran.stdout)
    assert counters and all(row["changed"] == "0" for row in counters.values()), ran.stdout[-4000:]


def test_verify_measures_and_changes_nothing(recap):
    ran = ansible("playbooks/verify.yml")
    assert ran.returncode == 0, ran.stdout[-4000:]
    assert all(row["changed"] == "0" for row in recap(ran.stdout).values())
    assert ran.stdout.count("pass") >= 2


def test_real_vllm_as_it_was_deployed_is_no_drift(tmp_path):
    done = ansible(str(ROOT / "playbooks/drift.yml"), "-e", f"drift_output={tmp_path}")
    assert done.returncode == 0, done.stdout
    report = json.loads((tmp_path / "drift.json").read_text())
    assert {host: (seen["verdict"], seen["findings"]) for host, seen in report["hosts"].items()} == {
        "default-1": ("clean", []),
        "default-2": ("clean", []),
    }
