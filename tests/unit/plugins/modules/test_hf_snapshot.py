from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from ansible_collections.sparkfleet.vllm.plugins.modules import hf_snapshot
from helpers.hub import COMMIT, lab_hub
from helpers.snapshots import FILES, SECRET, callers

ROOT = Path(__file__).resolve().parents[4]


@pytest.fixture
def lab(tmp_path):
    with lab_hub(tmp_path / "hub") as hub:
        yield hub


@pytest.fixture
def calls(lab, tmp_path, capsys):
    return callers(lab, tmp_path, capsys)


@pytest.fixture
def call(calls):
    return calls[0]


@pytest.fixture
def look(calls):
    return calls[1]


def path(tmp_path):
    return tmp_path / "store/models/org--body" / COMMIT


def test_look_fetch_and_nothing_left(call, look, lab, tmp_path):
    assert not look()["settled"]
    first = call(diff=True)
    assert first["changed"] and first["snapshots"][0]["state"] == "fetched"
    assert first["diff"][0]["before"] == "" and first["diff"][0]["after"].count("\n") == 2
    assert (path(tmp_path) / "model.safetensors").read_bytes() == FILES["model.safetensors"]
    lab.forget_requests()
    assert look()["settled"]
    second = call(diff=True)
    assert (second["changed"], second["settled"], second["diff"]) == (False, True, [])
    assert second["snapshots"][0] | {"seconds": 0} == {
        "repository": "org/body",
        "commit": COMMIT,
        "path": str(path(tmp_path)),
        "state": "present",
        "files": 2,
        "bytes": 1024002,
        "fetched_files": 0,
        "fetched_bytes": 0,
        "verified_bytes": 0,
        "reused": 2,
        "damaged": [],
        "unexpected": [],
        "seconds": 0,
    }
    assert lab.requests() == []


def test_hashing_without_fetching(call, look, lab, tmp_path):
    assert not call(fetch=False)["settled"]
    call()
    lab.forget_requests()
    file = path(tmp_path) / "model.safetensors"
    os.utime(file)
    assert look()["look"][0]["unknown_bytes"] == 1024000
    checked = call(fetch=False, check=True)
    assert (checked["changed"], checked["settled"]) == (False, True)
    assert look()["look"][0]["unchecked"]
    assert (call(fetch=False)["changed"], look()["settled"]) == (False, True)
    file.chmod(0o600)
    assert look()["look"][0]["unchecked"]
    assert (call(fetch=False)["changed"], look()["settled"]) == (True, True)
    file.write_bytes(b"x" * 1024000)
    wrong = call(fetch=False, diff=True)
    assert (wrong["changed"], wrong["settled"], wrong["diff"]) == (False, False, [])
    assert (wrong["look"][0]["whole"], len(wrong["look"][0]["damaged"])) == (False, 1)
    assert file.read_bytes() == b"x" * 1024000
    assert lab.requests() == []


def test_two_snapshots_in_one_execution(call, lab):
    both = [lab.add("org/one", FILES), lab.add("org/two", {"a": b"b"})]
    assert [one["state"] for one in call(snapshots=both)["snapshots"]] == ["fetched", "fetched"]


def test_check_mode_says_what_would_be_fetched(call, lab, tmp_path):
    result = call(check=True, diff=True)
    assert result["changed"]
    assert (result["snapshots"][0]["fetched_files"], result["snapshots"][0]["fetched_bytes"]) == (2, 1024002)
    assert "model.safetensors" in result["diff"][0]["after"]
    assert not (tmp_path / "store").exists()
    assert lab.requests() == []
    call()
    assert not call(check=True)["changed"]


def test_check_mode_needs_no_huggingface_hub(lab, tmp_path):
    """As on a host that is not set up yet: a Python without the library. A real run there says what is missing."""
    arguments = {
        "snapshots": [lab.add("org/body", FILES)],
        "store": str(tmp_path / "store"),
        "endpoint": lab.url,
    }
    code = (
        "import sys, json; sys.path.insert(0, sys.argv[1])\n"
        "for name in ('huggingface_hub', 'httpx2', 'httpx', 'tqdm', 'yaml'): sys.modules[name] = None\n"
        "from ansible.module_utils.testing import patch_module_args\n"
        "from ansible_collections.sparkfleet.vllm.plugins.modules import hf_snapshot\n"
        "with patch_module_args(json.loads(sys.argv[2])): hf_snapshot.main()\n"
    )

    def run(check):
        given = {**arguments, "_ansible_check_mode": check, "_ansible_remote_tmp": str(tmp_path)}
        command = [sys.executable, "-c", code, str(ROOT / ".cache/collections"), json.dumps(given)]
        return json.loads(subprocess.run(command, capture_output=True, text=True, check=False).stdout)

    assert run(check=True)["snapshots"][0]["fetched_files"] == 2
    assert "(huggingface_hub)" in run(check=False)["msg"]


def test_the_token_is_used_and_never_told(call, lab):
    lock = lab.add("org/gated", FILES, gated=True, tokens=[SECRET])
    result = call(snapshots=[lock], token=SECRET)
    assert result["snapshots"][0]["state"] == "fetched"
    assert all(line["token"] for line in lab.requests())
    assert SECRET not in json.dumps(result)
    # Which ansible-core 2.21 no longer returns.
    if "invocation" in result:
        assert result["invocation"]["module_args"]["token"] == "********"


@pytest.mark.parametrize("token", [None, ""])
def test_gated_without_a_token(call, lab, token):
    result = call(snapshots=[lab.add("org/gated", FILES, gated=True)], token=token)
    assert result["failed"]
    assert "HTTP 401" in result["msg"] and "HF_TOKEN on the controller" in result["msg"]
    assert "Nothing was promoted" in result["msg"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"snapshots": []}, "snapshots: expected one or more"),
        ({"max_workers": 0}, "max_workers: expected 1 or more, seen 0"),
        ({"retries": -1}, "retries: expected 0 or more"),
        ({"disk_reserve": -1}, "disk_reserve: expected 0"),
        ({"lock_timeout": -1}, "lock_timeout: expected 0"),
        ({"timeout": 0}, "timeout: expected 1"),
        ({"store": "relative"}, "store: expected an absolute path, seen relative"),
        ({"endpoint": "huggingface.co"}, "expected an endpoint such as"),
        ({"token": "hf_ with a space"}, "expected a token in one word"),
        ({"transport": "ftp"}, "transport must be one of"),
        ({"verify": "md5"}, "verify must be one of"),
        ({"disk_reserve": 10**9}, "a reserve of 1048576.00 GB), seen"),
    ],
)
def test_every_option_is_checked(call, lab, tmp_path, arguments, expected):
    result = call(**arguments)
    assert result["failed"] and expected in result["msg"]
    assert lab.requests() == []
    assert not path(tmp_path).exists()


def test_all_problems_of_all_snapshots_at_once(call, lab):
    bad = {"repository": "x", "commit": "main", "files": {"../a": {"size": 1, "sha256": "a" * 64}}}
    good = lab.add("org/body", FILES)
    message = call(snapshots=[bad, good, good], retries=-1)["msg"]
    assert len(message.splitlines()) == 5
    assert "org/body at c4bbb7689dc16de4aaa468647625a5a02f98e22f: expected once, seen 2 times" in message


def test_files_that_the_lock_does_not_know_are_warned_of(call, tmp_path, monkeypatch):
    warnings = []
    monkeypatch.setattr(hf_snapshot.AnsibleModule, "warn", lambda _, text: warnings.append(text))
    call()
    assert not warnings
    (path(tmp_path) / "stray.safetensors").write_bytes(b"x")
    assert not call()["changed"]
    assert "stray.safetensors; remove them" in warnings[0]
