from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.sparkfleet.vllm.plugins.module_utils._models import model as model_folder
from ansible_collections.sparkfleet.vllm.plugins.module_utils._models import pairing
from ansible_collections.sparkfleet.vllm.plugins.module_utils._models.weights import Model, Unseen, WeightFile
from helpers.weights import GOOD, entry, packed

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
    found = pairing.judge(model(json.dumps(BODY)), model(json.dumps(EAGLE), "draft")).problems
    assert "d2t" in str(found[-1])


# -- a body that drafts with layers of its own


def own_layers(layers, *names):
    config = {
        "architectures": ["Qwen3_5MoeForConditionalGeneration"],
        "text_config": {"mtp_num_hidden_layers": layers},
    }
    tensors = dict.fromkeys(names, ("BF16", [1]))
    return [str(problem) for problem in pairing.check_own_layers(config, tensors, {})]


def test_the_layers_that_draft_are_in_the_body():
    assert own_layers(1, "model.layers.0.a.weight", "mtp.layers.0.a.weight") == []
    assert own_layers(None, "model.layers.0.a.weight") == [], "of another kind of body nothing is known"
    (lost,) = own_layers(1, "model.layers.0.a.weight")
    assert "expected 1 layer that draft, named mtp, seen none; take a quantisation that kept them" in lost
    assert "expected layers that draft, seen 0" in own_layers(0, "mtp.fc.weight")[0]


def test_layers_in_a_file_that_the_index_leaves_out_are_not_loaded():
    config = {"text_config": {"mtp_num_hidden_layers": 1}}
    layer = packed({"mtp.fc.weight": entry([4], 0, 8)}, bytes(8))
    files = {"one.safetensors": WeightFile(len(GOOD), GOOD), "mtp.safetensors": WeightFile(len(layer), layer)}
    placed = {"a": "one.safetensors", "b": "one.safetensors"}

    def told(placed):
        index = json.dumps({"weight_map": placed}).encode()
        body = Model("body", json.dumps(config).encode(), {"model.safetensors.index.json": index}, files)
        return [str(problem) for problem in pairing.judge(body, None, drafts_itself=True).problems]

    assert told(placed | {"mtp.fc.weight": "mtp.safetensors"}) == []
    (problem,) = told(placed)
    assert "1 layer that draft, named mtp, seen them in a file that the index does not name" in problem


def test_they_are_asked_for_only_where_they_draft():
    whole = model(json.dumps(BODY | {"mtp_num_hidden_layers": 1}))
    assert pairing.judge(whole, None)[0] == []
    assert len(pairing.judge(whole, None, drafts_itself=True)[0]) == 1


# -- drafts that say otherwise what they are made for

PLAIN_BODY = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 64,
    "vocab_size": 1000,
    "num_hidden_layers": 8,
}
BLOCK: dict[str, Any] = {
    "architectures": ["DFlashDraftModel"], "hidden_size": 64, "vocab_size": 1000, "num_hidden_layers": 2,
    "num_target_layers": 8, "block_size": 16, "dflash_config": {"target_layer_ids": [1, 4, 7]},
}  # fmt: skip
EARLY = {"architectures": ["LlamaForCausalLM"], "hidden_size": 80, "vocab_size": 1000, "num_hidden_layers": 1}


def told_of(other, tensors=None, **speculation):
    return [str(found) for found in pairing.check_pair(PLAIN_BODY, other, tensors or {}, speculation)]


def test_a_block_draft_of_another_body_is_named():
    whole = {"fc.weight": ("BF16", [64, 192])}
    assert told_of(BLOCK, whole) == []
    assert "expected 8, the body's layers, seen 12" in told_of(BLOCK | {"num_target_layers": 12}, whole)[0]
    (narrow,) = told_of(BLOCK, {"fc.weight": ("BF16", [96, 288])})
    assert (
        "draft fc.weight: expected 192 columns, 3 times the body's hidden_size, seen shape [96, 288]"
        in narrow
    )
    assert told_of(BLOCK, {"fc.weight": ("U8", [64, 96])}) == [], (
        "packed: its shape is not that of the numbers"
    )
    (deep,) = told_of(BLOCK | {"dflash_config": {"target_layer_ids": [1, 4, 30]}}, whole)
    assert "draft target_layer_ids: expected layers of the body, which has 8, seen [1, 4, 30]" in deep


def test_an_eagle_draft_that_names_another_architecture_is_known_by_its_vocabulary():
    assert told_of(EARLY) == [], "a small model of its own"
    for other, tensors in ((EARLY, {"d2t": ("I64", [100])}), (EARLY | {"draft_vocab_size": 100}, {})):
        assert (
            "draft target_hidden_size: expected 64, the body's hidden_size, seen 80"
            in told_of(other, tensors)[0]
        )


@pytest.mark.parametrize("part", ["eagle_config", "transformer_layer_config"])
def test_the_layers_that_an_eagle_draft_reads_may_stand_deeper(part):
    ids = {"eagle_aux_hidden_state_layer_ids": [1, 4, 62], "hidden_size": 64, "vocab_size": 1000}
    assert "which has 8, seen [1, 4, 62]" in told_of(EARLY | {"hidden_size": 64, part: ids})[0]


def test_other_vocabularies_are_allowed_by_the_option_for_them():
    other = EARLY | {"vocab_size": 960}
    (problem,) = told_of(other)
    assert "expected 1000, the body's, seen 960" in problem and "use_heterogeneous_vocab" in problem
    assert told_of(other, use_heterogeneous_vocab=True) == []
    assert told_of(other, use_heterogeneous_vocab=False)


@pytest.mark.parametrize(
    ("config", "method", "depth", "expected"),
    [
        ({"dspark_block_size": 5}, "dspark", 7, "expected 5, the dspark_block_size of the body, seen 7"),
        ({"dspark_block_size": 5}, "dspark", 3, "expected 5"),
        ({"dspark_block_size": 5}, "dspark", 5, None),
        ({"dspark_block_size": 5}, "deepseek_mtp", 1, None),
        ({"text_config": {"dspark_block_size": 5}}, "dspark", 7, "expected 5"),
        (BLOCK, "dflash", 17, "expected at most 16, the block_size of the body, seen 17"),
        (BLOCK, "dflash", 8, None),
        ({"block_size": 4}, "mtp", 8, None),
    ],
)  # fmt: skip
def test_a_block_drafter_and_the_depth_of_the_recipe(config, method, depth, expected):
    speculation = {"method": method, "num_speculative_tokens": depth}
    found = pairing.judge(model(json.dumps(config)), None, speculation=speculation).problems
    assert [expected in str(problem) for problem in found] == ([True] if expected else [])


# -- what vLLM may serve and the check cannot judge


def test_weights_that_are_no_safetensors_are_left_to_vllm():
    draft = Model(
        "draft", json.dumps(PLAIN_BODY | {"draft_vocab_size": 100}).encode(), {}, {}, ("pytorch_model.bin",)
    )
    found, _facts, unseen = pairing.judge(model(json.dumps(PLAIN_BODY)), draft)
    assert found == []
    assert [str(each) for each in unseen] == [
        "draft weights: not looked at, because pytorch_model.bin are no safetensors"
    ]


def test_another_layout_is_left_to_vllm():
    body = Model("body", None, {}, model("").weights)
    found, facts, unseen = pairing.judge(body, model(json.dumps(PLAIN_BODY), "draft"))
    assert (found, list(facts)) == ([], ["draft"])
    assert "body config.json: not looked at, because the repository has Mistral's own layout" in str(
        unseen[0]
    )


def test_what_a_config_does_not_say_is_no_difference():
    found = list(pairing.check_pair({"architectures": ["New"]}, EARLY))
    assert {type(each) for each in found} == {Unseen}
    assert {each.where for each in found} == {"body hidden_size", "body vocab_size"}


@pytest.mark.parametrize("path", [["thinker_config", "text_config"], ["llm_config"], ["language_config"]])
def test_the_text_part_is_found_where_vllm_finds_it(path):
    config: dict[str, Any] = PLAIN_BODY
    for name in reversed(path):
        config = {"architectures": ["Omni"], "talker_config": {}, name: config}
    other = EARLY | {"architectures": ["LlamaForCausalLMEagle3"]}
    assert list(pairing.check_pair(config, other | {"hidden_size": 64})) == []
    assert "seen 80" in str(next(pairing.check_pair(config, other)))


@pytest.mark.parametrize(
    "change",
    [{"architectures": [5]}, {"layer_types": 5}, {"layer_types": [[]]}, {"head_dim": [[1]], "layer_types": ["a"]},
     {"hidden_size": {}}, {"eagle_config": 5}, {"eagle_aux_hidden_state_layer_ids": ["a"]}, {"per_layer_config": 7},
     {"draft_vocab_size": "x"}, {"dflash_config": {"target_layer_ids": 7}}, {"text_config": {"text_config": {}}}],
)  # fmt: skip
def test_values_of_another_kind_are_no_traceback(change):
    for one, other in ((change, {}), ({}, change), (change, change)):
        body, draft = model(json.dumps(DRAFT | one), "body"), model(json.dumps(DRAFT | other), "draft")
        pairing.judge(body, draft, speculation={"method": "dspark", "num_speculative_tokens": "x"})


def test_null_and_a_byte_order_mark_are_as_good_as_none():
    for text in (json.dumps(PLAIN_BODY | {"text_config": None}), "\ufeff" + json.dumps(PLAIN_BODY)):
        found, facts, _ = pairing.judge(model(text), None)
        assert (found, facts["body"]["hidden_size"]) == ([], 64)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a": ' + "1" * 5000 + "}"])
def test_a_config_that_no_reader_takes_is_told_by_name(text):
    (problem,), *_ = pairing.judge(model(text), None)
    assert "body config.json cannot be read" in str(problem)


# -- the two together


def model(config, name="body"):
    return Model(name, config.encode(), {}, {"one.safetensors": WeightFile(len(GOOD), GOOD)})


def test_no_weights_at_all():
    (problem,), *_ = pairing.judge(Model("body", json.dumps(BODY).encode(), {}, {}), None)
    assert "expected *.safetensors files, seen none" in str(problem)


@pytest.mark.parametrize("config", ["", "{", "[]", '{"text_config": 7}'])
def test_a_config_that_is_none(config):
    found, facts, _ = pairing.judge(model(json.dumps(BODY)), model(config, "draft"))
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
    config = json.loads(other.config or b"{}")
    change(config)
    return pairing.judge(body, Model("draft", json.dumps(config).encode(), other.indexes, other.weights))


def test_the_labs_pair_fits(tiny):
    found, facts, unseen = judged(tiny)
    assert found == unseen == []
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
