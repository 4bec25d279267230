"""Each option of the container that somebody could change: found under its kind, and alone."""

from __future__ import annotations

import pytest
from ansible_collections.sparkfleet.vllm.plugins.module_utils._drift.container import (
    compare,
    has_gpu,
    life,
    size,
)
from ansible_collections.sparkfleet.vllm.plugins.module_utils._host.unit import Unit
from helpers.drift import CONTAINER, IMAGE, OTHER, TARGET, running

LABELS = {"sparkfleet.vllm.patches": "s"}


def found(seen=None, wanted=None, image=IMAGE, wanted_image=IMAGE, secrets=None, patches_known=True):
    wanted = CONTAINER | {"labels": LABELS} | (wanted or {})
    return compare(wanted, seen or running(), image, wanted_image, secrets, patches_known)


def only(*arguments, **options):
    (finding,) = found(*arguments, **options)
    return finding


def argv(*changes):
    """The command with words replaced."""
    words = list(CONTAINER["command"])
    for old, new in changes:
        words[words.index(old)] = new
    return words


def test_what_was_asked_for_is_no_drift():
    assert found() == []


def test_what_the_image_brings_is_no_drift_and_its_change_is():
    assert only(running(Config__Env=["HF_HUB_OFFLINE=1", "PATH=/bin", "CUDA=13"])).seen == "PATH=/bin"


EDITS = [
    ("argument", {"Config__Cmd": argv(("8000", "8001"))}, "--port 8000", "--port 8001"),
    ("argument", {"Config__Cmd": [*argv(), "--seed", "1"]}, "--seed not set", "--seed 1"),
    ("argument", {"Config__Cmd": argv()[:-2]}, "--kv-cache-dtype fp8", "--kv-cache-dtype not set"),
    ("argument", {"Config__Cmd": argv(("/models/b", "/models/c"))}, "the model /models/b", "the model /models/c"),
    ("argument", {"Config__Cmd": [*argv(), "--api-key", "mine"]}, "--api-key not set", "--api-key ***"),
    ("served-model", {"Config__Cmd": argv(("m", "n"))}, "--served-model-name m", "--served-model-name n"),
    (
        "speculation",
        {"Config__Cmd": argv(('{"method":"mtp","num_speculative_tokens":1}', '{"num_speculative_tokens": 2, "method": "mtp"}'))},
        "--speculative-config num_speculative_tokens: 1",
        "--speculative-config num_speculative_tokens: 2",
    ),
    ("entrypoint", {"Config__Entrypoint": ["sh"]}, "vllm serve (of the image)", "sh"),
    ("environment", {"Config__Env": ["PATH=/usr/bin", "CUDA=13"]}, "HF_HUB_OFFLINE=1", "HF_HUB_OFFLINE not set"),
    (
        "environment",
        {"Config__Env": ["HF_HUB_OFFLINE=1", "PATH=/usr/bin", "CUDA=13", "HF_TOKEN=abc"]},
        "HF_TOKEN not set",
        "HF_TOKEN set, its value is not shown",
    ),
    ("mount", {"Mounts": running()["Mounts"][1:]}, "/srv/s/models/b at /models/b, read-only", "nothing mounted at /models/b"),
    (
        "mount",
        {"Mounts": [running()["Mounts"][0] | {"RW": True}, *running()["Mounts"][1:]]},
        "/srv/s/models/b at /models/b, read-only",
        "/srv/s/models/b at /models/b, writable",
    ),
    (
        "mount",
        {"Mounts": [*running()["Mounts"], {"Type": "volume", "Name": "v", "Destination": "/data", "RW": True}]},
        "nothing mounted at /data",
        "v at /data, writable",
    ),
    ("port", {"HostConfig__PortBindings": {"8000/tcp": [{"HostIp": "", "HostPort": "8000"}]}}, "127.0.0.1:8000:8000", "0.0.0.0:8000:8000"),
    ("port", {"HostConfig__PortBindings": None}, "127.0.0.1:8000:8000", "none"),
    ("restart-policy", {"HostConfig__RestartPolicy": {"Name": "always"}}, "no: its unit restarts it", "always"),
    ("security", {"HostConfig__Privileged": True}, "privileged: no", "privileged: yes"),
    ("security", {"HostConfig__CapAdd": ["CAP_SYS_ADMIN"]}, "added capabilities: none", "added capabilities: SYS_ADMIN"),
    ("security", {"HostConfig__CapDrop": None}, "dropped capabilities: ALL", "dropped capabilities: none"),
    ("security", {"HostConfig__SecurityOpt": None}, "security options: no-new-privileges", "security options: none"),
    ("security", {"HostConfig__NetworkMode": "host"}, "network: bridge", "network: host"),
    ("security", {"HostConfig__IpcMode": "host"}, "IPC: private", "IPC: host"),
    ("security", {"HostConfig__PidMode": "host"}, "PID namespace: none", "PID namespace: host"),
    ("security", {"Config__User": "1000"}, "user: none", "user: 1000"),
    ("gpu", {"HostConfig__DeviceRequests": None}, "all GPUs", "no GPU"),
    ("auto-remove", {"HostConfig__AutoRemove": True}, "no", "yes"),
    ("limit", {"HostConfig__Memory": 1 << 30}, "no limit: memory, in bytes", f"memory, in bytes: {1 << 30}"),
    ("limit", {"HostConfig__ShmSize": 1}, f"shared memory: {8 << 30} bytes", "shared memory: 1 bytes"),
    ("log", {"HostConfig__LogConfig": {"Type": "json-file", "Config": {}}}, "json-file max-file=4 max-size=50m", "json-file"),
    ("log", {"HostConfig__LogConfig": {"Type": "none"}}, "json-file max-file=4 max-size=50m", "none"),
    ("log", {"HostConfig__LogConfig": None}, "json-file max-file=4 max-size=50m", "not set"),
    ("label", {"Config__Labels": {}}, "sparkfleet.vllm.patches=s", "sparkfleet.vllm.patches=not set"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "edit", "expected", "seen"), EDITS)
def test_an_edit_is_one_finding_that_names_it(kind, edit, expected, seen):
    finding = only(running(**edit))
    assert (finding.kind, finding.expected, finding.seen) == (kind, expected, seen)
    assert finding.subject == "container" and finding.do


def test_an_image_is_known_by_its_content_and_not_by_its_name():
    other = IMAGE | {"Id": "sha256:" + "9" * 64, "RepoDigests": [f"vllm/vllm-openai@{OTHER}"]}
    finding = only(running(Image=other["Id"]), image=other)
    assert (finding.kind, OTHER in finding.seen) == ("image", True)
    assert found(running(Config__Image="vllm/vllm-openai:latest")) == []


def test_an_image_that_was_built_here_has_no_digest_to_be_known_by():
    built = IMAGE | {"Id": "sha256:" + "9" * 64, "RepoDigests": []}
    assert only(running(Image=built["Id"]), image=built, wanted_image=None).seen.startswith(
        "no digest of a registry"
    )


def test_the_wanted_digest_is_enough_where_its_name_is_gone():
    assert found(wanted_image=None) == []


def test_a_secret_is_compared_and_not_shown():
    env = ["HF_HUB_OFFLINE=1", "PATH=/usr/bin", "CUDA=13"]
    assert found(running(Config__Env=[*env, "VLLM_API_KEY=k"]), secrets={"VLLM_API_KEY": "k"}) == []
    finding = only(running(Config__Env=[*env, "VLLM_API_KEY=other"]), secrets={"VLLM_API_KEY": "k"})
    assert finding.expected == finding.seen == "VLLM_API_KEY set, its value is not shown"


def test_without_the_patches_mounts_and_labels_are_left_out():
    assert found(running(Mounts=[], Config__Labels={}), patches_known=False) == []


def test_without_its_image_nothing_is_said_of_what_the_image_brings():
    assert found(image=None) == []


@pytest.mark.parametrize("config", [{}, {"Config": None}])
def test_an_image_whose_config_the_engine_leaves_out_is_like_one_that_is_gone(config):
    bare = {name: value for name, value in IMAGE.items() if name != "Config"} | config
    assert found(image=bare, wanted_image=bare) == []


def test_a_record_that_leaves_the_log_to_the_engine_wants_nothing_of_it():
    wanted = {name: value for name, value in CONTAINER.items() if not name.startswith("log_")}
    seen = running(HostConfig__LogConfig={"Type": "journald", "Config": {}})
    assert compare(wanted | {"labels": LABELS}, seen, IMAGE, IMAGE) == []


def test_an_entrypoint_of_the_recipe_is_wanted_in_place_of_the_images():
    own = ["/opt/start.sh", "vllm", "serve"]
    wanted = {"entrypoint": own}
    assert found(running(Config__Entrypoint=own), wanted) == []
    finding = only(running(), wanted)
    assert (finding.kind, finding.expected, finding.seen) == (
        "entrypoint",
        "/opt/start.sh vllm serve",
        "vllm serve",
    )
    assert only(running(), wanted, image=None).kind == "entrypoint", "it is known without the image"


DEVICE = {"PathOnHost": "/dev/infiniband", "PathInContainer": "/dev/infiniband", "CgroupPermissions": "rw"}
LOCKED = {"Name": "memlock", "Soft": -1, "Hard": -1}


def test_devices_and_limits_that_were_asked_for_are_no_drift_and_others_are():
    wanted = {"devices": ["/dev/infiniband:/dev/infiniband:rw"], "ulimits": ["memlock:-1:-1"]}
    asked = {"HostConfig__Devices": [DEVICE], "HostConfig__Ulimits": [LOCKED]}
    assert found(running(**asked), wanted) == []
    for change, kind, expected, seen in (
        ({"HostConfig__Devices": []}, "security", "devices: /dev/infiniband:/dev/infiniband:rw", "devices: none"),
        ({"HostConfig__Devices": [DEVICE | {"CgroupPermissions": "rwm"}]}, "security", ":rw", ":rwm"),
        ({"HostConfig__Ulimits": None}, "limit", "ulimit memlock: -1:-1", "ulimit memlock: not set"),
        ({"HostConfig__Ulimits": [LOCKED | {"Soft": 5}]}, "limit", "ulimit memlock: -1:-1", "ulimit memlock: 5:-1"),
    ):  # fmt: skip
        finding = only(running(**{**asked, **change}), wanted)
        assert finding.kind == kind
        assert finding.expected.endswith(expected) and finding.seen.endswith(seen)
    assert only(running(HostConfig__Devices=[DEVICE])).kind == "security", "nobody asked for it"
    assert only(running(HostConfig__Ulimits=[LOCKED])).expected == "ulimit memlock: not set"


def test_the_published_flags_are_met_by_what_the_engine_makes_of_them():
    wanted = CONTAINER | {
        "privileged": True, "network_mode": "host", "ipc_mode": "host", "auto_remove": True,
        "published_ports": None, "shm_size": None, "cap_drop": None, "security_opts": None,
    }  # fmt: skip
    seen = running(
        HostConfig__Privileged=True, HostConfig__NetworkMode="host", HostConfig__IpcMode="host", HostConfig__AutoRemove=True,
        HostConfig__RestartPolicy={"Name": "no", "MaximumRetryCount": 0}, HostConfig__PortBindings={}, HostConfig__CapDrop=None,
        HostConfig__SecurityOpt=["label=disable"],
    )  # fmt: skip
    assert compare(wanted | {"labels": LABELS}, seen, IMAGE, IMAGE) == []


MEMBER = CONTAINER | {
    "network_mode": "host",
    "published_ports": None,
    "capabilities": ["IPC_LOCK"],
    "ulimits": ["memlock:-1:-1"],
    "entrypoint": ["python3", "/opt/sparkfleet/unit", "--rank", "1", "--", "vllm", "serve"],
    "labels": LABELS,
}


def test_a_member_of_a_unit_is_met_by_what_the_engine_makes_of_it():
    made = {
        "HostConfig__NetworkMode": "host", "HostConfig__PortBindings": {}, "HostConfig__Ulimits": [LOCKED],
        "Config__Entrypoint": MEMBER["entrypoint"],
    }  # fmt: skip
    for named in "IPC_LOCK", "CAP_IPC_LOCK":
        seen = running(**made, HostConfig__CapAdd=[named])
        assert compare(MEMBER, seen, IMAGE, IMAGE) == []
    (finding,) = compare(MEMBER, running(**made), IMAGE, IMAGE)
    assert (finding.expected, finding.seen) == ("added capabilities: IPC_LOCK", "added capabilities: none")


def test_the_units_of_docker():
    assert [size(text) for text in ("512m", "8g", "64mb", 100, "1.5k")] == [
        512 << 20,
        8 << 30,
        64 << 20,
        100,
        1536,
    ]


@pytest.mark.parametrize(
    ("state", "unit", "kind", "severity", "seen"),
    [
        (
            {"Status": "exited", "ExitCode": 1, "OOMKilled": True},
            Unit(),
            "stopped",
            "drift",
            "want of memory",
        ),
        (
            {"Status": "exited", "ExitCode": 0},
            Unit(active="failed", gave_up=True),
            "stopped",
            "drift",
            "gave up",
        ),
        ({"Status": "paused"}, Unit(active="active", watches=True), "paused", "drift", "paused"),
        (
            {"Status": "exited", "ExitCode": 0},
            Unit(active="activating", restarts=2),
            "restarting",
            "drift",
            "2 times",
        ),
        (
            {"Status": "running", "StartedAt": "now"},
            Unit(active="active", restarts=2),
            "restarted",
            "warning",
            "2 times",
        ),
    ],
)
def test_a_life_that_is_none(state, unit, kind, severity, seen):
    (finding,) = life(running(State=state), "sparkfleet-vllm", unit)
    assert (finding.kind, finding.severity) == (kind, severity) and seen in finding.seen


def test_restarts_by_an_engine_that_does_them_count_as_well():
    state = {"Status": "restarting", "ExitCode": 1}
    assert "2 times" in life(running(State=state, RestartCount=2), "sparkfleet-vllm", Unit())[0].seen


def test_a_container_that_runs_and_one_that_is_not_there():
    assert life(running(), "sparkfleet-vllm", Unit()) == []
    assert [finding.kind for finding in life(None, "sparkfleet-vllm", Unit())] == ["container-missing"]


def test_the_target_of_a_patch_is_named():
    mounts = [mount for mount in running()["Mounts"] if mount["Destination"] != TARGET]
    assert only(running(Mounts=mounts)).seen == f"nothing mounted at {TARGET}"


@pytest.mark.parametrize(
    ("host", "gpu"),
    [
        ({"DeviceRequests": [{"Capabilities": [["gpu", "utility"]]}]}, True),
        (
            {
                "DeviceRequests": [
                    {"Driver": "cdi", "DeviceIDs": ["nvidia.com/gpu=all"], "Capabilities": None}
                ]
            },
            True,
        ),
        ({"DeviceRequests": None, "Runtime": "nvidia"}, True),
        ({"DeviceRequests": None, "Runtime": "runc"}, False),
        ({"DeviceRequests": [{"Driver": "cdi", "DeviceIDs": ["vendor.com/nic=0"]}]}, False),
    ],
)
def test_who_has_a_gpu(host, gpu):
    assert has_gpu(host) is gpu
