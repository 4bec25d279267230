"""What the host itself shows after converge: the oldest of three generations has gone."""

from __future__ import annotations

import json

import pytest

BODY = "/srv/sparkfleet/models/lab--body"


@pytest.fixture
def state(sudo):
    return json.loads(sudo("cat /var/lib/sparkfleet/state.json"))


def paths(entry):
    return [model["path"] for model in entry["serving"]["models"].values()]


def test_what_serves_still_does(sudo):
    assert json.loads(sudo("docker inspect sparkfleet-vllm"))[0]["State"]["Running"]
    assert sudo("docker exec sparkfleet-vllm sh -c 'wc -c </models/body/model.safetensors'") == "1000000"


def test_of_the_models_two_generations_and_the_one_to_come_are_left_with_what_belongs_to_them(sudo, state):
    listed = sudo(f"ls -A {BODY}").split()
    commits = {name for name in listed if len(name) == 40}
    assert len(commits) == 3
    assert {
        path.rpartition("/")[2] for entry in ("current", "last_good") for path in paths(state[entry])[:1]
    } < commits
    beside = {f".{kind}-{commit}.json" for commit in commits for kind in ("verified", "pieces")}
    assert set(listed) == commits | beside | {".lock", f".partial-{'e' * 40}"}
    drafts = {
        path.rpartition("/")[2] for entry in ("current", "last_good") for path in paths(state[entry])[1:]
    }
    assert set(sudo("ls /srv/sparkfleet/models/lab--draft").split()) == drafts


def test_of_the_patches_those_that_serve_and_served_are_left(sudo, state):
    kept = {file["sha256"] for entry in ("current", "last_good") for file in state[entry]["serving"]["files"]}
    assert set(sudo("ls -A /srv/sparkfleet/patches").split()) == kept and len(kept) == 2


def test_of_the_images_ours_that_nobody_needs_has_gone_and_the_foreign_one_is_there(sudo, state):
    ours = {state[entry]["serving"]["container"]["image"] for entry in ("current", "last_good")}
    there = sudo("docker images --digests --format '{{.Repository}}@{{.Digest}}'").split()
    assert {image for image in there if "generations" in image} == ours and len(ours) == 2
    assert "sparkfleet-lab/stub:1" in sudo("docker images --format '{{.Repository}}:{{.Tag}}'").split()
    assert set(json.loads(sudo("cat /var/lib/sparkfleet/images.json"))["images"]) == ours


def test_what_others_put_there_is_untouched(sudo):
    assert sudo("cat /srv/sparkfleet/mine/weights.bin /srv/sparkfleet/models/notes.txt") == "x\nx"


def test_of_the_registrys_images_the_one_that_serves_is_left_whole(sudo, state):
    root = "/srv/sparkfleet/registry/docker/registry/v2"
    repository = f"{root}/repositories/sparkfleet-lab/generations"
    digest = state["current"]["serving"]["container"]["image"].rpartition(":")[2]
    assert sudo(f"ls {repository}/_manifests/revisions/sha256") == digest
    manifest = json.loads(sudo(f"cat {root}/blobs/sha256/{digest[:2]}/{digest}/data"))
    blobs = {entry["digest"].rpartition(":")[2] for entry in [manifest["config"], *manifest["layers"]]}
    assert set(sudo(f"ls {repository}/_layers/sha256").split()) == blobs
    assert set(sudo(f"find {root}/blobs -mindepth 3 -maxdepth 3 -printf '%f\\n'").split()) == blobs | {digest}
