# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The role model_sync over hosts that are directories: one fetches what none has, the others get it from there, whatever fails first.

The real role, plan and report run. The modules that download and share are stand-ins, which write down what they were asked for; with
real bytes the same is shown by the scenario fan_out.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers.playbook import run_playbook
from helpers.recipe import ROOT

BODY, DRAFT = "b" * 40, "d" * 40
MODELS = {
    "body": {"repository": "lab/b", "commit": BODY, "files": {}},
    "draft": {"repository": "lab/d", "commit": DRAFT, "files": {}},
}
# A host is the directory that its store is. `whole.json` are the commits that it has.
HEAD = """
import json, os
from ansible.module_utils.basic import AnsibleModule

module = AnsibleModule({name: {"type": "raw", "no_log": name == "swarm"} for name in (
    "snapshots store endpoint token transport max_workers retries disk_reserve timeout interface address verify hash fetch pair speculation"
    " state name port peers swarm torrents idle").split()}, supports_check_mode=True)
asked, folder = module.params, module.params["store"]
path = os.path.join(folder, "whole.json")
whole = json.load(open(path)) if os.path.exists(path) else []


def bring(commits):
    json.dump(whole + commits, open(path, "w"))


def say(line):
    with open(os.path.join(folder, "log"), "a") as file:
        file.write(json.dumps(line) + "\\n")


commits = [each["commit"] for each in asked["snapshots"] or []]
"""
HF_SNAPSHOT = """
if module.check_mode:
    module.exit_json(changed=True, msg="would bring " + " ".join(commits))
say(["fetch", commits])
if os.path.exists(os.path.join(folder, "no-hub")):
    module.fail_json(msg="the Hub does not answer")
bring(commits)
module.exit_json(changed=True, snapshots=[
    {"commit": commit, "state": "fetched", "fetched_bytes": 100, "seconds": 1.0} for commit in commits])
"""
HF_SNAPSHOT_INFO = """
json.dump([asked["pair"], asked["speculation"]], open(os.path.join(folder, "judged.json"), "w"))
look = [{"repository": each["repository"], "commit": each["commit"], "bytes": 100, "whole": each["commit"] in whole,
         "missing_bytes": 0 if each["commit"] in whole else 100, "kept_bytes": 0} for each in asked["snapshots"]]
module.exit_json(settled=all(each["whole"] for each in look), unchecked=False, look=look, fits=True, address=os.path.basename(folder),
                 check_mode=module.check_mode)
"""
SNAPSHOT_TORRENT = """
say(["describe", commits])
module.exit_json(torrents={commit: "of " + commit for commit in commits if commit in whole})
"""
SNAPSHOT_PEER = """
if asked["state"] == "started":
    say(["meet", commits, asked["peers"], asked["torrents"], asked["swarm"]])
    json.dump(commits, open(os.path.join(folder, "meets.json"), "w"))
    module.exit_json()
met = json.load(open(os.path.join(folder, "meets.json")))
new = [commit for commit in met if commit not in whole]
bring(new)
report = [{"commit": commit, "state": "fetched", "fetched_bytes": 0, "seconds": 1.0} for commit in met]
status = {"state": "whole", "snapshots": report, "problem": "", "seconds": 1.0, "from": {"one": 100} if new else {}}
say([asked["state"]])
module.exit_json(settled=True, problem="", status=status)
"""
PLAY = """
- hosts: all
  gather_facts: false
  roles: [sparkfleet.vllm.model_sync]
"""


class Fleet:
    def __init__(self, folder: Path, **whole: list[str]) -> None:
        self.folder, self.names = folder, list(whole)
        vllm = folder / "collections/ansible_collections/sparkfleet/vllm"
        (vllm / "plugins/modules").mkdir(parents=True)
        (vllm / "plugins/action").mkdir()
        (vllm / "roles").mkdir()
        (vllm / "roles/model_sync").symlink_to(ROOT / "roles/model_sync")
        for name in ("module_utils", "plugin_utils", "filter"):
            (vllm / "plugins" / name).symlink_to(ROOT / "plugins" / name)
        for name in ("sync_plan", "sync_report"):
            (vllm / f"plugins/action/{name}.py").symlink_to(ROOT / f"plugins/action/{name}.py")
        (vllm / "plugins/modules/model_pair.py").symlink_to(ROOT / "plugins/modules/model_pair.py")
        for name, text in (
            ("hf_snapshot", HF_SNAPSHOT),
            ("hf_snapshot_info", HF_SNAPSHOT_INFO),
            ("snapshot_torrent", SNAPSHOT_TORRENT),
            ("snapshot_peer", SNAPSHOT_PEER),
        ):
            (vllm / f"plugins/modules/{name}.py").write_text(HEAD + text)
        for name, commits in whole.items():
            (folder / name).mkdir()
            (folder / name / "whole.json").write_text(json.dumps(commits))
        variables: dict[str, Any] = {
            "ansible_connection": "local",
            "ansible_python_interpreter": sys.executable,
            "model_sync_python": sys.executable,
            "model_sync_store": str(folder) + "/{{ inventory_hostname }}",
            "model_sync_models": MODELS,
            "model_sync_check_pair": False,
        }
        inventory = {"all": {"hosts": dict.fromkeys(whole), "vars": variables}}
        (folder / "hosts.yml").write_text(yaml.safe_dump(inventory))
        (folder / "play.yml").write_text(PLAY)

    def run(self, *options: str) -> subprocess.CompletedProcess[str]:
        return run_playbook(
            "--inventory=hosts.yml",
            "play.yml",
            *options,
            cwd=self.folder,
            ANSIBLE_COLLECTIONS_PATH=str(self.folder / "collections"),
            COLUMNS="300",
        )

    def did(self, name: str) -> list[list[Any]]:
        path = self.folder / name / "log"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def whole(self, name: str) -> list[str]:
        found: list[str] = json.loads((self.folder / name / "whole.json").read_text())
        return sorted(found)


def test_one_fetches_what_none_has_and_the_others_get_it_from_there(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, one=[], two=[DRAFT], three=[])
    done = fleet.run("-vvv")
    assert done.returncode == 0, done.stdout + done.stderr
    assert [fleet.whole(name) for name in fleet.names] == [[BODY, DRAFT]] * 3
    # The one that has most fetches; each describes what the others lack.
    assert [name for name in fleet.names if ["fetch", [BODY]] in fleet.did(name)] == ["two"]
    meets = {name: [line for line in fleet.did(name) if line[0] == "meet"] for name in fleet.names}
    (first,) = meets["two"]
    _meet, commits, peers, torrents, swarm = first
    assert sorted(commits) == [BODY, DRAFT]
    assert peers == {name: name for name in fleet.names}
    assert torrents == {BODY: f"of {BODY}", DRAFT: f"of {DRAFT}"}
    assert len(swarm) == 64
    assert all(line[2:] == first[2:] for lines in meets.values() for line in lines)
    assert ["finished"] in fleet.did("one") and ["finished"] not in fleet.did("two")
    assert swarm not in done.stdout, "a secret of the run is shown to nobody"


def test_what_one_host_has_is_shared_and_fetched_by_nobody(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, one=[BODY, DRAFT], two=[])
    done = fleet.run()
    assert done.returncode == 0, done.stdout + done.stderr
    assert [fleet.whole(name) for name in fleet.names] == [[BODY, DRAFT]] * 2
    assert not any(line[0] == "fetch" for name in fleet.names for line in fleet.did(name))


def test_where_all_is_in_place_nothing_is_brought_and_nothing_reported(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, one=[BODY, DRAFT], two=[BODY, DRAFT])
    done = fleet.run()
    assert done.returncode == 0, done.stdout + done.stderr
    assert [fleet.did(name) for name in fleet.names] == [[], []]
    assert "from the Hub" not in done.stdout


def test_another_host_fetches_where_the_first_cannot_and_a_host_that_stays_incomplete_says_why(
    tmp_path: Path,
) -> None:
    fleet = Fleet(tmp_path, one=[DRAFT], two=[])
    (tmp_path / "one/no-hub").touch()
    done = fleet.run()
    assert done.returncode == 0, done.stdout + done.stderr
    assert [fleet.whole(name) for name in fleet.names] == [[BODY, DRAFT]] * 2
    assert "could not fetch: the Hub does not answer" in done.stdout


def test_a_check_run_brings_nothing(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, one=[], two=[])
    done = fleet.run("--check")
    assert done.returncode == 0, done.stdout + done.stderr
    assert [fleet.whole(name) for name in fleet.names] == [[], []]
    assert [fleet.did(name) for name in fleet.names] == [[], []]
    assert "would fetch" in done.stdout and "would receive" in done.stdout


@pytest.mark.parametrize(
    ("models", "method", "pair"),
    [(MODELS, "eagle3", ["lab/b", "lab/d"]), ({"body": MODELS["body"]}, "dspark", ["lab/b"]), ({"body": MODELS["body"]}, "ngram", [])],
)  # fmt: skip
def test_a_pair_is_judged_by_what_the_recipe_speculates_with(
    tmp_path: Path, models: dict[str, Any], method: str, pair: list[str]
) -> None:
    fleet = Fleet(tmp_path, one=[BODY, DRAFT])
    speculation = {"method": method, "num_speculative_tokens": 5}
    variables = {
        "recipe": {"serve": {"arguments": {"speculative-config": speculation}}},
        "model_sync_models": models,
    }
    inventory = yaml.safe_load((tmp_path / "hosts.yml").read_text())
    inventory["all"]["vars"] |= variables
    del inventory["all"]["vars"]["model_sync_check_pair"]
    (tmp_path / "hosts.yml").write_text(yaml.safe_dump(inventory))
    done = fleet.run()
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads((tmp_path / "one/judged.json").read_text()) == [pair, speculation]
