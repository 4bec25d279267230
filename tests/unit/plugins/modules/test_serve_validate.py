"""The probe's container: what it may do, that it never stays, and what a host hears of its answer."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from types import SimpleNamespace

import docker.errors
import pytest
import requests
from ansible.module_utils.testing import patch_module_args
from ansible_collections.sparkfleet.vllm.plugins.module_utils._vllm import ask_image
from ansible_collections.sparkfleet.vllm.plugins.modules import serve_validate

CONTAINER = {
    "name": "sparkfleet-vllm",
    "image": "vllm/vllm-openai@sha256:" + "a" * 64,
    "command": ["/models/body", "--max-model-len", "8192"],
    "env": {"HF_HUB_OFFLINE": "1", "HF_TOKEN": "hidden-from-all"},
    "volumes": ["/srv/m/c4bb:/models/body:ro", "/srv/cache:/root/.cache/vllm:rw"],
    "device_requests": [{"driver": "nvidia", "count": -1, "capabilities": [["gpu"]]}],
    "privileged": True,
    "network_mode": "host",
    "published_ports": ["127.0.0.1:8000:8000"],
    "restart_policy": "on-failure",
}
ACCEPTED = {"state": "accepted", "version": "0.20.2", "peak_kib": 1000, "names": [], "killed": []}
REFUSED = {
    "state": "raised",
    "version": "0.20.2",
    "peak_kib": 1000,
    "names": [],
    "killed": [],
    "chain": [{"types": ["ValueError"], "errno": None}],
}


class Probe:
    def __init__(self, engine, said, log="", wait=None):
        self.engine, self.wait_error = engine, wait
        self.text = f"{log}\n{ask_image.MARK}{json.dumps(said)}\n" if said else log
        self.attrs = {"State": {"OOMKilled": False}}

    def start(self):
        if self.engine.start_error:
            raise self.engine.start_error

    def wait(self, timeout):
        if self.wait_error:
            raise self.wait_error
        return {"StatusCode": 0}

    def reload(self):
        pass

    def logs(self, stderr=True):
        return self.text.encode()

    def remove(self, force):
        assert force
        self.engine.removed.append(self)


class Engine:
    """As much of docker's as the module uses."""

    def __init__(self, said=ACCEPTED, log="", entrypoint=("vllm", "serve"), left=(), wait=None, start=None):
        self.removed: list[Probe] = []
        self.created: list[dict] = []
        self.start_error = start
        self.left = [Probe(self, None) for _ in left]
        self.probe = Probe(self, said, log, wait)
        image = SimpleNamespace(attrs={"Config": {"Entrypoint": list(entrypoint)}})
        self.images = SimpleNamespace(get=lambda name: image)
        self.containers = SimpleNamespace(list=self.find, create=self.create)

    def find(self, all, filters):
        assert all and filters == {"label": "sparkfleet.vllm.probe=sparkfleet-vllm"}
        return self.left

    def create(self, **options):
        assert len(self.removed) == len(self.left)
        self.created.append(options)
        return self.probe


@pytest.fixture
def call(monkeypatch, capsys):
    def run(engine, check=False, here=("/srv/m/c4bb", "/srv/cache"), **arguments):
        monkeypatch.setattr(serve_validate.Path, "exists", lambda path: str(path) in here)
        monkeypatch.setattr(serve_validate.docker, "from_env", lambda timeout: engine)
        # What the process said in another test would be in the result of this one.
        warned: list[str] = []
        monkeypatch.setattr(serve_validate.AnsibleModule, "warn", lambda module, text: warned.append(text))
        capsys.readouterr()
        given = {"container": CONTAINER, "_ansible_check_mode": check, **arguments}
        with patch_module_args(given), pytest.raises(SystemExit):
            serve_validate.main()
        return json.loads(capsys.readouterr().out) | {"warned": warned}

    return run


@pytest.mark.parametrize("check", [False, True])
def test_accepted(call, check):
    engine = Engine(left=["killed"])
    result = call(engine, check)
    assert result["asked"] and result["accepted"] and not result["changed"]
    assert result["vllm_version"] == "0.20.2"
    assert result["peak_bytes"] == 1000 * 1024
    assert engine.removed == [*engine.left, engine.probe]


RULES = [
    {"vllm": "<0.21", "because": "it lacks the draft's code"},
    {"vllm": ">=0.25,<0.27", "because": "it dies at the start"},
]


@pytest.mark.parametrize("said", [ACCEPTED, REFUSED], ids=["accepted", "refused"])
def test_the_image_says_which_vllm_it_holds_and_the_recipe_whether_that_will_do(call, said):
    engine = Engine({**said, "version": "0.26.1rc1.dev7+gabc"})
    result = call(engine, refused=RULES)
    assert result["failed"] and result["diagnosis"] == "version_refused" and not result["accepted"]
    assert result["vllm_version"] == "0.26.1rc1.dev7+gabc"
    assert f"seen vLLM 0.26.1rc1.dev7+gabc in {CONTAINER['image']}: it dies at the start" in result["msg"]
    assert "it lacks" in call(Engine({**said, "version": "0.20.2"}), refused=RULES)["msg"]
    assert engine.removed == [engine.probe]


def test_a_rule_that_is_no_range_is_told_before_anything_runs(call):
    engine = Engine()
    result = call(engine, refused=[{"vllm": "0.25.*", "because": "x"}])
    assert result["failed"] and "refused.vllm: expected a range of releases" in result["msg"]
    assert engine.created == []


def test_a_version_that_is_not_refused_or_not_known_is_not_held_against_it(call):
    for version in ("0.27.0", "0.33.1.dev3", "0.21.0", None):
        assert call(Engine({**ACCEPTED, "version": version}), refused=RULES)["accepted"]


def test_a_build_without_tags_is_not_refused_for_the_age_it_shows_and_that_is_told(call):
    engine = Engine({**ACCEPTED, "version": "0.1.dev15396+g5e35a6f4f"})
    result = call(engine, refused=RULES)
    assert result["accepted"]
    (warned,) = result["warned"]
    assert "calls itself 0.1.dev15396+g5e35a6f4f, which tells of no release" in warned
    assert call(Engine({**ACCEPTED, "version": "0.1.dev1+gabc"}))["warned"] == [], (
        "there is no rule to hold it against"
    )


def test_a_host_that_cannot_compare_versions_is_told_what_it_lacks(call, monkeypatch):
    monkeypatch.setattr(serve_validate.versions, "HAS_PACKAGING", False)
    engine = Engine()
    result = call(engine, refused=RULES)
    assert result["failed"] and "packaging" in result["msg"] and engine.created == []
    assert call(Engine())["accepted"]


def test_refused_by_vllm(call):
    engine = Engine(REFUSED, log="ValueError: the draft is of another body")
    result = call(engine)
    assert result["failed"] and result["asked"] and not result["accepted"]
    assert result["diagnosis"] == "arguments_refused"
    for words in (
        "expected vLLM 0.20.2",
        "the draft is of another body",
        "Nothing was touched",
        "vllm_serve_extra_arguments",
    ):
        assert words in result["msg"]
    assert engine.removed == [engine.probe]


@pytest.mark.parametrize(
    ("engine", "words"),
    [
        (lambda: Engine(None, log="python3: not found"), "exit code 0"),
        (lambda: Engine(None, wait=requests.exceptions.ReadTimeout("read timed out")), "too long"),
        (
            lambda: Engine(
                start=docker.errors.APIError(
                    "500 Server Error", explanation="write /var/lib/docker/x: no space left"
                )
            ),
            "no space left",
        ),
    ],
)
def test_what_cannot_be_asked_is_told_and_refuses_nothing(call, engine, words):
    engine = engine()
    result = call(engine)
    assert not result.get("failed") and not result["asked"] and result["accepted"]
    assert words in result["reason"] and "Server Error" not in result["reason"]
    assert any(words in warning for warning in result["warned"])
    assert len(engine.removed) == len(engine.created)


@pytest.mark.parametrize(
    ("said", "do"),
    [
        ('could not select device driver "nvidia" with capabilities: [[gpu]]', "restart Docker"),
        (
            "OCI runtime create failed: nvml error: driver/library version mismatch: unknown",
            "reboot the host",
        ),
        ("error running prestart hook #0: Using requested mode 'cdi'", "nvidia-container-runtime.mode"),
        ("CDI device injection failed: unresolvable CDI devices nvidia.com/gpu=all", "nvidia-ctk cdi list"),
        ("nvidia-container-cli: initialization error: load library failed", "nvidia-smi answers"),
        (
            'error gathering device information while adding custom device "/dev/infiniband": no such file',
            "serve.devices of the recipe",
        ),
        (
            'error gathering device information while adding custom device "/dev/x": not a device node',
            "serve.devices of the recipe",
        ),
        ("OCI runtime create failed: error setting rlimit type 8: operation not permitted", "serve.ulimits"),
        ("unknown or invalid runtime name: nvidia", "daemon.json"),
        ("runc create failed: error running hook #1: exit status 1", "journalctl"),
    ],
)
def test_a_gpu_that_the_probe_does_not_get_the_server_would_not_get(call, said, do):
    engine = Engine(start=docker.errors.APIError("500 Server Error", explanation=said))
    result = call(engine)
    assert result["failed"] and not result["accepted"] and result["diagnosis"] == "devices_refused"
    assert said in result["msg"] and do in result["msg"] and "Nothing was touched" in result["msg"]
    assert engine.removed == [engine.probe]


@pytest.mark.parametrize("entrypoint", [["/run.sh"], [], ["/bin/sh", "-c", "exec $0"], ["python3", "serve"]])
def test_an_image_that_does_not_start_vllm_is_refused(call, entrypoint):
    engine = Engine(entrypoint=entrypoint)
    result = call(engine)
    assert result["failed"] and result["diagnosis"] == "entrypoint_refused"
    assert str(entrypoint or "none") in result["msg"] and engine.created == []


@pytest.mark.parametrize("own", [[], ["/opt/nvidia/nvidia_entrypoint.sh"]])
def test_an_entrypoint_of_the_recipe_opens_an_image_that_does_not_start_vllm(call, own):
    engine = Engine(entrypoint=own)
    result = call(engine, container=CONTAINER | {"entrypoint": [*own, "vllm", "serve"]})
    assert result["accepted"] and result["asked"]
    assert json.loads(engine.created[0]["command"][0])["program"] == [*own, "vllm"][0]


def test_a_program_that_the_image_does_not_have_is_found_before_anything_stops(call):
    engine = Engine(ACCEPTED | {"state": "absent"})
    result = call(engine, container=CONTAINER | {"entrypoint": ["/no/such.sh", "vllm", "serve"]})
    assert result["failed"] and result["diagnosis"] == "entrypoint_refused"
    assert "no /no/such.sh in it" in result["msg"] and "Nothing was touched" in result["msg"]
    assert engine.removed == [engine.probe]


def test_the_probe_asks_for_the_devices_and_limits_of_the_server(call):
    engine = Engine()
    asked = {"devices": ["/dev/infiniband:/dev/infiniband:rw"], "ulimits": ["memlock:-1:-1"]}
    assert call(engine, container=CONTAINER | asked)["accepted"]
    (made,) = engine.created
    assert made["devices"] == asked["devices"]
    assert [dict(limit) for limit in made["ulimits"]] == [{"Name": "memlock", "Soft": -1, "Hard": -1}]


def test_an_image_without_a_configuration_starts_nothing(call):
    engine = Engine()
    engine.images.get("x").attrs["Config"] = None
    assert call(engine)["diagnosis"] == "entrypoint_refused"


@pytest.mark.parametrize("check", [False, True])
def test_what_is_still_to_come(call, check):
    def missing(name):
        raise docker.errors.ImageNotFound("no such image")

    bare, empty = Engine(), Engine()
    bare.images.get = missing
    for engine, here, words in (
        (bare, (), "it is not on this host yet"),
        (empty, ("/srv/cache",), "/srv/m/c4bb is not on this host yet"),
    ):
        result = call(engine, check, here)
        assert not result.get("failed") and not result["asked"]
        assert result["reason"] == words
        # Expected in check mode, and not otherwise.
        assert bool(result["warned"]) is not check
        assert engine.created == []


def test_what_the_engine_would_make_for_the_server_is_not_made_for_the_probe(call):
    engine = Engine()
    result = call(engine, here=("/srv/m/c4bb",))
    assert result["asked"]
    assert [mount["Source"] for mount in engine.created[0]["mounts"]] == ["/srv/m/c4bb"]


def test_the_probe_gets_what_the_server_gets_and_may_do_nothing(call):
    engine = Engine()
    call(engine, timeout=70, memory="2g")
    (made,) = engine.created
    assert json.loads(made["command"][0]) == {
        "command": CONTAINER["command"],
        "limit": 70,
        "program": "",
    }
    assert made["image"] == CONTAINER["image"]
    assert made["environment"] == CONTAINER["env"]
    assert [request["Count"] for request in made["device_requests"]] == [-1]
    assert [
        (mount["Source"], mount["Target"], mount["ReadOnly"], mount["Type"]) for mount in made["mounts"]
    ] == [
        ("/srv/m/c4bb", "/models/body", True, "bind"),
    ]
    assert made["network_mode"] == "none"
    assert made["cap_drop"] == ["ALL"] and made["security_opt"] == ["no-new-privileges"]
    assert made["mem_limit"] == made["memswap_limit"] == "2g"
    assert not {"privileged", "ports", "restart_policy", "volumes"} & set(made)


def test_a_member_of_a_unit_asks_for_its_own_arguments_by_the_program_that_starts_vllm(call):
    """What runs the server of a member meets the others. The probe has no network, and needs none: vLLM makes its configuration alone."""
    runs = ["python3", "/opt/sparkfleet/unit", "--rank", "1", "--", "/entry.sh", "vllm", "serve"]
    ranked = ["/models/body", "--max-model-len", "8192", "--nnodes", "2", "--node-rank", "1", "--headless"]
    engine = Engine(entrypoint=[])
    call(engine, container=CONTAINER | {"entrypoint": runs, "command": ranked})
    (made,) = engine.created
    assert made["entrypoint"][:2] == ["python3", "-c"]
    asked = json.loads(made["command"][0])
    assert (asked["program"], asked["command"]) == ("/entry.sh", ranked)


def test_only_a_server_with_rights_has_a_probe_that_reads_what_belongs_to_others(call):
    for dropped, added in ([], ["DAC_OVERRIDE"]), (["ALL"], []):
        engine = Engine()
        call(engine, container=CONTAINER | {"cap_drop": dropped})
        assert engine.created[0]["cap_add"] == added


def test_secrets_of_the_environment_stay_in_it(call):
    result = call(
        Engine(REFUSED, log="ValueError: hidden-from-all and hf_abcdefghijklmnopqrst are no tokens")
    )
    assert result["failed"] and "are no tokens" in result["msg"]
    assert "hidden-from-all" not in json.dumps(result) and "hf_abcd" not in json.dumps(result)


@pytest.mark.parametrize("name", ["image", "command"])
def test_a_container_of_nothing_is_refused(call, name):
    result = call(Engine(), container={key: value for key, value in CONTAINER.items() if key != name})
    assert result["failed"] and f"container.{name}" in result["msg"]


@pytest.mark.parametrize("check", [False, True])
def test_a_mount_that_nobody_brings_is_missed_before_anything_stops(call, check):
    engine = Engine()
    there = {"path": "/srv/cache", "mount": "/config/y"}
    absent = {"path": "/srv/templates/x.jinja", "mount": "/config/x"}
    result = call(engine, check, mounts=[there, absent])
    assert result["failed"] and result["diagnosis"] == "mount_refused" and not result["accepted"]
    assert "seen nothing at /srv/templates/x.jinja; put a file or a directory there" in result["msg"]
    assert "Nothing was touched" in result["msg"] and engine.created == []
    assert call(engine, check, mounts=[there])["accepted"]


@pytest.mark.parametrize("kind", ["socket", "pipe", "device", "link to a socket"])
def test_a_mount_is_a_file_or_a_directory_and_no_way_to_somebody(call, tmp_path, monkeypatch, kind):
    """Such as the engine's socket, which is the whole host, in a directory that the inventory allows."""
    monkeypatch.chdir(tmp_path)  # A socket's path is a short one.
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("socket")
    os.mkfifo("pipe")
    Path("device").symlink_to("/dev/null")
    Path("link to a socket").symlink_to("socket")
    engine, path = Engine(), str(tmp_path / kind)
    result = call(engine, here=("/srv/m/c4bb", path), mounts=[{"path": path, "mount": "/config/x"}])
    assert result["failed"] and result["diagnosis"] == "mount_refused" and engine.created == []
    assert f"seen no file or directory but a socket, pipe or device at {path}" in result["msg"]
