from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from ansible_collections.sparkfleet.vllm.plugins.modules import hf_snapshot_info
from helpers.hub import COMMIT, lab_hub
from helpers.snapshots import callers

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


def everything(folder):
    return {path: path.lstat().st_ctime_ns for path in folder.rglob("*")}


@pytest.mark.parametrize("check", [True, False])
def test_a_look_says_what_is_missing_and_whether_it_is_check_mode(look, lab, tmp_path, check):
    seen = look(check=check)
    assert (seen["changed"], seen["settled"], seen["check_mode"]) == (False, False, check)
    assert seen["look"][0]["missing_bytes"] == 1024002
    assert not (tmp_path / "store").exists()
    assert lab.requests() == []


def test_only_hashing_reads_files_and_what_it_finds_is_not_remembered(call, look, lab, tmp_path):
    call()
    lab.forget_requests()
    file = tmp_path / "store/models/org--body" / COMMIT / "model.safetensors"
    os.utime(file)
    before = everything(tmp_path / "store")
    for _ in range(2):
        assert look()["look"][0]["unknown_bytes"] == 1024000
        hashed = look(hash=True)
        assert (hashed["settled"], hashed["look"][0]["verified_bytes"]) == (True, 1024000)
    assert look(verify="full")["look"][0]["unknown_bytes"] == 1024002
    assert look(verify="full", hash=True)["look"][0]["verified_bytes"] == 1024002
    assert everything(tmp_path / "store") == before
    file.write_bytes(b"x" * 1024000)
    assert len(look(hash=True)["look"][0]["damaged"]) == 1
    assert lab.requests() == []


def test_a_look_says_whether_there_is_something_to_hash_in_any_of_them(call, look, lab, tmp_path):
    both = [lab.add("org/one", {"a": b"a"}), lab.add("org/two", {"a": b"b"})]
    assert look(snapshots=both)["unchecked"] is False, "nothing is there"
    call(snapshots=both)
    assert look(snapshots=both)["unchecked"] is False
    os.utime(tmp_path / "store/models/org--two" / COMMIT / "a")
    assert look(snapshots=both)["unchecked"] is True
    assert look(snapshots=both, hash=True)["unchecked"] is False


def test_a_look_names_the_address_asked_for(look):
    assert look(interface="lo")["address"] == "127.0.0.1"
    assert look(address="127.0.0.3")["address"] == "127.0.0.3"


def test_a_look_says_whether_the_draft_fits(call, look, lab, tmp_path, monkeypatch):
    made = tmp_path / "made"
    arguments = ["--body", str(made / "body"), "--draft", str(made / "draft"), "--acceptance", "0.69"]
    script = ROOT / "molecule/lab/vllm/weights.py"
    subprocess.run([sys.executable, str(script), *arguments], check=True, capture_output=True)
    files = {
        name: {file.name: file.read_bytes() for file in (made / name).iterdir() if file.is_file()}
        for name in ("body", "draft")
    }
    config = json.loads(files["draft"]["config.json"])
    wrong = files["draft"] | {"config.json": json.dumps(config | {"backbone_hidden_size": 7}).encode()}
    both = [lab.add("org/body", files["body"]), lab.add("org/draft", files["draft"])]
    other = [both[0], lab.add("org/wrong", wrong)]
    asked = {"pair": ["org/body", "org/draft"]}
    assert "fits" not in look(snapshots=both, **asked)
    call(snapshots=both)
    call(snapshots=other)
    assert look(snapshots=both, **asked)["fits"] is True
    assert look(snapshots=both, **asked, check=True)["fits"] is True
    assert look(snapshots=other, **asked | {"pair": ["org/body", "org/wrong"]})["fits"] is False
    assert look(snapshots=both, **asked | {"pair": ["org/body", "org/else"]})["fits"] is False
    assert "fits" not in look(snapshots=both)
    assert look(snapshots=both, pair=["org/body"])["fits"] is True
    trained = json.dumps(json.loads(files["body"]["config.json"]) | {"dspark_block_size": 5}).encode()
    block = [lab.add("org/block", files["body"] | {"config.json": trained})]
    call(snapshots=block)
    for depth, fits in ((5, True), (7, False)):
        speculation = {"method": "dspark", "num_speculative_tokens": depth}
        seen = look(snapshots=block, pair=["org/block"], speculation=speculation)
        assert (seen["fits"], seen["unseen"]) == (fits, [])
    packed = {"config.json": files["draft"]["config.json"], "pytorch_model.bin": b"PK"}
    pair = [both[0], lab.add("org/packed", packed)]
    call(snapshots=pair)
    warned: list[str] = []
    monkeypatch.setattr(hf_snapshot_info.AnsibleModule, "warn", lambda module, text: warned.append(text))
    seen = look(snapshots=pair, pair=["org/body", "org/packed"])
    assert seen["fits"] is True and "pytorch_model.bin" in seen["unseen"][0]
    assert any(seen["unseen"][0] in text for text in warned)
    promised = json.dumps(json.loads(files["body"]["config.json"]) | {"mtp_num_hidden_layers": 1}).encode()
    alone = [lab.add("org/alone", files["body"] | {"config.json": promised})]
    call(snapshots=alone)
    assert look(snapshots=alone, pair=["org/alone"])["fits"] is False


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"snapshots": []}, "snapshots: expected one or more"),
        ({"max_workers": 0}, "max_workers: expected 1 or more, seen 0"),
        ({"timeout": 0}, "timeout: expected 1"),
        ({"store": "relative"}, "store: expected an absolute path, seen relative"),
        ({"verify": "md5"}, "verify must be one of"),
        ({"interface": "nowhere9"}, "seen nowhere9 where it has"),
        ({"hash": True, "address": "192.0.2.1"}, "seen 192.0.2.1 where it has"),
    ],
)
def test_every_option_is_checked(look, arguments, expected):
    result = look(**arguments)
    assert result["failed"] and expected in result["msg"]
