from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.sparkfleet.vllm.plugins.modules import model_pair

ROOT = Path(__file__).resolve().parents[4]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("made")
    script = ROOT / "molecule/lab/vllm/weights.py"
    arguments = ["--body", str(root / "body"), "--draft", str(root / "draft"), "--acceptance", "0.69"]
    subprocess.run([sys.executable, str(script), *arguments], check=True, capture_output=True)
    return root


@pytest.fixture
def pair(made, tmp_path):
    return Path(shutil.copytree(made, tmp_path / "pair"))


@pytest.fixture
def call(pair, capsys):
    def run(check=False, **arguments):
        given = {
            "body": str(pair / "body"),
            "draft": str(pair / "draft"),
            "_ansible_check_mode": check,
            **arguments,
        }
        capsys.readouterr()
        with patch_module_args(given), pytest.raises(SystemExit):
            model_pair.main()
        return json.loads(capsys.readouterr().out)

    return run


def test_a_pair_that_fits(call):
    result = call()
    assert (result["changed"], result["problems"]) == (False, [])
    assert set(result["facts"]) == {"body", "draft"}


def test_a_body_alone(call):
    assert set(call(draft=None)["facts"]) == {"body"}


def test_a_body_that_lost_its_own_draft(call, pair):
    config = json.loads((pair / "body/config.json").read_text())
    (pair / "body/config.json").write_text(json.dumps(config | {"mtp_num_hidden_layers": 1}))
    assert not call(draft=None).get("failed")
    assert "named mtp, seen none" in call(draft=None, drafts_itself=True)["msg"]


def test_every_reason_is_given(call, pair):
    config = json.loads((pair / "draft/config.json").read_text())
    config["backbone_hidden_size"] = 7
    config["text_config"]["vocab_size"] = 7
    (pair / "draft/config.json").write_text(json.dumps(config))
    weights = pair / "body/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    result = call()
    assert result["failed"]
    assert {"body model.safetensors", "draft backbone_hidden_size", "draft vocab_size"} <= {
        problem["where"] for problem in result["problems"]
    }
    assert result["msg"].count("\n- ") == len(result["problems"])


def test_check_mode_before_the_first_sync_is_skipped_with_a_note(call, pair):
    result = call(check=True, draft=str(pair / "absent"))
    assert result["skipped"] and "not there yet: draft" in result["msg"]


def test_check_mode_judges_what_is_there(call, pair):
    (pair / "draft/model.safetensors").write_bytes(b"")
    assert call(check=True)["failed"]


def test_a_snapshot_that_is_not_there_is_a_failure(call, pair):
    result = call(body=str(pair / "absent"))
    assert result["failed"] and "run hf_snapshot first" in result["msg"]


def test_a_snapshot_without_a_config_is_a_failure(call, pair):
    (pair / "draft/config.json").unlink()
    assert "expected a model with a config.json" in call()["msg"]


def test_what_cannot_be_looked_into_is_told_and_not_refused(call, pair, monkeypatch):
    warned: list[str] = []
    monkeypatch.setattr(model_pair.AnsibleModule, "warn", lambda module, text: warned.append(text))
    (pair / "draft/model.safetensors").rename(pair / "draft/pytorch_model.bin")
    (pair / "draft/training_args.bin").write_bytes(b"")
    result = call()
    assert result["unseen"] == ["draft weights: not looked at, because pytorch_model.bin are no safetensors"]
    assert result["problems"] == []
    assert any(result["unseen"][0] in text for text in warned)


def test_mistrals_own_layout_is_told_and_not_refused(call, pair):
    (pair / "body/config.json").rename(pair / "body/params.json")
    result = call(draft=None)
    assert not result.get("failed")
    assert "not looked at, because the repository has Mistral's own layout" in result["unseen"][0]


def test_the_speculative_config_is_what_the_draft_is_judged_by(call, pair):
    config = json.loads((pair / "body/config.json").read_text())
    (pair / "body/config.json").write_text(json.dumps(config | {"dspark_block_size": 5}))
    asked = {"draft": None, "drafts_itself": True}
    assert not call(**asked, speculation={"method": "dspark", "num_speculative_tokens": 5}).get("failed")
    assert (
        "expected 5, the dspark_block_size"
        in call(**asked, speculation={"method": "dspark", "num_speculative_tokens": 7})["msg"]
    )
