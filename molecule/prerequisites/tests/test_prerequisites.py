"""What the hosts themselves show after converge."""

from __future__ import annotations

import json

import pytest

PYTHON = "/opt/sparkfleet/venv/bin/python"


def test_the_engine_answers_with_the_mirror_and_the_nvidia_runtime(sudo):
    info = json.loads(sudo("docker info --format '{{ json . }}'"))
    assert info["RegistryConfig"]["Mirrors"] == ["http://172.31.250.10:5000/"]
    assert "nvidia" in info["Runtimes"]


def test_the_engine_hands_out_gpus(sudo, name):
    """The driver behind --gpus exists only if the engine started after the toolkit came."""
    if name != "prepared":
        pytest.skip("nothing serves here")
    assert sudo("docker run --rm --gpus all --name probe sleeper /bin/sleep 0") == ""


def test_the_engine_comes_back_at_boot(host):
    assert host.service("docker").is_enabled


def test_the_modules_have_their_environment(sudo, host):
    sudo(f"{PYTHON} -c 'import docker, huggingface_hub, prometheus_client, requests'")
    assert host.run("python3 -c 'import docker'").rc != 0, "the system's Python was left alone"


@pytest.mark.parametrize("path", ["/srv/sparkfleet", "/var/lib/sparkfleet"])
def test_directories(host, path):
    directory = host.file(path)
    assert directory.is_directory
    assert (directory.user, directory.group, directory.mode) == ("root", "root", 0o755)


def test_daemon_json_keeps_what_was_there(sudo, name):
    content = json.loads(sudo("cat /etc/docker/daemon.json"))
    if name == "bare":
        assert list(content) == ["debug", "registry-mirrors", "runtimes"]
        assert content["debug"] is True
    elif name == "prepared":
        assert content["log-opts"] == {"max-size": "5m"}
        assert content["live-restore"] is True
        assert content["insecure-registries"] == ["192.0.2.1:5000"]
        assert "no-such-key" not in content
    else:
        as_it_came = {"containerd-snapshotter": True}
        assert content.pop("features", as_it_came) == as_it_came
        assert list(content) == ["registry-mirrors", "runtimes"]


def test_what_served_never_stopped(sudo, name):
    if name != "prepared":
        pytest.skip("nothing serves here")
    state = json.loads(sudo("docker inspect sparkfleet-vllm"))[0]["State"]
    assert state["Running"]
    assert state["StartedAt"] == sudo("cat /root/started")


def test_the_engine_did_restart_meanwhile(sudo, name):
    """Or the test above would say nothing."""
    if name != "prepared":
        pytest.skip("nothing serves here")
    started = sudo("ps -o etimes= -C dockerd")
    container = sudo("ps -o etimes= -C sleep")
    assert int(started) < int(container)
