"""What the hosts show beside the refusals that refused.yml asserts."""

from __future__ import annotations

import json
import re

import pytest

SERVER = "curl -fsS http://127.0.0.1:8000"


@pytest.fixture
def mended(name):
    """The host whose stored patch was edited by hand."""
    if name != "default-1":
        pytest.skip("no patch was edited here")


def test_nothing_that_failed_the_gate_is_recorded(host):
    assert host.run("sudo test -e /var/lib/sparkfleet/state.json").rc == 1


def test_a_draft_that_is_never_accepted_leaves_every_endpoint_healthy(sudo):
    sudo(f"{SERVER}/health")
    body = '{"model": "huihui-gemma4", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 8}'
    answer = json.loads(sudo(f"{SERVER}/v1/chat/completions -H 'Content-Type: application/json' -d '{body}'"))
    assert answer["choices"][0]["message"]["content"]
    metrics = sudo(f"{SERVER}/metrics")
    drafts = re.findall(r"^vllm:spec_decode_num_drafts_total\{[^}]*\} ([0-9.e+]+)$", metrics, re.M)
    accepted = re.findall(r"^vllm:spec_decode_num_accepted_tokens_total\{[^}]*\} ([0-9.e+]+)$", metrics, re.M)
    assert sum(map(float, drafts)) >= 200
    assert accepted and sum(map(float, accepted)) == 0


@pytest.mark.usefixtures("mended")
def test_the_edited_patch_is_whole_again(sudo):
    stored = sudo("find /srv/sparkfleet/patches -type f").split()
    assert stored
    for path in stored:
        assert sudo(f"sha256sum {path}").split()[0] in path


def test_nothing_is_left_of_asking_vllm(sudo):
    assert sudo("docker ps --all --quiet --filter label=sparkfleet.vllm.probe") == ""
    assert sudo("docker ps --all --format '{{.Names}}'").split() == ["sparkfleet-vllm"]
