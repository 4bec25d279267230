# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a draft can agree with its body, told from configs and safetensors headers before anything is served.

vLLM starts with a draft that does not fit, reports healthy, answers, and accepts nothing: a wrong vocabulary,
head size, layer type or intermediate size and missing weights give no warning there. Pure functions of data.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from .weights import DAMAGED, Model, Problem, Tensors, missing_of, read_weights

ASSISTANT = "Gemma4AssistantForCausalLM"
"""The architecture whose weights are known well enough to say what they must be."""
_TEXT_PARTS = ("text_config", "transformer_layer_config")
"""Where a config keeps the language model's part: a multimodal body or an assistant, and a draft of speculators."""
MISFIT = "use the draft that was made for this body"


def judge(
    body: Model, draft: Model | None, drafts_itself: bool = False
) -> tuple[list[Problem], dict[str, Any]]:
    """Every problem of a body, its draft, and the two together, and the facts they were judged by.

    :param drafts_itself: the draft is layers of the body
    """
    problems: list[Problem] = []
    facts: dict[str, Any] = {}
    configs: dict[str, dict[str, Any]] = {}
    tensors: dict[str, Tensors] = {}
    for model in (body, draft) if draft else (body,):
        config, found = read_config(model)
        tensors[model.name], damaged = read_weights(model)
        problems += [*found, *damaged]
        if config is not None:
            configs[model.name] = config
            facts[model.name] = outline(config) | {"tensors": len(tensors[model.name])}
    if drafts_itself and "body" in configs:
        problems += check_own_layers(configs["body"], tensors["body"])
    if draft and len(configs) == 2:
        problems += check_pair(configs["body"], configs["draft"])
        if tensors["draft"]:
            problems += check_assistant_weights(configs["draft"], tensors["draft"])
            problems += check_eagle_weights(configs["draft"], tensors["draft"])
    return problems, facts


# -- configs


def read_config(model: Model) -> tuple[dict[str, Any] | None, list[Problem]]:
    where = f"{model.name} config.json"
    try:
        config = json.loads(model.config)
    except (ValueError, RecursionError) as error:
        return None, [Problem(where, "JSON", f"{error}", DAMAGED)]
    if not isinstance(config, dict) or not all(
        isinstance(config.get(name, {}), dict) for name in _TEXT_PARTS
    ):
        return None, [Problem(where, "a mapping", type(config).__name__, "is this a model repository?")]
    return config, []


def text_config(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The language model's part, or the whole of a text-only model."""
    return next((config[name] for name in _TEXT_PARTS if config.get(name)), config)


def layer_shapes(config: Mapping[str, Any]) -> dict[str, set[tuple[Any, Any]]]:
    """{layer type: {(head_dim, key/value heads)}}: what a draft layer must have to read the body's cache."""
    text = text_config(config)
    shapes: dict[str, set[tuple[Any, Any]]] = {}
    own = text.get("per_layer_config") or {}
    for index, kind in enumerate(text.get("layer_types") or ()):
        head_dim, heads = text.get("head_dim"), text.get("num_key_value_heads")
        if kind == "full_attention":
            head_dim = text.get("global_head_dim") or head_dim
            if text.get("attention_k_eq_v"):
                heads = text.get("num_global_key_value_heads") or heads
        layer = own.get(str(index)) or {}
        shapes.setdefault(kind, set()).add(
            (layer.get("head_dim", head_dim), layer.get("num_key_value_heads", heads))
        )
    return shapes


def outline(config: Mapping[str, Any]) -> dict[str, Any]:
    text = text_config(config)
    return {
        "architecture": ", ".join(config.get("architectures") or ()) or None,
        "hidden_size": text.get("hidden_size"),
        "vocab_size": text.get("vocab_size"),
        "layers": text.get("num_hidden_layers"),
        "layer_types": sorted(set(text.get("layer_types") or ())),
        "backbone_hidden_size": config.get("backbone_hidden_size", text.get("backbone_hidden_size")),
    }


def check_pair(body: Mapping[str, Any], draft: Mapping[str, Any]) -> Iterator[Problem]:
    """Facts of the two configs that decide whether a draft token can ever be accepted."""
    one, other = outline(body), outline(draft)
    hidden, backbone = one["hidden_size"], other["backbone_hidden_size"]
    if backbone is None:
        if ASSISTANT in (draft.get("architectures") or ()):
            yield Problem("draft backbone_hidden_size", f"{hidden}, the body's hidden_size", "none", MISFIT)
    elif backbone != hidden:
        # Healthy until the first request, then vLLM dies.
        yield Problem(
            "draft backbone_hidden_size", f"{hidden}, the body's hidden_size", f"{backbone}", MISFIT
        )
    if one["vocab_size"] is None or one["vocab_size"] != other["vocab_size"]:
        yield Problem(
            "draft vocab_size", f"{one['vocab_size']}, the body's", f"{other['vocab_size']}", MISFIT
        )
    for name, config in (("body", body), ("draft", draft)):
        text = text_config(config)
        kinds, layers = text.get("layer_types"), text.get("num_hidden_layers")
        if kinds and layers is not None and len(kinds) != layers:
            do = "the config does not fit its own model: fetch it again"
            yield Problem(f"{name} layer_types", f"{layers} entries, one a layer", f"{len(kinds)}", do)
    if is_eagle(draft):
        yield from _check_eagle(one, draft)
    there, wanted = layer_shapes(body), layer_shapes(draft)
    # Only a draft without keys and values of its own reads the body's.
    if not there or backbone is None:
        return
    for kind in sorted(wanted):
        if kind not in there:
            yield Problem(
                "draft layer_types", f"types of the body ({', '.join(sorted(there))})", kind, MISFIT
            )
        elif not wanted[kind] <= there[kind]:
            yield Problem(
                f"draft {kind} layers",
                f"the body's head_dim and key/value heads, {_shapes(there[kind])}",
                _shapes(wanted[kind]),
                MISFIT,
            )


def is_eagle(draft: Mapping[str, Any]) -> bool:
    """Whether a draft is of the EAGLE kind: it reads hidden states of the body, and has a cache of its own."""
    names = (str(draft.get("speculators_model_type")), *(draft.get("architectures") or ()))
    return any("eagle" in name.lower() for name in names)


def _check_eagle(body: Mapping[str, Any], draft: Mapping[str, Any]) -> Iterator[Problem]:
    """:param body: its outline"""
    read = draft.get("target_hidden_size") or text_config(draft).get("hidden_size")
    if read != body["hidden_size"]:
        expected = f"{body['hidden_size']}, the body's hidden_size"
        yield Problem("draft target_hidden_size", expected, f"{read}", MISFIT)
    layers = draft.get("eagle_aux_hidden_state_layer_ids") or ()
    if body["layers"] is not None and any(layer > body["layers"] for layer in layers):
        expected = f"layers of the body, which has {body['layers']}"
        yield Problem("draft eagle_aux_hidden_state_layer_ids", expected, f"{list(layers)}", MISFIT)


def _shapes(shapes: set[tuple[Any, Any]]) -> str:
    return " or ".join(f"{head_dim} x {heads}" for head_dim, heads in sorted(shapes, key=str))


# -- weights


def check_own_layers(config: Mapping[str, Any], tensors: Tensors) -> Iterator[Problem]:
    """The layers that draft, where a body says how many it has as Qwen does since 3.5; of others nothing is told.

    A quantisation may leave them out and keep the config. vLLM then drafts with what lay in memory.
    """
    layers = text_config(config).get("mtp_num_hidden_layers")
    if layers is None:
        return
    do = "take a quantisation that kept them, or a recipe without speculation"
    if not layers:
        yield Problem("body mtp_num_hidden_layers", "layers that draft", f"{layers}", do)
    elif tensors and not any("mtp" in name.split(".") for name in tensors):
        yield Problem("body weights", f"{layers} layer{'s' * (layers > 1)} that draft, named mtp", "none", do)


def check_eagle_weights(config: Mapping[str, Any], tensors: Tensors) -> Iterator[Problem]:
    """A draft that knows only some tokens says which: without that, vLLM takes each of its tokens for another one."""
    known, every = config.get("draft_vocab_size"), text_config(config).get("vocab_size")
    if not is_eagle(config) or not known or known == every:
        return
    shape = next(
        (shape for name, (_dtype, shape) in tensors.items() if name.rpartition(".")[2] == "d2t"), None
    )
    if shape != [known]:
        seen = "none" if shape is None else f"shape {shape}"
        yield Problem("draft weights", f"d2t, the token of the body for each of its {known}", seen, MISFIT)


def check_assistant_weights(config: Mapping[str, Any], tensors: Tensors) -> Iterator[Problem]:
    """The linear weights of a Gemma 4 assistant: all there, and shaped as its config says.

    vLLM loads one without them, or with others, and silently drafts nonsense.
    """
    text = text_config(config)
    if ASSISTANT not in (config.get("architectures") or ()) or config.get("quantization_config"):
        return
    hidden, backbone = text.get("hidden_size"), outline(config)["backbone_hidden_size"]
    heads, intermediate = text.get("num_attention_heads"), text.get("intermediate_size")
    kinds = text.get("layer_types") or []
    if not (
        kinds
        and isinstance(hidden, int)
        and isinstance(backbone, int)
        and isinstance(heads, int)
        and isinstance(intermediate, int)
    ):
        do = "the config does not fit the architecture: fetch it again"
        yield Problem("draft config.json", "sizes and layer types of an assistant", "some missing", do)
        return
    if text.get("use_double_wide_mlp"):
        intermediate *= 2
    expected = {"pre_projection.weight": [hidden, 2 * backbone], "post_projection.weight": [backbone, hidden]}
    for index, kind in enumerate(kinds):
        one = {
            "layer_types": [kind],
            "per_layer_config": {"0": (text.get("per_layer_config") or {}).get(str(index))},
        }
        ((head_dim, _heads),) = layer_shapes({**text, "text_config": None, **one})[kind]
        if not isinstance(head_dim, int):
            continue
        expected |= {
            f"layers.{index}.self_attn.q_proj.weight": [heads * head_dim, hidden],
            f"layers.{index}.self_attn.o_proj.weight": [hidden, heads * head_dim],
            f"layers.{index}.mlp.gate_proj.weight": [intermediate, hidden],
            f"layers.{index}.mlp.up_proj.weight": [intermediate, hidden],
            f"layers.{index}.mlp.down_proj.weight": [hidden, intermediate],
        }
    seen = {
        re.sub(r"^.*?(?=layers\.\d|(?:pre|post)_projection\.)", "", name): shape
        for name, (_dtype, shape) in tensors.items()
    }
    if missing := [name for name in expected if name not in seen]:
        yield Problem("draft weights", f"{len(expected)} linear weights", missing_of(missing), MISFIT)
    for name, shape in expected.items():
        if name in seen and seen[name] != shape:
            yield Problem(f"draft {name}", f"shape {shape}, as config.json has it", f"{seen[name]}", MISFIT)
