"""The image of a controller: what ansible-builder makes of its definition, and what it reads of the collection itself."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_builder._target_scripts import introspect
from helpers.recipe import ROOT

HOME = ROOT / "execution-environment"
DEFINITION: dict[str, Any] = yaml.safe_load((HOME / "execution-environment.yml").read_text())
GALAXY: dict[str, Any] = yaml.safe_load((ROOT / "galaxy.yml").read_text())
ARCHIVE = "{namespace}-{name}-{version}.tar.gz".format(**GALAXY)
# Whose registry and whose index is asked is the builder's to say: not the definition's.
HOST = re.compile(r"https?://|\b[a-z0-9-]+\.(?:io|com|org|net|dev)\b")
SECRET = re.compile(r"(?i)token|password|secret|api_key")


def needed(kind: str) -> list[str]:
    named = yaml.safe_load((ROOT / "meta/execution-environment.yml").read_text())["dependencies"][kind]
    return [line for line in (ROOT / named).read_text().splitlines() if not line.startswith("#")]


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made beside an archive of the release's name; what is in that one is nothing to the builder."""
    folder = tmp_path_factory.mktemp("image")
    shutil.copy(HOME / "execution-environment.yml", folder)
    (folder / ARCHIVE).write_bytes(b"release")
    program = Path(sys.executable).with_name("ansible-builder")
    done = subprocess.run(
        [program, "create", "--output-filename", "Containerfile"], cwd=folder, capture_output=True, text=True, check=False
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "No matches" not in done.stdout + done.stderr
    return folder / "context"


def test_the_release_of_this_version_is_in_it(context):
    (collection,) = yaml.safe_load((context / "_build/requirements.yml").read_text())["collections"]
    assert collection == {"name": f"/build/collections/{ARCHIVE}", "type": "file"}
    assert (context / "_build/collections" / ARCHIVE).read_bytes() == b"release"


def test_the_steps_are_those_of_the_definition(context):
    steps = (context / "Containerfile").read_text()
    stated = DEFINITION["dependencies"]
    assert f'ARG EE_BASE_IMAGE="{DEFINITION["images"]["base_image"]["name"]}"' in steps
    assert f'ARG PYCMD="{stated["python_interpreter"]["python_path"]}"' in steps
    packages = [stated[kind]["package_pip"] for kind in ("ansible_core", "ansible_runner")]
    assert f'ARG ANSIBLE_INSTALL_REFS="{" ".join(packages)}"' in steps
    for step in (
        "RUN $PYCMD -m pip install --no-cache-dir $ANSIBLE_INSTALL_REFS",
        "RUN $PYCMD /output/scripts/introspect.py introspect --write-bindep=/tmp/src/bindep.txt --write-pip=/tmp/src/requirements.txt",
        *DEFINITION["additional_build_steps"]["prepend_base"],
        "USER 1000",
    ):
        assert f"\n{step}\n" in steps
    # Dependencies of collections come with Ansible.
    assert 'ARG ANSIBLE_GALAXY_CLI_COLLECTION_OPTS="--offline"' in steps


def test_no_host_and_no_secret_is_in_it(context):
    own = [
        path
        for path in context.rglob("*")
        if path.is_file() and "scripts" not in path.parts and path.name != ARCHIVE
    ]
    assert {path.name for path in own} == {"Containerfile", "requirements.yml"}
    for path in own:
        assert not HOST.search(path.read_text()) and not SECRET.search(path.read_text()), path


def test_the_patterns_of_that_test_find_what_they_are_for():
    assert all(map(HOST.search, ["https://example.com/x", "FROM registry.example.com/a", "quay.io/a/b"]))
    assert not HOST.search("FROM debian:12-slim") and SECRET.search("ENV HF_TOKEN=x")


def test_ansible_is_the_one_that_is_pinned_elsewhere():
    pinned = (ROOT / "requirements/dev.txt").read_text().splitlines()
    core, runner = (
        DEFINITION["dependencies"][kind]["package_pip"] for kind in ("ansible_core", "ansible_runner")
    )
    assert core in needed("python") and core in pinned
    assert runner in pinned


def test_what_the_collection_needs_is_found_in_it_where_it_is_installed(tmp_path):
    installed = tmp_path / "ansible_collections/sparkfleet/vllm"
    for name in ("meta", "requirements"):
        shutil.copytree(ROOT / name, installed / name)
    (installed / "MANIFEST.json").write_text("{}")
    found = introspect.process(data_dir=str(tmp_path))
    python = introspect.filter_requirements(
        introspect.strip_comments(found["python"]), exclude=list(introspect.EXCLUDE_REQUIREMENTS)
    )
    bare = [line.partition("#")[0].strip() for line in python]
    wanted = [line for line in needed("python") if not line.startswith("ansible==")]
    assert bare == wanted and len(bare) >= 2
    assert found["system"]["sparkfleet.vllm"] == needed("system")


def test_what_a_controller_module_needs_is_in_the_list():
    """The modules that run on a controller, and what they say that they need."""
    names = {re.split(r"[=<>~\s]", line)[0].replace("_", "-").lower() for line in needed("python")}
    page = (ROOT / "plugins/modules/recipe_lock.py").read_text()
    said = set(re.findall(r"^  - (\S+) \(Python package\)$", page, re.M))
    # PyYAML is one of Ansible's own.
    assert {name.replace("_", "-").lower() for name in said} - {"pyyaml"} <= names and len(said) == 3


def test_the_page_says_what_the_definition_says():
    page = (ROOT / "docs/controller.md").read_text()
    assert DEFINITION["images"]["base_image"]["name"] in page
    assert f"--tag registry.example.com/sparkfleet-ee:{GALAXY['version']}" in page
    assert (
        f"sparkfleet-ee:{GALAXY['version']}" in page.partition("spark_controller_image: ")[2].splitlines()[0]
    )
