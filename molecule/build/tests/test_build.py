"""What the hosts themselves show after an image was built, served, built again and served again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

HERE = Path(__file__).resolve().parents[1]
STORAGE = "/srv/sparkfleet/registry"
REGISTRY = "http://172.31.250.161:5000/v2/sparkfleet-lab/built"


@pytest.fixture
def image():
    """The image as the lock has it."""
    return yaml.safe_load((HERE / "lab-locks" / "built.lock.yml").read_text())["image"]


@pytest.fixture
def builds(name):
    if name != "one":
        pytest.skip("the other one builds")


def test_both_serve_the_image_of_the_lock(sudo, image):
    state = json.loads(sudo("cat /var/lib/sparkfleet/state.json"))
    assert state["current"]["serving"]["container"]["image"] == image["pinned"]
    seen = sudo("docker inspect --format '{{ .Image }}' sparkfleet-vllm")
    assert seen == sudo(f"docker image inspect --format '{{{{ .Id }}}}' {image['pinned']}")


def test_it_was_built_from_the_commit_its_stage_and_its_arguments(sudo, image):
    assert sudo("docker exec sparkfleet-vllm cat /opt/built/commit") == image["build"]["commit"]
    labels = json.loads(
        sudo(f"docker image inspect --format '{{{{ json .Config.Labels }}}}' {image['pinned']}")
    )
    assert labels["sparkfleet.lab.edition"] == "two"
    assert labels["org.opencontainers.image.revision"] == image["build"]["commit"]
    assert len(labels["sparkfleet.build"]) == 64


def test_its_name_leads_to_its_digest_in_the_fleets_registry(host, image, builds):
    kind = "application/vnd.docker.distribution.manifest.v2+json"
    tag = image["reference"].rpartition(":")[2]
    answer = host.run(f"curl -sI -H 'Accept: {kind}' {REGISTRY}/manifests/{tag}").stdout
    assert f"docker-content-digest: {image['digest']}" in answer.lower()


def test_every_byte_of_the_storage_is_what_its_name_says_and_root_s(sudo, builds):
    for path in sudo(f"find {STORAGE}/docker/registry/v2/blobs -name data").splitlines():
        assert sudo(f"sha256sum {path}").split()[0] == path.split("/")[-2]
    assert sudo(f"find {STORAGE} -not -user root -o -perm /022") == ""


def test_nothing_but_the_log_is_left_of_a_build(sudo, builds):
    assert sudo("ls /srv/sparkfleet/build") == "build.log"
    assert "127.0.0.1" not in sudo("docker image ls")
    assert sudo("ss -ltnH src 127.0.0.1").count("docker-registry") == 0


def test_nobody_outside_was_asked_for_it():
    """The depot is the next mirror of both engines, and what the controller would ask."""
    log = HERE.parents[1] / ".cache/lab/depot/log/registry.log"
    asked = [
        line for line in log.read_text(errors="replace").splitlines() if "/v2/sparkfleet-lab/built/" in line
    ]
    assert asked == []
