"""What the host itself shows after converge: a stub serves, with an API key."""

from __future__ import annotations

import json

import pytest

KEY = "key_of_the_scenario"
MODELS = "http://127.0.0.1:8000/v1/models"


@pytest.fixture
def container(sudo):
    return json.loads(sudo("docker inspect sparkfleet-vllm"))[0]


@pytest.fixture
def state(sudo):
    return json.loads(sudo("cat /var/lib/sparkfleet/state.json"))


def test_it_runs_with_no_more_rights_than_it_needs(container):
    limits = container["HostConfig"]
    assert container["State"]["Running"]
    assert limits["Privileged"] is False
    assert limits["CapDrop"] == ["ALL"]
    assert not limits["CapAdd"]
    assert limits["SecurityOpt"] == ["no-new-privileges"]
    assert limits["NetworkMode"] != "host"
    assert limits["IpcMode"] == "private"
    assert limits["RestartPolicy"] == {"Name": "no", "MaximumRetryCount": 0}
    assert limits["PortBindings"] == {"8000/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8000"}]}


def test_its_process_has_no_capabilities_and_gets_none(sudo, container):
    status = sudo(f"cat /proc/{container['State']['Pid']}/status")
    fields = dict(line.split(":\t") for line in status.splitlines() if ":\t" in line)
    assert (fields["CapEff"], fields["CapBnd"], fields["NoNewPrivs"]) == ("0" * 16, "0" * 16, "1")


def test_models_cannot_be_written_to_and_the_cache_can(container):
    mounts = {mount["Destination"]: mount["RW"] for mount in container["Mounts"]}
    caches = ("/root/.cache/vllm", "/root/.cache/flashinfer", "/root/.triton", "/root/.tilelang")
    assert mounts == {"/models/body": False, "/models/draft": False, **dict.fromkeys(caches, True)}


def test_only_root_reaches_what_the_container_writes(host, container):
    digest = container["Config"]["Image"].partition("@sha256:")[2]
    for mount in container["Mounts"]:
        if mount["RW"]:
            assert mount["Source"].startswith(f"/srv/sparkfleet/cache/compiled/{digest}/")
    assert host.file("/srv/sparkfleet/cache").mode == 0o700
    assert host.run("sudo runuser -u nobody -- ls /srv/sparkfleet/cache").rc != 0


def test_the_image_is_pinned(container):
    name, _, digest = container["Config"]["Image"].partition("@")
    assert name == "sparkfleet-lab/stub"
    assert digest.startswith("sha256:")


def test_the_key_is_in_the_environment_and_nowhere_else(sudo, host, container):
    assert f"VLLM_API_KEY={KEY}" in container["Config"]["Env"]
    assert KEY not in json.dumps(container["Config"]["Cmd"])
    # The brackets keep this very command, and the journal's record of it, from matching.
    assert host.run("sudo grep -als key_of_the_[s]cenario /proc/[0-9]*/cmdline").stdout == ""
    found = host.run(
        "sudo grep -rls key_of_the_[s]cenario /root /home /srv /var/log /var/lib/sparkfleet /tmp"
    )
    assert found.stdout.strip() == ""


def test_the_key_guards_the_server(host):
    ask = "sudo curl -s -o /dev/null -w '%{http_code}'"
    assert host.run(f"{ask} {MODELS}").stdout == "401"
    assert (
        host.run(
            f"{ask} -H 'Authorization: Bearer '$(sudo docker exec sparkfleet-vllm printenv VLLM_API_KEY) {MODELS}"
        ).stdout
        == "200"
    )


def test_current_is_what_runs_and_last_good_what_passed_before(container, state):
    assert state["current"]["serving"]["container"]["command"] == container["Config"]["Cmd"]
    assert "--max-num-seqs" not in state["current"]["serving"]["container"]["command"]
    assert state["last_good"]["serving"]["container"]["command"][-2:] == ["--max-num-seqs", "8"]
    assert state["current"]["gate"]["drafts"] >= 200


def test_nothing_that_failed_is_on_record(state):
    text = json.dumps(state)
    assert "STUB_DIE" not in text
    assert "192.0.2.1" not in text


def test_nothing_was_left_beside_the_state(host):
    # The ledger is that of the images that were pulled.
    assert sorted(host.file("/var/lib/sparkfleet").listdir()) == ["gate.json", "images.json", "state.json"]
    assert host.file("/var/lib/sparkfleet/state.json").mode == 0o600
