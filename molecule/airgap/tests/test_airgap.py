"""What the hosts and the other controller show after converge: a fleet that was installed without a network."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import yaml

ISLAND = Path(os.environ["MOLECULE_PROJECT_DIRECTORY"]) / ".cache/lab/airgap"
MADE = Path(os.environ["MOLECULE_SCENARIO_DIRECTORY"]) / "lab-locks/airgap.lock.yml"
STORE, BUNDLE = "/srv/sparkfleet", "/srv/disk/sparkfleet-bundle"


@pytest.fixture(scope="module")
def lock():
    return yaml.safe_load((ISLAND / "locks/airgap.lock.yml").read_text())


def test_the_controller_has_what_the_bundle_was_made_of(lock):
    assert (ISLAND / "locks/airgap.lock.yml").read_bytes() == MADE.read_bytes()
    recipe = Path(os.environ["MOLECULE_SCENARIO_DIRECTORY"]) / "files/airgap.yml"
    assert (ISLAND / "recipes/airgap.yml").read_bytes() == recipe.read_bytes()
    (patch,) = lock["patches"]
    assert (ISLAND / f"cache/patches/{patch['sha256']}/{patch['name']}").stat().st_size == patch["size"]


@pytest.mark.parametrize("part", ["body", "draft"])
def test_every_model_file_has_the_locked_hash(sudo, lock, part):
    model = lock["models"][part]
    folder = f"{STORE}/models/{model['repository'].replace('/', '--')}/{model['commit']}"
    lines = sudo(f"sh -c 'cd {folder} && find . -type f | xargs sha256sum'").splitlines()
    seen = {path.removeprefix("./"): sha256 for sha256, path in map(str.split, lines)}
    assert seen == {path: file["sha256"] for path, file in model["files"].items()}


def test_the_locked_image_serves(sudo, lock):
    container = json.loads(sudo("docker inspect sparkfleet-vllm"))[0]
    assert container["State"]["Running"]
    assert container["Config"]["Image"] == lock["image"]["pinned"]
    assert json.loads(sudo("cat /var/lib/sparkfleet/state.json"))["current"]["gate"]["drafts"] >= 200


def test_the_modules_environment_came_from_the_wheels(sudo):
    assert "2.1.1" in sudo(
        "/opt/sparkfleet/venv/bin/python -c 'import libtorrent; print(libtorrent.__version__)'"
    )


def test_nothing_serves_the_bundle_any_more(host, sudo):
    assert "sparkfleet-bundle" not in sudo("systemctl list-units --all --plain --no-legend")
    assert ":8618" not in sudo("ss -ltnH")


def test_the_host_of_the_bundle_serves_the_image_from_its_own_store(host, name):
    registry = host.service("sparkfleet-registry")
    assert registry.is_running == (name == "disk")
    if name == "disk":
        assert BUNDLE not in host.file("/etc/sparkfleet-registry.yml").content_string
        assert not host.service("docker-registry").is_running


def test_the_bundle_is_as_it_was_written(sudo, name):
    if name != "disk":
        pytest.skip("it has none")
    listed = json.loads(sudo(f"cat {BUNDLE}/bundle.json"))["files"]
    lines = sudo(f"sh -c 'cd {BUNDLE} && find . -type f | xargs -d \\\\n sha256sum'").splitlines()
    seen = {
        path.strip().removeprefix("./"): sha256 for sha256, _, path in (line.partition(" ") for line in lines)
    }
    assert {path: seen.get(path) for path in listed} == {
        path: file["sha256"] for path, file in listed.items()
    }
