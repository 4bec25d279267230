"""Host, models and patches: what the looking modules say becomes findings, one for each thing."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from ansible_collections.sparkfleet.vllm.plugins.module_utils._host import daemon_json
from ansible_collections.sparkfleet.vllm.plugins.plugin_utils.drift.host import host, models, patches

WANTED = {"registry_mirrors": ["http://m:5000"], "fleet_registry": "", "daemon_config": {}, "toolkit": True}
FILE = {"registry-mirrors": ["http://m:5000"], "runtimes": daemon_json.NVIDIA_RUNTIME}
INFO: dict[str, Any] = {
    "driver": "580.95.05",
    "kernel": "6.11",
    "os": {"name": "Ubuntu 24.04"},
    "toolkit": {"version": "1.19.0-1"},
    "docker": {"version": "29.1.3", "registry_mirrors": ["http://m:5000/"], "runtimes": ["nvidia", "runc"]},
    "environment": {"path": "/opt/v", "distributions": {"docker": "7.1.0"}},
    "daemon_config": {"path": "/etc/docker/daemon.json", "error": None, "content": FILE},
    "cache": {"path": "/srv/s/cache", "mode": "0755"},
    "problems": [],
    "todo": {
        "packages": [],
        "directories": [],
        "private": [],
        "requirements": [],
        "start": False,
        "daemon": {"keys": [], "because": [], "action": "none"},
    },
}


def judged(**over):
    info = copy.deepcopy(INFO)
    for path, value in over.items():
        *parents, last = path.split("__")
        place = info
        for parent in parents:
            place = place[parent]
        place[last] = value
    return host(info, WANTED)


def test_a_host_as_it_should_be():
    part = judged()
    assert part["findings"] == []
    assert part["known"]["versions"] == {
        "driver": "580.95.05", "toolkit": "1.19.0-1", "engine": "29.1.3", "kernel": "6.11", "os": "Ubuntu 24.04",
    }  # fmt: skip


def problem(check):
    return {"check": check, "expected": "a", "seen": "b", "do": "c"}


@pytest.mark.parametrize(
    ("over", "expected"),
    [
        ({"problems": [problem("driver")]}, [("host", "driver-too-old", "drift")]),
        ({"problems": [problem("gpu")]}, [("host", "gpu-unusable", "drift")]),
        ({"problems": [problem("directory")]}, [("host", "directory-unsafe", "drift")]),
        ({"problems": [problem("disk")]}, [("host", "disk", "warning")]),
        ({"problems": [problem("docker")]}, [("engine", "engine-unusable", "drift")]),
        # That Docker would have to restart is no state of the host: the keys that differ are.
        ({"problems": [problem("restart")]}, []),
        ({"todo__packages": ["nvidia-container-toolkit"]}, [("engine", "package-missing", "drift")]),
        ({"todo__directories": ["/srv/s"]}, [("host", "directory-missing", "drift")]),
        ({"todo__private": ["/srv/s/cache"]}, [("host", "directory-open", "drift")]),
        (
            {"todo__private": ["/srv/s/cache"], "cache__mode": None},
            [("host", "directory-missing", "drift")],
        ),
        ({"todo__start": True}, [("engine", "engine-stopped", "drift")]),
        ({"docker__registry_mirrors": []}, [("engine", "engine-not-reloaded", "drift")]),
        (
            {"todo__daemon__because": [daemon_json.TOOLKIT_UNSEEN]},
            [("engine", "engine-not-restarted", "drift")],
        ),
    ],
)
def test_each_thing_is_a_finding(over, expected):
    assert [(f["subject"], f["kind"], f["severity"]) for f in judged(**over)["findings"]] == expected


def test_a_key_of_daemon_json_is_told_with_both_values():
    over = {
        "daemon_config__content": {"runtimes": FILE["runtimes"]},
        "todo__daemon__keys": ["registry-mirrors"],
    }
    (finding,) = judged(**over)["findings"]
    assert (finding["kind"], finding["expected"], finding["seen"]) == (
        "daemon-json", 'registry-mirrors: ["http://m:5000"]', "registry-mirrors not set",
    )  # fmt: skip


def test_a_requirement_is_told_with_what_is_installed():
    findings = judged(todo__requirements=["docker==7.2.0", "requests>=2"])["findings"]
    assert [(f["expected"], f["seen"]) for f in findings] == [
        ("docker==7.2.0 in /opt/v", "docker 7.1.0"),
        ("requests>=2 in /opt/v", "not installed"),
    ]


LOOK = {
    "repository": "o/b",
    "commit": "c" * 40,
    "missing": [],
    "damaged": [],
    "unknown": [],
    "unexpected": [],
}


@pytest.mark.parametrize(
    ("over", "kind", "expected", "seen"),
    [
        ({"missing": ["a"]}, "model-missing", "o/b@cccccccccccc: a", "not there"),
        (
            {"damaged": ["a: expected 2 bytes, seen 1"]},
            "model-changed",
            "o/b@cccccccccccc: a, 2 bytes",
            "1",
        ),
        ({"unknown": ["a"]}, "model-changed", "o/b@cccccccccccc: a as it was when it was hashed", None),
        ({"unexpected": ["a"]}, "model-extra", "o/b@cccccccccccc: no file that the lock does not know", "a"),
    ],
)
def test_a_file_of_a_model(over, kind, expected, seen):
    (finding,) = models([LOOK, LOOK | over])["findings"]
    assert (finding["kind"], finding["expected"]) == (kind, expected)
    assert seen in (None, finding["seen"])


PLACED = {"host_path": "/srv/p", "md5": "1" * 32}


def test_patches_in_the_store():
    wanted = [{"name": "p"}]
    clean = {"patches": [PLACED], "diff": {"before": "", "after": ""}}
    assert patches(clean, wanted) == {"subjects": ["patches"], "findings": [], "unknown": {}, "known": {}}
    (finding,) = patches(clean | {"diff": {"after": "/srv/p\n"}}, wanted)["findings"]
    assert (finding["kind"], "/srv/p" in finding["expected"]) == ("patch-store", True)


def test_a_patch_that_the_image_does_not_take_and_one_that_could_not_be_asked_about():
    wanted = [{"name": "p"}]
    (finding,) = patches({"msg": "no file to replace", "patches": []}, wanted)["findings"]
    assert (finding["kind"], finding["seen"]) == ("patch-refused", "no file to replace")
    unplaced = patches({"msg": "no image yet", "patches": [], "diff": {"after": ""}}, wanted)
    assert (unplaced["findings"], unplaced["unknown"]) == ([], {"patches": "no image yet"})


@pytest.mark.parametrize(
    ("result", "why"), [({"msg": "MODULE FAILURE"}, "MODULE FAILURE"), ({"failed": False}, "no answer")]
)
def test_a_look_at_the_patches_that_failed_is_no_refusal_and_is_told(result, why):
    looked = patches(result, [{"name": "p"}])
    assert (looked["findings"], looked["unknown"]) == ([], {"patches": f"the look failed: {why}"})


def test_a_recipe_without_patches():
    assert patches({"skipped": True}, [])["findings"] == []


@pytest.mark.parametrize(("has", "kinds"), [(True, []), (False, ["engine-not-restarted"]), (None, [])])
def test_an_image_store_that_the_engine_has_not_taken_up_is_told(has, kinds):
    content = {**FILE, "features": {"containerd-snapshotter": True}}
    part = judged(daemon_config__content=content, docker__containerd_snapshotter=has)
    assert [finding["kind"] for finding in part["findings"]] == kinds
    assert all("features.containerd-snapshotter" in finding["expected"] for finding in part["findings"])
    # A mere restart would leave no server.
    assert all("playbooks/stop.yml --limit" in finding["do"] for finding in part["findings"])
