from __future__ import annotations

import copy
from dataclasses import fields
from typing import Any

import pytest
from ansible_collections.sparkfleet.vllm.plugins.module_utils._host import daemon_json
from ansible_collections.sparkfleet.vllm.plugins.modules import spark_info
from ansible_collections.sparkfleet.vllm.plugins.plugin_utils.host import judge, requirements

GIB = judge.GIB
REQUIREMENTS = ["docker==7.2.0", "huggingface_hub==2.4.*"]
WANTED: dict[str, Any] = {name: option["default"] for name, option in spark_info.WANTED.items()} | {
    "registry_mirrors": ["http://m:5000"],
    "directories": ["/srv/sparkfleet"],
    "requirements": REQUIREMENTS,
}


@pytest.fixture
def spark() -> dict[str, Any]:
    """A DGX Spark that is set up and serves."""
    return {
        "architecture": "aarch64",
        "kernel": "6.11",
        "uid": 0,
        "os": {"id": "ubuntu", "version": "24.04", "name": "Ubuntu 24.04.3 LTS"},
        "apt": True,
        "systemd": True,
        "remove_ipc": True,
        "gb10": {"present": True, "pci": ["000f:01:00.0"], "name": "NVIDIA GB10", "product": None},
        "driver": "580.95.05",
        "gpu": {"loaded": "580.95.05", "libraries": ["580.95.05"], "error": None},
        "memory": {"total_bytes": 120 * GIB, "available_bytes": 60 * GIB, "swap_bytes": 0},
        "disks": {
            "store": {"path": "/srv/sparkfleet", "nearest": "/srv/sparkfleet", "device": 1, "free_bytes": 900 * GIB,
                      "total_bytes": 1000 * GIB, "held_bytes": 28 * GIB},
            "docker": {"path": "/var/lib/docker", "nearest": "/var/lib/docker", "device": 1, "free_bytes": 900 * GIB,
                       "total_bytes": 1000 * GIB, "held_bytes": 20 * GIB},
        },
        "directories": ["/srv/sparkfleet"],
        "alterable": {},
        "cache": {"path": "/srv/sparkfleet/cache", "mode": "0700"},
        "daemon_config": {
            "path": "/etc/docker/daemon.json",
            "exists": True,
            "content": {"registry-mirrors": ["http://m:5000"], "runtimes": {"nvidia": {"path": "x"}}},
            "error": None,
        },
        "toolkit": {"installed": True, "version": "1.19.0-1", "hook": "/usr/bin/h", "cdi_hook": None, "mode": "auto", "runtime": True, "cdi": False,
                    "unseen": False, "usable": True},
        "docker": {
            "installed": True, "snap": False, "running": True, "pid": 7, "started": 1.0, "socket": "/var/run/docker.sock",
            "version": "29.1.3", "api_version": "1.52", "data_root": "/var/lib/docker", "storage_driver": "overlayfs",
            "live_restore": False, "runtimes": ["nvidia", "runc"], "registry_mirrors": ["http://m:5000/"],
            "insecure_registries": [], "cdi_devices": [], "images_bytes": 0,
            "containers": [{"id": "c" * 64, "name": "sparkfleet-vllm", "image": "v", "labels": {}, "ports": []}],
        },
        "ports": [{"port": 8000, "address": "0.0.0.0", "pid": 9, "process": "docker-proxy", "container": "sparkfleet-vllm"}],
        "environment": {"path": "/v", "python": "3.12.3", "distributions": {"docker": "7.2.0", "huggingface-hub": "2.4.1"}},
        "ensurepip": True,
        "unknown": {},
    }  # fmt: skip


@pytest.fixture
def bare(spark) -> dict[str, Any]:
    """A Spark without engine, toolkit and environment."""
    spark["docker"] = {
        **dict.fromkeys(spark["docker"]),
        "installed": False,
        "snap": False,
        "running": False,
        "socket": "/s",
    }
    spark["toolkit"] = {
        **spark["toolkit"],
        "installed": False,
        "version": None,
        "hook": None,
        "runtime": False,
        "usable": False,
    }
    spark["environment"] = {"path": "/v", "python": None, "distributions": {}}
    spark["daemon_config"] = {**spark["daemon_config"], "exists": False, "content": {}}
    spark.update(directories=[], ports=[], ensurepip=False)
    return spark


def judged(info, wanted=WANTED):
    """As module and action plugin do it together."""
    return judge.judge(info, wanted, daemon_json.needed(info, wanted))


def checks(info, wanted=WANTED):
    return [problem["check"] for problem in judged(info, wanted)["problems"]]


def only(info, wanted=WANTED):
    found = judged(info, wanted)["problems"]
    assert len(found) == 1, found
    return found[0]


def test_a_spark_that_serves_is_left_alone(spark):
    assert judged(spark, WANTED)["problems"] == []
    assert judged(spark, WANTED)["changes"] == []
    assert judged(spark, WANTED)["usable"]


def test_a_bare_spark_has_work_and_no_problem(bare):
    assert judged(bare, WANTED)["problems"] == []
    todo = judged(bare, WANTED)["todo"]
    assert todo["packages"] == ["nvidia-container-toolkit", "docker.io", "python3-venv"]
    assert todo["docker_repository"] and todo["toolkit_repository"]
    assert not todo["start"], "the package starts it"
    assert judged(bare, WANTED)["changes"] == [
        "install nvidia-container-toolkit, docker.io, python3-venv",
        "create /srv/sparkfleet",
        "install into the Python environment: docker==7.2.0, huggingface_hub==2.4.*",
        "merge into daemon.json: registry-mirrors, runtimes",
    ]
    assert not judged(bare, WANTED)["usable"]


def test_the_spark_with_64_gb_is_one(spark):
    """Of 128 GB the larger one shows 119.6 GiB."""
    spark["memory"]["total_bytes"] = 64 * 128468000768 // 128
    assert checks(spark) == []
    spark["memory"]["total_bytes"] = 32 * GIB
    assert only(spark)["check"] == "memory"


def break_everything(info):
    info.update(architecture="x86_64", uid=1000, apt=False, driver="535.1")
    info["gb10"] = {"present": False, "pci": [], "name": "NVIDIA H100", "product": "Server"}
    info["memory"]["total_bytes"] = 24 * GIB
    for disk in info["disks"].values():
        disk.update(free_bytes=GIB, held_bytes=0)
    info["ports"] = [{"port": 8000, "address": "0.0.0.0", "pid": 4, "process": "nginx", "container": None}]
    info["docker"]["api_version"] = "1.40"
    info["toolkit"].update(installed=False, usable=False)
    info["daemon_config"].update(content=None, error="line 1, column 2: oops")


def test_all_problems_at_once(spark):
    break_everything(spark)
    assert checks(spark) == [
        "privileges", "architecture", "gb10", "driver", "memory", "disk", "port", "packages", "docker", "daemon.json",
    ]  # fmt: skip
    for problem in judged(spark, WANTED)["problems"]:
        assert all(problem[part] for part in ("expected", "seen", "do")), problem
    report = judged(spark, WANTED)["report"]
    assert "memory: expected 50 GiB in all\n  seen 24.0 GiB\n  do   use a host" in report
    assert "nginx (pid 4) on 0.0.0.0" in report
    assert "line 1, column 2: oops" in report


def test_a_host_that_is_no_spark_may_serve_when_it_is_asked_for(spark):
    spark.update(
        architecture="x86_64", driver=None, gb10={"present": False, "pci": [], "name": None, "product": None}
    )
    assert checks(spark) == ["architecture", "gb10", "driver"]
    assert checks(spark, WANTED | {"gb10": False, "architectures": ("aarch64", "x86_64")}) == []


@pytest.mark.parametrize(
    "probe",
    ["gb10", "driver", "gpu", "memory", "disks", "alterable", "ports", "toolkit", "docker", "daemon_config"],
)
def test_what_could_not_be_read_is_a_problem_with_its_reason(spark, probe):
    spark[probe] = None
    spark["unknown"][probe] = "no answer within 10 s"
    found = judged(spark, WANTED)["problems"]
    assert any("unknown: no answer within 10 s" in problem["seen"] for problem in found), found
    judged(spark, WANTED)["changes"]


@pytest.mark.parametrize(("seen", "minimum", "bad"), [("580.95.05", "580", False), ("579.99", "580", True), ("580", "580.65.06", True), ("590.1", "580.65", False), ("1000.1", "580", False)])  # fmt: skip
def test_driver_versions_compare_as_numbers(spark, seen, minimum, bad):
    spark["driver"] = seen
    assert (checks(spark, WANTED | {"minimum_driver": minimum}) == ["driver"]) is bad


def test_models_and_images_that_are_there_need_no_room(spark):
    spark["disks"]["store"]["free_bytes"] = spark["disks"]["docker"]["free_bytes"] = 32 * GIB
    assert checks(spark) == [], "40 + 40 wanted, 28 + 20 held, 32 free"
    spark["disks"]["store"]["held_bytes"] = 27 * GIB
    assert only(spark)["expected"] == "33.0 GiB free for /srv/sparkfleet and /var/lib/docker"


def test_each_file_system_is_judged_alone(spark):
    spark["disks"]["docker"].update(device=2, free_bytes=GIB)
    problem = only(spark)
    assert problem["expected"] == "20.0 GiB free for /var/lib/docker"
    assert (
        problem["do"].endswith("prerequisites_minimum_docker_gib") and "Docker's data-root" in problem["do"]
    )
    spark["docker"]["containerd_snapshotter"] = True
    assert "containerd's root" in only(spark)["do"]


def test_a_port_is_taken_by_a_container_of_another_name(spark):
    spark["ports"][0]["container"] = "ollama"
    assert only(spark)["seen"] == "container ollama"


def test_an_engine_that_runs_and_does_not_answer(spark):
    spark["docker"].update(version=None, api_version=None, containers=None)
    spark["unknown"]["docker_api"] = "timed out"
    assert only(spark)["seen"] == "unknown: timed out"


def test_without_systemd_nothing_can_be_started(bare):
    bare["systemd"] = False
    assert only(bare)["seen"] == "neither"


def test_an_engine_that_is_stopped_is_started(spark):
    spark["docker"].update(running=False, version=None)
    assert checks(spark) == []
    assert judged(spark, WANTED)["changes"] == ["start Docker"]


def test_a_toolkit_installed_after_the_engine_started_needs_a_restart_that_is_refused_while_it_serves(spark):
    spark["toolkit"].update(unseen=True, usable=False)
    assert only(spark)["check"] == "restart"
    assert "it would stop sparkfleet-vllm" in only(spark)["seen"]
    always = WANTED | {"restart_docker": "always"}
    assert checks(spark, always) == []
    assert judged(spark, always)["changes"][0].endswith("only when it starts, which stops sparkfleet-vllm")
    spark["docker"]["live_restore"] = True
    assert checks(spark) == []
    spark["docker"].update(live_restore=False, containers=[])
    assert checks(spark) == []
    assert only(spark, WANTED | {"restart_docker": "never"})["seen"].endswith("restarts are off (never)")


def test_a_toolkit_that_the_engine_cannot_find_is_no_reason_to_restart_for_ever(spark):
    spark["toolkit"].update(hook=None, usable=False)
    assert only(spark)["check"] == "toolkit"
    assert judged(spark, WANTED)["todo"]["daemon"]["action"] == "none"


def test_a_mirror_is_added_by_a_reload_while_it_serves(spark):
    wanted = WANTED | {"registry_mirrors": ("http://other:5000",)}
    assert checks(spark, wanted) == []
    assert judged(spark, wanted)["changes"] == [
        "merge into daemon.json: registry-mirrors", "reload Docker (no container stops)",
    ]  # fmt: skip


def test_judging_leaves_what_was_seen_alone(spark):
    break_everything(spark)
    before = copy.deepcopy(spark)
    judged(spark, WANTED)["problems"]
    judged(spark, WANTED)["todo"]
    assert spark == before


@pytest.mark.parametrize(
    "requirement",
    [
        "docker==",
        "-e x",
        "docker==7.x",
        "docker>=7.*",
        "git+https://x",
        "a b",
        "docker @ https://x/docker-7.whl",
        "docker[ssh]",
        "docker; python_version > '3'",
    ],
)
def test_what_a_list_of_distributions_cannot_meet_is_refused(spark, requirement):
    with pytest.raises(requirements.RequirementError, match="expected a name, and versions"):
        judged(spark, WANTED | {"requirements": [requirement]})


def test_a_minimum_that_is_no_version_is_told_and_lets_no_host_pass(spark):
    with pytest.raises(
        requirements.VersionError, match="minimum_driver: expected a version, such as 580.95, seen 'newest'"
    ):
        judged(spark, WANTED | {"minimum_driver": "newest"})


def test_a_driver_whose_version_cannot_be_read_is_not_late_enough(spark):
    spark["driver"] = "of our own"
    assert only(spark)["check"] == "driver"


def test_what_is_judged_has_a_default_in_the_module():
    names = {field.name for field in fields(judge.Wanted)}
    assert names == set(spark_info.WANTED) - set(spark_info.OF_DAEMON_JSON)


@pytest.mark.parametrize(
    ("gpu", "seen", "do"),
    [
        (
            {"error": "exited 18: Driver/library version mismatch", "libraries": []},
            "(580.95.05 is loaded)",
            "reboot the host: its",
        ),
        (
            {"error": "exited 9: no talk with the driver", "libraries": ["580.126"]},
            "no talk",
            "reboot the host: its",
        ),
        ({"error": "exited 9: no talk with the driver"}, "no talk", "dmesg"),
    ],
)
def test_a_gpu_that_no_new_container_gets_is_a_problem(spark, gpu, seen, do):
    spark["gpu"].update(gpu)
    assert only(spark)["check"] == "gpu"
    assert seen in only(spark)["seen"] and do in only(spark)["do"]
    assert checks(spark, WANTED | {"toolkit": False}) == [], "nobody asks for a GPU"


def test_a_mode_of_the_toolkit_in_which_the_engine_gets_no_gpu_is_named(spark):
    spark["toolkit"].update(mode="cdi", usable=False)
    assert "engine 29.1.3" in only(spark)["seen"] and 'mode = "cdi"' in only(spark)["seen"]
    assert "mode=auto" in only(spark)["do"]


def test_a_key_of_daemon_json_that_dockerd_has_as_a_flag_is_a_problem(spark):
    spark["docker"]["flags"] = ["registry-mirrors"]
    assert only(spark)["check"] == "daemon.json"
    assert "dockerd runs with registry-mirrors as a flag too" in only(spark)["seen"]


def test_docker_as_a_snap_is_refused_by_name_and_nothing_is_installed_beside_it(bare):
    bare["docker"].update(installed=True, snap=True)
    assert "Docker as a snap" in only(bare)["seen"] and "snap remove docker" in only(bare)["do"]
    assert "docker.io" not in str(judged(bare, WANTED)["changes"])


def test_an_engine_that_answers_one_question_of_two_is_not_judged_by_it(spark):
    spark["unknown"]["docker_api"] = "/info: timed out"
    assert only(spark)["seen"] == "unknown: /info: timed out"


def test_a_store_that_others_may_alter_is_a_problem(spark):
    spark["alterable"] = {"/srv/sparkfleet": "owned by uid 1000"}
    assert (only(spark)["check"], only(spark)["seen"]) == ("directory", "owned by uid 1000")
    assert "chown root:root /srv/sparkfleet" in only(spark)["do"]


@pytest.mark.parametrize(
    ("mode", "left"),
    [("0700", []), ("0600", []), ("0755", ["/c"]), ("0701", ["/c"]), ("0750", ["/c"]), (None, ["/c"])],
)
def test_a_cache_that_users_of_the_host_may_enter_is_closed(spark, mode, left):
    spark["cache"] = {"path": "/c", "mode": mode}
    found = judged(spark, WANTED)
    assert found["todo"]["private"] == left
    assert found["changes"] == [f"keep {path} to root" for path in left]
    assert found["problems"] == []


def test_a_cache_that_could_not_be_looked_at_is_left(spark):
    spark["cache"] = None
    assert judged(spark, WANTED)["todo"]["private"] == []
