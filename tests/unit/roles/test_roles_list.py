"""The play of README.md, as it is written there: a plain list of roles deploys a host, a second run changes nothing, and what the gate
refuses gives way to what passed before.

The real roles, filters and private actions run. What looks at a host or changes it is a stand-in that keeps a host's state in a folder
and writes down what it was asked for. On a lab host the same play is run by the scenario vllm_serve.
"""

from __future__ import annotations

import json
import re
import stat
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers.playbook import run_playbook
from helpers.recipe import BODY, DRAFT, IMAGE, ROOT, SHIPPED

ROLES = ["recipe", "prerequisites", "model_sync", "image_sync", "patch_pin", "vllm_serve", "vllm_gate"]
# Tasks of a role that are no part of the collection's surface, and run as they are.
ACTIONS = (
    "recipe_load",
    "sync_plan",
    "serving_change",
    "serving_member",
    "unit_check",
    "gate_evidence",
    "image_plan",
    "registry_address",
    "under_lock",
    "run_lock",
    "run_lock_refusals",
)
LOCK: dict[str, Any] = {
    "version": 1,
    "recipe": "huihui-gemma4-mtp-n1",
    "image": {
        "reference": f"{IMAGE}:1",
        "digest": "sha256:" + "a" * 64,
        "pinned": f"{IMAGE}@sha256:" + "a" * 64,
    },
    "models": {
        "body": {"repository": BODY, "commit": "1" * 40, "files": {}},
        "draft": {"repository": DRAFT, "commit": "2" * 40, "files": {}},
    },
    "patches": [{"name": "gemma4_mtp.py", "sha256": "c" * 64}],
}
PATCH = {
    "name": "gemma4_mtp.py",
    "host_path": "/srv/sparkfleet/patches/gemma4_mtp.py",
    "target": "/vllm/gemma4_mtp.py",
    "md5": "b" * 32,
    "sha256": "c" * 64,
    "mount": True,
    "stamp": "1-2",
}
# A module that Ansible hands a file with its arguments. `answer` is what it returns; `here` keeps what is on the host.
HEAD = """#!/usr/bin/python
# WANT_JSON
import json, os, sys, time

asked = json.load(open(sys.argv[1]))
check = bool(asked.get("_ansible_check_mode"))
folder = os.environ.get("LAB_HOST", "")
answer = {"changed": False}


def kept(name, default):
    path = os.path.join(folder, name)
    return json.load(open(path)) if os.path.exists(path) else default


def keep(name, value):
    json.dump(value, open(os.path.join(folder, name), "w"))


def say(line):
    with open(os.path.join(folder, "log"), "a") as file:
        file.write(line + "\\n")


def fail(message, **more):
    print(json.dumps({"failed": True, "msg": message, **more}))
    sys.exit(1)


"""
TAIL = "\nprint(json.dumps(answer))\n"
STAND_INS = {
    "recipe_lock": f"answer |= {{'msg': '', 'lock': {LOCK!r}, 'patches': {LOCK['patches']!r}, 'summary': []}}",
    "spark_info": """
answer |= {"problems": [], "changes": [], "usable": True, "guarded": False, "report": "", "driver": "580"}
answer |= {"toolkit": {"version": "1.18"}, "docker": {"version": "28"}}
""",
    "hf_snapshot": "fail('expected no model to be brought where all are in place')\n",
    "hf_snapshot_info": """
answer |= {"settled": True, "unchecked": False, "fits": True, "address": "192.0.2.1", "look": [
    {"commit": each["commit"], "repository": each["repository"], "bytes": 1, "whole": True, "missing_bytes": 0,
     "kept_bytes": 1} for each in asked["snapshots"]]}
""",
    "image_pull": """
images = kept("images", [])
answer |= {"settled": asked["image"] in images, "mirrored": True, "id": "sha256:1" if asked["image"] in images else ""}
if not asked.get("settled_only"):
    answer["changed"] = True
    if not check:
        keep("images", [*images, asked["image"]])
        say("pull")
""",
    "patch_pin": f"""
answer |= {{"patches": [{PATCH!r}], "changed": not kept("patched", False)}}
if answer["changed"] and not check:
    keep("patched", True)
    say("patch")
""",
    "serve_info": """
state = kept("state.json", None)
answer |= {"container": kept("container", None), "state": state, "problem": "", "unit": {"text": "", "enabled": False, "watches": False}}
answer["recorded"] = {which: {"missing": [], "stamps": ["1-2"]} for which in ("current", "last_good") if (state or {}).get(which)}
""",
    "memory_reclaim": """
there = kept("container", None)
running = (there or {}).get("status") == "running"
answer |= {"made": not check, "stopped": running and not check, "stopped_at": time.time() if running and not check else None}
if not check:
    say("stop" if running else "room")
    if running:
        keep("container", {**there, "status": "exited"})
""",
    "serve_validate": """
say("judge")
if "--refused-by-vllm" in asked["container"]["command"]:
    fail("expected arguments that vLLM takes, seen --refused-by-vllm")
""",
    "spec_decode_assert": """
command = kept("container", {})["command"]
say("gate " + command[-1])
if command[-1] == "99":
    fail("expected 0.40, seen 0.00", diagnosis="drafts_never_accepted")
answer |= {"verdict": "pass", "drafts": 600, "acceptance_rate": 0.7, "passed_at": time.time(), "ready_at": time.time(),
           "container": {"started_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}, "asked_with": asked.get("api_key")}
""",
    "serve_diff": "answer['changed'] = True",
}
CONTAINER = """
there = kept("container", None)
wanted = {name: asked[name] for name in ("image", "command", "env", "volumes", "labels")}
wanted |= {"status": "running", "restart_policy": "no"}
answer["changed"] = there != wanted
if answer["changed"] and not check:
    say("start " + wanted["command"][-1])
    if wanted["command"][-1] == "13":
        fail("the engine refuses it")
    keep("container", wanted)
"""
# Counts how often the record of what serves is worked out.
COUNTING = """
import importlib.util, os
spec = importlib.util.spec_from_file_location("ansible_collections.sparkfleet.vllm.plugins.filter.real_serving", %r)
real = importlib.util.module_from_spec(spec)
spec.loader.exec_module(real)


class FilterModule:
    def filters(self):
        filters = real.FilterModule().filters()
        compute = filters["vllm_serving"]

        def counted(inputs, state=None):
            with open(os.environ["LAB_COUNT"], "a") as file:
                file.write("worked out\\n")
            return compute(inputs, state)

        return {**filters, "vllm_serving": counted}
"""


def readme_play() -> str:
    """The play that README.md shows.

    :raises AssertionError: there is not exactly one with a list of roles
    """
    blocks = re.findall(r"^```yaml\n(.*?)^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    (play,) = [block for block in blocks if "roles:" in block]
    return play


@dataclass(frozen=True)
class Run:
    output: str
    recap: dict[str, dict[str, int]]
    did: dict[str, list[str]]
    """What the stand-ins of each host were asked to do, in this run."""
    computed: int
    """How often a record was worked out, on all hosts."""


# Every host is another case: what it shall serve beyond the recipe at first, and after that. A last argument of 99 does not pass the
# gate, and with 13 the engine does not start it.
CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "same": ({}, {}),
    "gate-refuses": ({}, {"max-num-seqs": 99}),
    "engine-refuses": ({}, {"max-num-seqs": 13}),
    "vllm-refuses": ({}, {"max-num-seqs": 8, "refused-by-vllm": True}),
    "never-passed": ({"max-num-seqs": 99}, {"max-num-seqs": 99}),
}
GOOD = [host for host, (first, _then) in CASES.items() if not first]


class Fleet:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._collections()
        (folder / "play.yml").write_text(readme_play())
        variables: dict[str, Any] = {
            "ansible_connection": "local",
            "ansible_become": False,
            "ansible_remote_tmp": str(folder / "tmp"),
            "spark_recipe": str(SHIPPED),
            "spark_state_dir": str(folder) + "/{{ inventory_hostname }}",
            "spark_store": str(folder) + "/{{ inventory_hostname }}/store",
            "spark_venv": str(folder) + "/{{ inventory_hostname }}/venv",
            "ansible_python_interpreter": "{{ spark_venv }}/bin/python",
            # The fleet needs no registry of its own, and the container no unit in this machine's systemd.
            "spark_registry_mirrors": ["http://192.0.2.9:5000"],
            "vllm_serve_security": "recipe",
            "vllm_serve_api_key": "key-12345678",
            "vllm_serve_extra_arguments": "{{ lab_then if lab_changed | default(false) else lab_first }}",
            "vllm_serve_unchecked": ["refused-by-vllm"],
        }
        hosts = {host: {"lab_first": first, "lab_then": then} for host, (first, then) in CASES.items()}
        group = {"hosts": hosts, "vars": variables}
        (folder / "hosts.yml").write_text(yaml.safe_dump({"sparks": group}))
        for host in hosts:
            program = folder / host / "venv/bin/python"
            program.parent.mkdir(parents=True)
            program.write_text(f'#!/bin/sh\nLAB_HOST={folder / host} exec {sys.executable} "$@"\n')
            program.chmod(0o755)

    def _collections(self) -> None:
        root = self.folder / "collections/ansible_collections"
        vllm, docker = root / "sparkfleet/vllm", root / "community/docker"
        for path in (
            vllm / "plugins/modules",
            vllm / "plugins/action",
            vllm / "plugins/filter",
            docker / "plugins/modules",
        ):
            path.mkdir(parents=True)
        (vllm / "roles").symlink_to(ROOT / "roles")
        (vllm / "meta").symlink_to(ROOT / "meta")
        for name in ("module_utils", "plugin_utils", "doc_fragments"):
            (vllm / "plugins" / name).symlink_to(ROOT / "plugins" / name)
        for name in ACTIONS:
            (vllm / f"plugins/action/{name}.py").symlink_to(ROOT / f"plugins/action/{name}.py")
        for path in (ROOT / "plugins/filter").iterdir():
            if path.name not in ("serving.py", "__pycache__"):
                (vllm / "plugins/filter" / path.name).symlink_to(path)
        (vllm / "plugins/filter/serving.py").write_text(COUNTING % str(ROOT / "plugins/filter/serving.py"))
        (vllm / "plugins/modules/serve_state.py").symlink_to(ROOT / "plugins/modules/serve_state.py")
        for name, text in STAND_INS.items():
            (vllm / f"plugins/modules/{name}.py").write_text(HEAD + text + TAIL)
        (docker / "plugins/modules/docker_container.py").write_text(HEAD + CONTAINER + TAIL)

    def run(self, *options: str, **variables: Any) -> Run:
        count = self.folder / "count"
        count.write_text("")
        for host in CASES:
            (self.folder / host / "log").write_text("")
        done = run_playbook(
            f"--inventory={self.folder / 'hosts.yml'}",
            f"--extra-vars={json.dumps(variables)}",
            self.folder / "play.yml",
            *options,
            ANSIBLE_COLLECTIONS_PATH=str(self.folder / "collections"),
            LAB_COUNT=str(count),
        )
        output = done.stdout + done.stderr
        rows = re.findall(r"^(\S+) +: (ok=.*)$", output, re.MULTILINE)
        recap = {
            host: {name: int(number) for name, number in re.findall(r"(\w+)=(\d+)", row)}
            for host, row in rows
        }
        assert set(recap) == set(CASES), output
        did = {host: (self.folder / host / "log").read_text().splitlines() for host in CASES}
        return Run(output, recap, did, len(count.read_text().splitlines()))

    def kept(self, host: str, name: str) -> Any:
        path = self.folder / host / name
        return json.loads(path.read_text()) if path.exists() else None


@dataclass(frozen=True)
class Story:
    """Deployed; looked at in check mode with a change; run again, where most hosts shall serve something else."""

    first: Run
    dry: Run
    again: Run
    served: dict[str, Any]
    """{host: [its record, its container] after the first run}"""
    left: dict[str, Any]
    """The same at the end."""


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Story:
    fleet = Fleet(tmp_path_factory.mktemp("fleet"))

    def seen() -> dict[str, Any]:
        return {host: [fleet.kept(host, name) for name in ("state.json", "container")] for host in CASES}

    first = fleet.run()
    served = seen()
    dry = fleet.run("--check", lab_changed=True)
    assert seen() == served
    return Story(first, dry, fleet.run(lab_changed=True), served, seen())


def test_the_play_of_the_readme_is_that_list() -> None:
    (play,) = yaml.safe_load(readme_play())
    assert play["roles"] == [f"sparkfleet.vllm.{role}" for role in ROLES]
    assert set(play) == {"name", "hosts", "become", "gather_facts", "roles"}


def test_a_plain_list_of_roles_deploys_a_host(story: Story) -> None:
    for host in GOOD:
        assert story.first.recap[host]["failed"] == 0, story.first.output
        state, container = story.served[host]
        last = container["command"][-1]
        assert story.first.did[host] == ["pull", "patch", "judge", "room", f"start {last}", f"gate {last}"]
        assert state["current"]["serving"]["container"]["image"] == LOCK["image"]["pinned"]
        assert state["current"]["gate"]["drafts"] == 600
        assert state["current"]["gate"]["host"] == {"driver": "580", "toolkit": "1.18", "engine": "28"}
        assert state["last_good"] is None


def test_the_caches_are_there_before_the_server_and_only_their_owner_gets_to_them(story: Story) -> None:
    """The container's user writes to them, whoever that is; on the host that is root alone."""
    outer, *inner = (
        Path(entry["path"]) for entry in story.served["same"][0]["current"]["serving"]["directories"]
    )
    assert stat.S_IMODE(outer.stat().st_mode) == 0o700
    assert inner and {stat.S_IMODE(path.stat().st_mode) for path in inner} == {0o777}
    assert all(path.is_relative_to(outer) for path in inner)


def test_the_record_is_worked_out_once_a_host_and_run(story: Story) -> None:
    """Whatever becomes of the host: also where it goes back."""
    assert [run.computed for run in (story.first, story.dry, story.again)] == [len(CASES)] * 3


def test_a_second_run_changes_nothing_and_measures(story: Story) -> None:
    recap = story.again.recap["same"]
    assert (recap["changed"], recap["failed"]) == (0, 0), story.again.output
    assert [line.split()[0] for line in story.again.did["same"]] == ["gate"]
    assert story.left["same"] == story.served["same"]


def test_check_mode_says_what_would_change(story: Story) -> None:
    """That it changes nothing is held where it is run."""
    assert story.dry.recap["gate-refuses"]["changed"] > 0
    assert story.dry.recap["same"]["changed"] == 0
    assert {host: story.dry.did[host] for host in ("same", "gate-refuses")} == {
        "same": [],
        "gate-refuses": ["judge"],
    }


@pytest.mark.parametrize(
    ("host", "begins", "because"),
    [
        ("gate-refuses", ["judge", "stop", "start 99", "gate 99", "stop"], "expected 0.40, seen 0.00"),
        ("engine-refuses", ["judge", "stop", "start 13", "room"], "the engine refuses it"),
    ],
)
def test_what_does_not_pass_or_start_gives_way_to_what_passed_before(
    story: Story, host: str, begins: list[str], because: str
) -> None:
    passed = story.served[host][1]["command"][-1]
    assert story.again.did[host] == [*begins, f"start {passed}", f"gate {passed}"]
    assert story.left[host] == story.served[host]
    assert story.again.recap[host]["failed"] == 1
    said = re.search(
        rf"fatal: \[{host}\]: FAILED! => *\n.*?Rolled back to what passed before, and it passes again",
        story.again.output,
        re.DOTALL,
    )
    assert said and because in said[0]


def test_what_vllm_refuses_never_stops_a_server(story: Story) -> None:
    assert story.again.did["vllm-refuses"] == ["judge"]
    assert story.again.recap["vllm-refuses"]["failed"] == 1
    assert story.left["vllm-refuses"] == story.served["vllm-refuses"]


def test_a_first_server_that_does_not_pass_stays_and_is_judged_again(story: Story) -> None:
    assert story.first.did["never-passed"][-2:] == ["start 99", "gate 99"]
    assert story.again.did["never-passed"] == ["gate 99"]
    assert [run.recap["never-passed"]["failed"] for run in (story.first, story.again)] == [1, 1]
    assert story.left["never-passed"][0] is None


def test_no_output_holds_the_key(story: Story) -> None:
    assert not any("key-12345678" in run.output for run in (story.first, story.dry, story.again))
