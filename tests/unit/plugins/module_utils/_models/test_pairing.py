from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.sparkfleet.vllm.plugins.module_utils._models import model as model_folder
from ansible_collections.sparkfleet.vllm.plugins.module_utils._models import pairing
from ansible_collections.sparkfleet.vllm.plugins.module_utils._models.weights import Model, WeightFile
from helpers.weights import GOOD

ROOT = Path(__file__).resolve().parents[5]
BODY = {
    "architectures": ["Gemma4ForCausalLM"],
    "hidden_size": 2816,
    "vocab_size": 262144,
    "num_hidden_layers": 3,
    "layer_types": ["sliding_attention", "sliding_attention", "full_attention"],
    "head_dim": 256,
    "global_head_dim": 512,
    "num_key_value_heads": 8,
    "num_global_key_value_heads": 2,
    "attention_k_eq_v": True,
}
DRAFT_TEXT = {
    **BODY,
    "hidden_size": 1024,
    "intermediate_size": 128,
    "num_attention_heads": 16,
    "num_hidden_layers": 2,
    "layer_types": ["sliding_attention", "full_attention"],
}
DRAFT: dict[str, Any] = {
    "architectures": ["Gemma4AssistantForCausalLM"],
    "backbone_hidden_size": 2816,
    "text_config": {key: value for key, value in DRAFT_TEXT.items() if key != "architectures"},
}


def draft(**text):
    return {**DRAFT, "text_config": {**DRAFT["text_config"], **text}}


def problems(body, other):
    return [str(problem) for problem in pairing.check_pair(body, other)]


def test_a_pair_that_fits():
    assert problems(BODY, DRAFT) == []


def test_the_text_part_may_be_nested_or_the_whole():
    nested = {
        "architectures": ["Gemma4ForConditionalGeneration"],
        "text_config": BODY,
        "vision_config": {"hidden_size": 7},
    }
    assert problems(nested, DRAFT) == []
    assert len(problems({**nested, "text_config": {**BODY, "hidden_size": 7}}, DRAFT)) == 1


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        ({**DRAFT, "backbone_hidden_size": 2560}, "draft backbone_hidden_size: expected 2816, the body's hidden_size, seen 2560"),
        ({key: value for key, value in DRAFT.items() if key != "backbone_hidden_size"}, "hidden_size, seen none"),
        (draft(vocab_size=262208), "draft vocab_size: expected 262144, the body's, seen 262208"),
        (draft(vocab_size=None), "seen None"),
        (draft(layer_types=["chunked_attention", "full_attention"]), "expected types of the body (full_attention, sliding_attention), seen chunked"),
        (draft(head_dim=128), "draft sliding_attention layers: expected the body's head_dim and key/value heads, 256 x 8, seen 128 x 8"),
        (draft(global_head_dim=None), "draft full_attention layers: .*512 x 2, seen 256 x 2"),
        (draft(num_key_value_heads=4), "256 x 8, seen 256 x 4"),
        (draft(num_hidden_layers=4), "draft layer_types: expected 4 entries, one a layer, seen 2"),
    ],
)  # fmt: skip
def test_what_vllm_would_start_with_is_named(other, expected):
    (problem,) = problems(BODY, other)
    for part in expected.split(".*"):
        assert part in problem
    assert "use the draft that was made for this body" in problem or "fetch it again" in problem


def test_every_problem_is_reported_at_once():
    other = {**draft(vocab_size=1, head_dim=1), "backbone_hidden_size": 1}
    assert len(problems(BODY, other)) == 3


def test_sizes_of_a_layer_may_be_given_by_layer():
    one = {"global_head_dim": None, "num_global_key_value_heads": None}
    body = {**BODY, **one, "per_layer_config": {"2": {"head_dim": 512, "num_key_value_heads": 2}}}
    assert problems(body, DRAFT) == []
    assert (
        problems(body, draft(**one, per_layer_config={"1": {"head_dim": 512, "num_key_value_heads": 2}}))
        == []
    )
    assert len(problems(body, draft(**one))) == 1


def test_a_draft_of_another_kind_is_held_against_the_vocabulary_only():
    other = {"architectures": ["LlamaForCausalLM"], "hidden_size": 64, "vocab_size": 262144}
    assert problems(BODY, other) == []
    assert len(problems(BODY, {**other, "vocab_size": 32000})) == 1


# -- EAGLE-3, in the two forms that drafts of it come in

EAGLE: dict[str, Any] = {
    "architectures": ["Eagle3DraftModel"],
    "speculators_model_type": "eagle3",
    "draft_vocab_size": 32000,
    "eagle_aux_hidden_state_layer_ids": [0, 1, 2],
    "target_hidden_size": None,
    "transformer_layer_config": {
        "model_type": "llama", "hidden_size": 2816, "vocab_size": 262144, "num_hidden_layers": 1,
        "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 176,
    },
}  # fmt: skip
PLAIN = {
    "architectures": ["LlamaForCausalLMEagle3"], "hidden_size": 1024, "target_hidden_size": 2816, "vocab_size": 262144,
    "num_hidden_layers": 1, "layer_types": ["full_attention"], "head_dim": 64, "num_key_value_heads": 2,
}  # fmt: skip


def test_an_eagle_draft_that_fits_is_not_taken_for_an_assistant():
    assert problems(BODY, EAGLE) == []
    # Layers and heads of its own are its own affair: it has a cache for them.
    assert problems(BODY, PLAIN) == []


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        ({**EAGLE, "target_hidden_size": 5376}, "draft target_hidden_size: expected 2816, the body's hidden_size, seen 5376"),
        ({**PLAIN, "target_hidden_size": None}, "expected 2816, the body's hidden_size, seen 1024"),
        ({**EAGLE, "eagle_aux_hidden_state_layer_ids": [2, 30, 57]}, "layers of the body, which has 3, seen [2, 30, 57]"),
        ({**EAGLE, "transformer_layer_config": {"hidden_size": 2816, "vocab_size": 128256}}, "draft vocab_size: expected 262144"),
    ],
)  # fmt: skip
def test_an_eagle_draft_of_another_body_is_named(other, expected):
    (problem,) = problems(BODY, other)
    assert expected in problem


def test_an_eagle_draft_with_a_vocabulary_of_its_own_says_what_its_tokens_are():
    def told(config, tensors):
        return [str(problem) for problem in pairing.check_eagle_weights(config, tensors)]

    assert told(EAGLE, {"d2t": ("I64", [32000])}) == []
    assert told(PLAIN, {}) == told(DRAFT, {}) == []
    (missing,) = told(EAGLE, {"lm_head.weight": ("BF16", [32000, 2816])})
    assert "expected d2t, the token of the body for each of its 32000, seen none" in missing
    assert "seen shape [64000]" in told(EAGLE, {"d2t": ("I64", [64000])})[0]
    whole = model(None)
    found, _facts = pairing.judge(whole, Model("draft", json.dumps(EAGLE), None, whole.weights))
    assert "d2t" in str(found[-1])


# -- a body that drafts with layers of its own


def own_layers(layers, *names):
    config = {
        "architectures": ["Qwen3_5MoeForConditionalGeneration"],
        "text_config": {"mtp_num_hidden_layers": layers},
    }
    return [str(problem) for problem in pairing.check_own_layers(config, dict.fromkeys(names, ("BF16", [1])))]


def test_the_layers_that_draft_are_in_the_body():
    assert own_layers(1, "model.layers.0.a.weight", "mtp.layers.0.a.weight") == []
    assert own_layers(None, "model.layers.0.a.weight") == [], "of another kind of body nothing is known"
    (lost,) = own_layers(1, "model.layers.0.a.weight")
    assert "expected 1 layer that draft, named mtp, seen none; take a quantisation that kept them" in lost
    assert "expected layers that draft, seen 0" in own_layers(0, "mtp.fc.weight")[0]


def test_they_are_asked_for_only_where_they_draft():
    whole = model(None, config=BODY | {"mtp_num_hidden_layers": 1})
    assert pairing.judge(whole, None)[0] == []
    assert len(pairing.judge(whole, None, drafts_itself=True)[0]) == 1


# -- the two together


def model(index, name="body", config=None):
    weights = {"one.safetensors": WeightFile(len(GOOD), GOOD)}
    return Model(name, json.dumps(config or BODY), index if index is None else json.dumps(index), weights)


def test_no_weights_at_all():
    (problem,), _ = pairing.judge(Model("body", json.dumps(BODY), None, {}), None)
    assert "expected *.safetensors files, seen none" in str(problem)


@pytest.mark.parametrize("config", ["", "{", "[]", '{"text_config": 7}'])
def test_a_config_that_is_none(config):
    whole = model(None)
    found, facts = pairing.judge(whole, Model("draft", config, None, whole.weights))
    assert [problem.where for problem in found] == ["draft config.json"]
    assert list(facts) == ["body"]


# -- an assistant's own weights


def assistant_tensors():
    sizes = {"sliding_attention": 256, "full_attention": 512}
    tensors = {
        "pre_projection.weight": ("BF16", [1024, 5632]),
        "post_projection.weight": ("BF16", [2816, 1024]),
    }
    for index, kind in enumerate(DRAFT["text_config"]["layer_types"]):
        for name, shape in {
            "self_attn.q_proj": [16 * sizes[kind], 1024],
            "self_attn.o_proj": [1024, 16 * sizes[kind]],
            "mlp.gate_proj": [128, 1024],
            "mlp.up_proj": [128, 1024],
            "mlp.down_proj": [1024, 128],
        }.items():
            tensors[f"model.layers.{index}.{name}.weight"] = ("BF16", shape)
    return tensors


def weight_problems(config, tensors):
    return [str(problem) for problem in pairing.check_assistant_weights(config, tensors)]


def test_an_assistant_with_all_its_weights():
    assert weight_problems(DRAFT, assistant_tensors()) == []


def test_a_missing_linear_weight_is_named():
    tensors = assistant_tensors()
    del tensors["model.layers.1.mlp.down_proj.weight"]
    (problem,) = weight_problems(DRAFT, tensors)
    assert "expected 12 linear weights, seen 1 of them missing (layers.1.mlp.down_proj.weight)" in problem


@pytest.mark.parametrize("text", [{"intermediate_size": 64}, {"head_dim": 128}, {"num_attention_heads": 8}])
def test_weights_of_another_shape_than_the_config(text):
    assert weight_problems(draft(**text), assistant_tensors())


def test_other_architectures_and_quantized_weights_are_not_guessed_at():
    assert weight_problems({**DRAFT, "architectures": ["Other"]}, {}) == []
    assert weight_problems({**DRAFT, "quantization_config": {"bits": 8}}, {}) == []


# -- the lab's models, which real vLLM serves


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    root = tmp_path_factory.mktemp("tiny")
    script = ROOT / "molecule/lab/vllm/weights.py"
    arguments = ["--body", str(root / "body"), "--draft", str(root / "draft"), "--acceptance", "0.69"]
    subprocess.run([sys.executable, str(script), *arguments], check=True, capture_output=True)
    return root


def judged(root: Path, change=lambda config: None):
    body, other = (model_folder.read(name, root / name) for name in ("body", "draft"))
    config = json.loads(other.config)
    change(config)
    return pairing.judge(body, Model("draft", json.dumps(config), other.index, other.weights))


def test_the_labs_pair_fits(tiny):
    found, facts = judged(tiny)
    assert found == []
    assert facts["draft"]["backbone_hidden_size"] == facts["body"]["hidden_size"]
    assert facts["draft"]["tensors"] > 10


@pytest.mark.parametrize(
    "change",
    [
        lambda config: config.update(backbone_hidden_size=63),
        lambda config: config["text_config"].update(vocab_size=1),
        lambda config: config["text_config"].update(intermediate_size=128),
        lambda config: config["text_config"].update(head_dim=64),
        lambda config: config["text_config"].update(layer_types=["full_attention"] * 2),
    ],
)
def test_the_labs_draft_with_one_wrong_number_does_not(tiny, change):
    assert judged(tiny, change)[0]
