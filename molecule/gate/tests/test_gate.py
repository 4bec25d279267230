"""What the hosts show beside the refusals that converge.yml asserts."""

from __future__ import annotations

import json
import re

METRICS = "sudo curl -fsS http://127.0.0.1:8000/metrics"


def test_nothing_that_failed_the_gate_is_recorded(host):
    assert host.run("sudo test -e /var/lib/sparkfleet/state.json").rc == 1


def test_the_never_accepted_draft_leaves_every_endpoint_healthy(host):
    if host.backend.get_hostname() != "gate-1":
        return
    assert host.run("sudo curl -fsS http://127.0.0.1:8000/health").rc == 0
    body = '{"model": "huihui-gemma4", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 8}'
    answer = host.run(
        f"sudo curl -fsS -H 'Content-Type: application/json' -d '{body}' http://127.0.0.1:8000/v1/chat/completions"
    )
    assert json.loads(answer.stdout)["choices"][0]["message"]["content"]
    metrics = host.run(METRICS).stdout
    drafts = re.findall(r"^vllm:spec_decode_num_drafts_total\{[^}]*\} ([0-9.e+]+)$", metrics, re.M)
    accepted = re.findall(r"^vllm:spec_decode_num_accepted_tokens_total\{[^}]*\} ([0-9.e+]+)$", metrics, re.M)
    assert sum(map(float, drafts)) >= 200
    assert sum(map(float, accepted)) == 0


def test_the_edited_patch_is_whole_again(host):
    if host.backend.get_hostname() != "gate-1":
        return
    stored = host.run("sudo find /srv/sparkfleet/patches -type f").stdout.split()
    assert stored
    for path in stored:
        assert host.run(f"sudo sha256sum {path}").stdout.split()[0] in path
