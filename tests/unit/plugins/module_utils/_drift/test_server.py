"""What the process, the record and the unit tell, each broken in turn."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
from ansible_collections.sparkfleet.vllm.plugins.module_utils._drift import look, record, server
from ansible_collections.sparkfleet.vllm.plugins.module_utils._drift.look import Answers, Seen, Wanted
from ansible_collections.sparkfleet.vllm.plugins.module_utils._gate.container import FileSeen, State
from ansible_collections.sparkfleet.vllm.plugins.module_utils._gate.diagnosis import CheckedFile, WantedFile
from ansible_collections.sparkfleet.vllm.plugins.module_utils._host.unit import Unit
from ansible_collections.sparkfleet.vllm.plugins.module_utils._vllm.log import Speculation
from ansible_collections.sparkfleet.vllm.plugins.module_utils._vllm.metrics import Counters
from helpers.drift import CONTAINER, IMAGE, PATCH, SERVING, TARGET, running

ARGV = CONTAINER["command"]
STATE = State("c" * 64, "running", "1970-01-01T00:16:40Z", pid=1, mounts={TARGET: PATCH})
MD5, SHA256 = "1" * 32, "2" * 64
GOOD = FileSeen(MD5, SHA256, changed=900.0)
BAD = FileSeen("3" * 32, "4" * 64, changed=900.0)
COUNTERS = Counters(drafts=600, draft_tokens=600, accepted=414, per_position={0: 414}, generated=1014)


def kinds(findings):
    return [finding.kind for finding in findings]


# -- files


def checked(seen, host=GOOD):
    return CheckedFile(WantedFile(TARGET, MD5, SHA256, PATCH), seen, host, PATCH)


@pytest.mark.parametrize(
    ("seen", "host", "patched", "expected"),
    [
        (GOOD, GOOD, True, []),
        (BAD, GOOD, True, ["patch-in-container"]),
        (FileSeen(error="no such file"), GOOD, True, ["patch-in-container"]),
        (replace(GOOD, changed=1001.0), GOOD, True, ["file-newer-than-process"]),
        # The store is wrong, which is a finding of its own: the same bytes in the container add nothing.
        (BAD, BAD, False, []),
        # An editor put another file in the place of the one that the process has: unlinking is a change of that one.
        (replace(GOOD, changed=1001.0), BAD, False, []),
        (BAD, GOOD, False, ["patch-in-container"]),
    ],
)
def test_a_patched_file_as_the_process_sees_it(seen, host, patched, expected):
    assert kinds(server.files([checked(seen, host)], STATE, patched)) == expected


@pytest.mark.parametrize(
    ("path", "kind", "words"),
    [
        ("/usr/lib/python3/dist-packages/vllm/engine.py", 0, "changed"),
        ("/usr/lib/python3/dist-packages/sitecustomize.py", 1, "added"),
        ("/opt/app/server.py", 2, "removed"),
        ("/usr/lib/python3/dist-packages/vllm/__pycache__/engine.cpython-312.pyc", 1, ""),
        ("/root/.cache/flashinfer/kernel.so", 1, ""),
        (TARGET, 0, ""),
    ],
)
def test_a_program_file_inside_the_container(path, kind, words):
    folders = [{"Path": "/usr/lib/python3/dist-packages/vllm", "Kind": 0}, {"Path": "/usr", "Kind": 0}]
    found = server.edited([*folders, {"Path": path, "Kind": kind}], [TARGET])
    assert [finding.seen for finding in found] == ([f"{path} {words} since"] if words else [])


def test_a_folder_with_the_name_of_a_program_is_none():
    entries = [{"Path": "/opt/x.py", "Kind": 1}, {"Path": "/opt/x.py/notes.txt", "Kind": 1}]
    assert server.edited(entries, []) == []


# -- what it says of itself


def test_the_server_of_this_argv_answers():
    assert server.answers(ARGV, ["m", "alias"]) == []
    assert kinds(server.answers(ARGV, ["other"])) == ["wrong-server"]
    assert server.answers(["/models/b"], ["/models/b"]) == []
    assert kinds(server.answers(["/models/b"], [])) == ["wrong-server"]


@pytest.mark.parametrize(
    ("argv", "labels", "wrong"),
    [
        (["--kv-cache-dtype", "fp8"], {"cache_dtype": "fp8"}, False),
        (["--kv-cache-dtype", "fp8"], {"cache_dtype": "fp8_e4m3"}, False),
        (["--kv-cache-dtype", "fp8"], {"cache_dtype": "auto"}, True),
        (["--kv-cache-dtype", "auto"], {"cache_dtype": "fp8"}, False),
        (["--gpu-memory-utilization", "0.650"], {"gpu_memory_utilization": "0.65"}, False),
        (["--gpu-memory-utilization", "0.65"], {"gpu_memory_utilization": "0.9"}, True),
        (["--enable-prefix-caching"], {"enable_prefix_caching": "True"}, False),
        (["--enable-prefix-caching"], {"enable_prefix_caching": "False"}, True),
        (["--no-enable-prefix-caching"], {"enable_prefix_caching": "True"}, True),
        (["--block-size", "32"], {"block_size": "16"}, False),
        (["--kv-cache-dtype", "fp8"], {}, False),
    ],
)
def test_what_it_runs_with_is_what_it_was_given(argv, labels, wrong):
    assert kinds(server.cache_config(argv, labels)) == (["effective-config"] if wrong else [])


def test_speculation_as_it_was_asked_for():
    given = {"method": "mtp", "num_speculative_tokens": 1}
    log = Speculation(True, "mtp", 1)
    assert server.speculation(given, COUNTERS, log, ARGV) == []
    ignored = server.speculation(given, Counters(generated=1), log, ARGV)
    assert kinds(ignored) == ["speculation-ignored"]
    assert kinds(server.speculation(given, COUNTERS, replace(log, method="draft_model"), ARGV)) == [
        "speculation-mismatch"
    ]


@pytest.mark.parametrize(
    ("drafts", "accepted", "low"), [(600, 414, False), (200, 79, True), (199, 0, False), (0, 0, False)]
)
def test_acceptance_is_judged_above_a_number_of_drafts(drafts, accepted, low):
    counters = Counters(drafts=drafts, accepted=accepted, per_position={0: accepted})
    assert kinds(server.acceptance(counters, 0.4, 200)) == (["acceptance"] if low else [])


# -- the record and the unit


def passed(serving):
    return {"version": 1, "current": {"serving": serving, "gate": {}}, "last_good": None}


OLDER = SERVING | {"recipe": "older"}


@pytest.mark.parametrize(
    ("state", "runs", "expected"),
    [
        (passed(SERVING), [SERVING], []),
        # An edit of the container is told by what it changed.
        (passed(SERVING), [], []),
        (None, [SERVING], [("never-passed", "drift")]),
        (passed(OLDER), [SERVING], [("never-passed", "drift")]),
        (passed(OLDER), [OLDER], [("not-deployed", "warning")]),
        (passed(OLDER), [], [("never-passed", "drift")]),
    ],
)
def test_what_is_on_record(state, runs, expected):
    found = record.record(state, SERVING, lambda serving: serving in runs)
    assert [(finding.kind, finding.severity) for finding in found] == expected


UNIT = Unit("[Unit]\n", "enabled", active="active", watches=True)


@pytest.mark.parametrize(
    ("over", "expected"),
    [
        ({}, []),
        ({"text": "[Unit]"}, []),
        ({"text": None}, ["boot-unit-missing"]),
        ({"text": "[Unit]\nRequires=x"}, ["boot-unit-changed"]),
        ({"drop_ins": ("/etc/systemd/system/x.service.d/o.conf",)}, ["boot-unit-changed"]),
        ({"enabled": "disabled"}, ["boot-unit-disabled"]),
        ({"watches": False, "active": "inactive"}, ["boot-unit-inactive"]),
        ({"watches": False, "active": "activating"}, []),
        # One cure for both.
        ({"watches": False, "text": "[Unit]\nRequires=x"}, ["boot-unit-changed"]),
    ],
)
def test_the_unit(over, expected):
    assert kinds(record.boot_unit("x.service", "[Unit]\n", replace(UNIT, **over), True)) == expected


def test_a_server_that_is_not_to_come_back_needs_no_unit():
    assert record.boot_unit("x.service", "", Unit(), True) == []


def test_a_unit_without_a_server_is_no_finding_of_its_own():
    assert record.boot_unit("x.service", "[Unit]\n", replace(UNIT, watches=False), False) == []


# -- all of it


SEEN = Seen(
    container=running(),
    image=IMAGE,
    wanted_image=IMAGE,
    state=STATE,
    now=5000.0,
    files=[checked(GOOD)],
    answers=Answers(True, ["m"], COUNTERS, {"cache_dtype": "fp8"}),
    log=Speculation(True, "mtp", 1),
    recorded=passed(SERVING),
    unit=UNIT,
)
WANTED = Wanted(SERVING, labels={"sparkfleet.vllm.patches": "s"}, boot_unit="[Unit]\n")


def judged(wanted=WANTED, **over):
    return look.judge(wanted, replace(SEEN, **over), "/var/lib/s/state.json")


def test_a_host_as_it_should_be():
    part = judged()
    assert (part["findings"], part["unknown"]) == ([], {})
    assert part["known"]["speculation"] == {"drafts": 600, "acceptance_rate": 0.69}


def test_one_edit_is_one_finding():
    words = [word if word != "m" else "n" for word in ARGV]
    part = judged(container=running(Config__Cmd=words), answers=replace(SEEN.answers, models=["n"]))
    assert [(f["subject"], f["kind"]) for f in part["findings"]] == [("container", "served-model")]


def test_a_server_that_starts_is_not_judged_yet_and_one_that_takes_too_long_is():
    starting = judged(answers=Answers(), now=1060.0)
    assert starting["findings"] == [] and "60 s" in starting["unknown"]["server"]
    late = judged(answers=Answers(), now=5000.0)
    assert [f["kind"] for f in late["findings"]] == ["not-answering"]


def test_a_worker_without_an_api_is_as_it_should_be_and_its_supervisor_is_heard():
    worker = replace(WANTED, serving=SERVING | {"unit": {"name": "pair", "rank": 1}})
    says = {"phase": "running", "generation": "a1", "problem": "", "restarts": 0, "why": ""}
    recorded = passed(worker.serving)
    part = judged(worker, answers=Answers(), member=says, recorded=recorded)
    assert (part["findings"], part["unknown"]) == ([], {})
    assert part["known"]["member"]["generation"] == "a1"
    silent = judged(worker, answers=Answers(), member=says | {"phase": ""}, recorded=recorded)
    assert [f["kind"] for f in silent["findings"]] == ["unit-silent"]
    head = replace(WANTED, serving=SERVING | {"unit": {"name": "pair", "rank": 0}})
    late = judged(head, answers=Answers(), member=says, recorded=passed(head.serving))
    assert [f["kind"] for f in late["findings"]] == ["not-answering"], "the head is asked as any server"


def test_a_container_that_does_not_run_has_no_server_to_be_judged():
    state = replace(STATE, status="exited")
    part = judged(container=running(State__Status="exited"), state=state, answers=Answers(), files=[])
    assert [f["kind"] for f in part["findings"]] == ["stopped"]
    assert part["unknown"].keys() == {"server", "patches"}


def test_figures_of_another_server_are_not_told():
    low = Counters(drafts=600, accepted=0, per_position={0: 0}, generated=600)
    part = judged(answers=Answers(True, ["other"], low, {"cache_dtype": "auto"}))
    assert [f["kind"] for f in part["findings"]] == ["wrong-server"]


def test_a_recipe_that_moved_on_is_told_from_an_edit():
    newer = copy.deepcopy(SERVING)
    newer["container"]["command"] += ["--seed", "1"]
    part = judged(replace(WANTED, serving=newer))
    assert [f["kind"] for f in part["findings"]] == ["argument", "not-deployed"]


def test_a_record_that_cannot_be_read():
    assert [f["kind"] for f in judged(record_problem="version 2")["findings"]] == ["record-broken"]


def test_stale_mounts_and_neighbours():
    part = judged(stale=["/models/b", "/config/x.jinja"], neighbours=["other"])
    assert [(f["subject"], f["kind"], f["severity"]) for f in part["findings"]] == [
        ("host", "gpu-shared", "warning"),
        ("models", "mount-stale", "drift"),
        ("container", "mount-stale", "drift"),
    ]


def test_a_file_that_is_mounted_where_the_image_has_none_is_no_edit():
    added = [
        {"Path": path, "Kind": 1} for path in ("/opt/config", "/opt/config/x.jinja", "/opt/config/y.jinja")
    ]
    state = replace(STATE, mounts={"/opt/config/x.jinja": "/srv/s/x.jinja"})
    assert [f["seen"] for f in judged(state=state, changes=added)["findings"]] == [
        "/opt/config/y.jinja added since"
    ]


def test_who_is_at_work_is_handed_on():
    held = {"holder": "me@c", "since": "now", "playbook": "site.yml"}
    assert judged(held=held)["known"]["held"] == held
