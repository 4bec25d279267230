"""The action plugin and the role, through ansible-playbook, over hosts that do not exist."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from helpers.hub import lab_hub
from helpers.playbook import run_playbook
from helpers.recipe import BODY, DRAFT, IMAGE, ROOT, SHIPPED, TAG, depot

NAME = "huihui-gemma4-mtp-n1"
# Addresses of TEST-NET-1, behind an ssh that only writes down that it was called.
HOSTS = {"spark-a": {"ansible_host": "192.0.2.1"}, "spark-b": {"ansible_host": "192.0.2.2"}}
LOAD = """
- hosts: sparks
  gather_facts: false
  become: true
  serial: {serial}
  tasks:
    - import_role: {{name: sparkfleet.vllm.recipe}}
    - debug: {{msg: "{{{{ {{'patches': recipe_lock.patches, 'port': recipe.serve.port}} | to_json }}}}"}}
"""


class Site:
    """An inventory directory, and playbooks run against it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.connected = folder / "connected"
        ssh = folder / "ssh"
        ssh.write_text(f"#!/bin/sh\necho x >> {self.connected}\nexit 255\n")
        ssh.chmod(0o755)
        self.variables = {
            "ansible_ssh_executable": str(ssh),
            "recipe_lock_dir": "locks",
            "recipe_cache_dir": str(folder / "cache"),
        }
        self.hosts = dict(HOSTS)
        (folder / "recipes").mkdir()
        (folder / "load.yml").write_text(LOAD.format(serial="100%"))
        self.lock_path = folder / "locks" / f"{NAME}.lock.yml"

    def recipe(self, name: str, *edits: tuple[str, str]) -> Path:
        text = SHIPPED.read_text().replace(f"name: {NAME}", f"name: {name}")
        for old, new in edits:
            assert old in text
            text = text.replace(old, new, 1)
        path = self.folder / "recipes" / f"{name}.yml"
        path.write_text(text)
        return path

    def run(self, playbook: str | Path = "load.yml", *arguments: str) -> tuple[int, str]:
        inventory = self.folder / "hosts.yml"
        inventory.write_text(yaml.safe_dump({"sparks": {"hosts": self.hosts, "vars": self.variables}}))
        done = run_playbook(
            "-i",
            inventory,
            self.folder / playbook,
            *arguments,
            cwd=self.folder,
            ANSIBLE_LOCALHOST_WARNING="false",
            HF_TOKEN="",
        )
        return done.returncode, done.stdout + done.stderr

    def passes(self, *arguments: str) -> None:
        status, told = self.run("load.yml", *arguments)
        assert status == 0, told


@pytest.fixture
def site(tmp_path):
    return Site(tmp_path)


@pytest.fixture
def upstream(site, tmp_path):
    """A registry, a Hub and a raw file server for the inventory; Docker Hub's mirror is the registry."""
    with lab_hub(tmp_path / "hub") as hub, depot() as server:
        hub.add(BODY, {"config.json": b"{}"})
        hub.add(DRAFT, {"config.json": b"{}"}, commit="d" * 40)
        site.variables |= {
            "spark_hub_endpoint": hub.url,
            "spark_raw_endpoint": f"{server.url}/raw",
            "spark_registry_mirrors": [server.url],
        }
        yield server


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (("port: 8000", "prot: 8000"), "serve.prot: unknown key; nearest valid key: port"),
        (("port: 8000", "port: '8000'"), "serve.port: expected a whole number, seen the text '8000'"),
        (("    revision: main\n", ""), "models.draft.revision: required and missing"),
    ],
    ids=["misspelled key", "wrong type", "missing value"],
)
def test_a_wrong_recipe_stops_before_any_host_is_touched(site, edit, says):
    site.recipe("mine", edit)
    status, told = site.run("load.yml", "-e", "spark_recipe=mine")
    assert status == 2
    flat = " ".join(told.split())
    assert "recipes/mine.yml:" in flat and says in flat
    assert not site.connected.exists()


def test_a_recipe_beside_the_inventory_extends_a_shipped_one_and_has_a_lock_of_its_own(site, upstream):
    (site.folder / "recipes" / "mine.yml").write_text(
        f"name: mine\nextends: {NAME}\nserve: {{port: 8123, arguments: {{max-num-seqs: 4}}}}\n"
    )
    status, told = site.run("load.yml", "-e", "spark_recipe=mine")
    assert status == 0, told
    assert "8123" in told and not site.connected.exists()
    lock = yaml.safe_load((site.folder / "locks" / "mine.lock.yml").read_text())
    assert lock["recipe"] == "mine"
    assert not site.lock_path.exists()


def test_a_recipe_in_a_directory_that_is_the_inventory_is_refused(site):
    recipe = site.recipe("mine")
    inside = site.folder / "fleet/recipes/mine.yml"
    inside.parent.mkdir(parents=True)
    recipe.rename(inside)
    status, told = site.run(
        "load.yml", "-i", site.folder / "fleet", "-e", "spark_recipe=fleet/recipes/mine.yml"
    )
    assert status == 2 and not site.connected.exists()
    flat = " ".join(told.split())
    assert "which Ansible reads whole as inventory, seen fleet/recipes/mine.yml in it" in flat


def test_problems_of_an_extended_recipe_name_its_file_and_stop_before_any_host(site):
    site.recipe("base", ("port: 8000", "port: 80000"))
    (site.folder / "recipes" / "mine.yml").write_text("name: mine\nextends: base\nimage: {referense: a}\n")
    status, told = site.run("load.yml", "-e", "spark_recipe=mine")
    flat = " ".join(told.split())
    assert status == 2 and "2 problems" in flat
    assert "recipes/mine.yml:3: image.referense" in flat and "recipes/base.yml:" in flat
    (site.folder / "recipes" / "mine.yml").write_text("name: mine\nextends: bass\n")
    flat = " ".join(site.run("load.yml", "-e", "spark_recipe=mine")[1].split())
    assert "recipes/mine.yml:2: extends: expected one of base, " in flat and "nearest: base" in flat
    assert not site.connected.exists()


DEEPER = {"vllm_serve_extra_arguments": {"speculative-config": {"num_speculative_tokens": 4}}}


def test_an_option_that_is_unknown_here_is_a_warning_told_once(site, upstream):
    """By the recipe and by the inventory of two hosts, and what they do goes on to the hosts."""
    site.recipe("mine", ("max-model-len: 8192", "max-modle-len: 8192"))
    site.variables["vllm_serve_extra_arguments"] = {
        "swap-space": 4,
        "speculative-config": {"draft_temprature": 0},
    }
    _status, told = site.run(ROOT / "playbooks" / "site.yml", "-e", "spark_recipe=mine")
    flat = " ".join(told.replace("\n", " ").split())
    for words in (
        "serve.arguments.max-modle-len: vLLM 0.33.0 has no such option; nearest: max-model-len; the vLLM of the image decides",
        "vllm_serve_extra_arguments.swap-space: vLLM 0.33.0 has no such option",
        "vllm_serve_extra_arguments.speculative-config.draft_temprature: vLLM 0.33.0 has no such key",
    ):
        assert flat.count(words) == 1, told
    assert site.connected.exists()


def test_what_is_unknown_is_told_beside_what_is_wrong(site):
    site.recipe("mine", ("max-model-len: 8192", "max-modle-len: 8192"), ("port: 8000", "port: 80000"))
    status, told = site.run("load.yml", "-e", "spark_recipe=mine")
    flat = " ".join(told.split())
    assert status == 2 and "1 problem" in flat and "nearest: max-model-len" in flat
    assert not site.connected.exists()


def test_an_inventory_that_goes_deeper_than_what_paid_stops_before_any_host(site, upstream):
    # On one host of two: the run stops for both.
    site.hosts["spark-b"] = {"ansible_host": "192.0.2.2", **DEEPER}
    status, told = site.run(ROOT / "playbooks" / "site.yml")
    flat = " ".join(told.split())
    assert status == 2
    for words in ("at most 1", "seen 4:", "52.4 tok/s", "vllm_serve_allow_deeper: true"):
        assert words in flat, told
    assert not site.connected.exists()


def test_an_inventory_that_means_it_goes_deeper(site, upstream):
    site.variables |= DEEPER | {"vllm_serve_allow_deeper": True}
    _status, told = site.run(ROOT / "playbooks" / "site.yml")
    assert "at most 1" not in told
    assert site.connected.exists()


def test_the_hosts_of_these_tests_cannot_be_reached(site):
    (site.folder / "ping.yml").write_text("- {hosts: sparks, gather_facts: false, tasks: [{ping: }]}\n")
    assert "UNREACHABLE" in site.run("ping.yml")[1]
    assert site.connected.exists()


def test_every_problem_of_the_site_playbook_s_recipe_comes_before_the_hosts(site):
    path = site.recipe("mine", ("port: 8000", "prot: 8000"), ("method: mtp", "method: on"))
    status, told = site.run(ROOT / "playbooks" / "site.yml", "-e", f"spark_recipe={path}")
    assert status == 2
    assert "2 problems" in told
    assert not site.connected.exists()


def test_an_unknown_recipe_names_the_nearest_and_where_was_looked(site):
    site.recipe("mine")
    told = " ".join(site.run("load.yml", "-e", "spark_recipe=mien")[1].split())
    assert "nearest: mine;" in told and NAME in told
    told = " ".join(site.run("load.yml", "-e", "spark_recipe=./nowhere.yml")[1].split())
    assert "expected a file, seen none at nowhere.yml" in told


def test_two_recipes_of_one_name_are_refused(site):
    (site.folder / "recipes" / f"{NAME}.yml").write_text(SHIPPED.read_text())
    told = " ".join(site.run("load.yml")[1].split())
    assert "expected one, seen" in told and "rename yours" in told


def test_hosts_that_ask_for_different_recipes_are_refused(site):
    site.hosts["spark-b"] = {"ansible_host": "192.0.2.2", "spark_recipe": "other"}
    told = " ".join(site.run("load.yml")[1].split())
    assert f"seen other for this host and {NAME} for the first" in told
    assert "Resolve the recipe" not in told


def test_first_run_locks_second_changes_nothing_and_no_host_is_touched(site, upstream):
    status, told = site.run("load.yml", "--check")
    assert status == 0, told
    assert not site.lock_path.exists()
    assert "changed=1" in told
    status, told = site.run()
    assert status == 0, told
    assert "trust on first use" in told
    lock = yaml.safe_load(site.lock_path.read_text())
    assert lock["image"]["pinned"] == f"{IMAGE}@{upstream.digest()}"
    (site.folder / "load.yml").write_text(LOAD.format(serial="1"))
    status, told = site.run("load.yml", "-e", "spark_locked=true")
    assert status == 0, told
    assert told.count("changed=0") == 2
    assert not site.connected.exists()
    # Both batches of the rollout got the facts, with the patch's file on the controller.
    assert told.count(str(site.folder / "cache" / "patches")) >= 2
    assert yaml.safe_load(site.lock_path.read_text()) == lock


def test_locked_without_a_lock_is_refused(site, upstream):
    status, told = site.run("load.yml", "-e", "spark_locked=true")
    assert status == 2
    assert "told to go by a lock only" in " ".join(told.split())


def test_a_moved_tag_stops_the_run_and_lock_takes_it_with_a_diff(site, upstream):
    site.passes()
    old = upstream.digest()
    upstream.manifests[f"{IMAGE}:{TAG}"] = b'{"moved": true}'
    status, told = site.run()
    assert status == 2
    assert f"locked {old}, upstream {upstream.digest()}" in told
    status, told = site.run(ROOT / "playbooks" / "lock.yml", "--diff", "--limit", "spark-b")
    assert status == 0, told
    assert f"-image.digest: {old}" in told and f"+image.digest: {upstream.digest()}" in told
    assert (
        "models.body"
        not in told.partition(": Show the lock]")[0].partition("--- ")[2].partition("changed:")[0]
    )
    site.passes()


def test_a_recipe_edited_after_its_lock_says_what_to_do(site, upstream):
    site.recipe("mine")
    site.passes("-e", "spark_recipe=mine")
    site.recipe("mine", ("revision: main", "revision: v2"))
    status, told = site.run("load.yml", "-e", "spark_recipe=mine")
    assert status == 2
    told = " ".join(told.split())
    assert "models.draft: revision: locked main, recipe v2" in told
    assert "ansible-playbook sparkfleet.vllm.lock" in told


def test_an_edited_lock_is_refused_with_its_line(site, upstream):
    site.passes()
    site.lock_path.write_text(site.lock_path.read_text().replace("md5: ", "md5: x"))
    told = " ".join(site.run()[1].split())
    assert "the lock of recipe" in told and "patches[0].md5: expected 32 hex digits" in told


def test_lock_needs_no_host_at_all(site, upstream):
    extra = {**site.variables, "recipe_lock_dir": str(site.folder / "locks")}
    site.hosts = {}
    status, told = site.run(ROOT / "playbooks" / "lock.yml", "-e", json.dumps(extra))
    assert status == 0, told
    assert site.lock_path.exists()
