# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a draft can agree with its body, judged by configs and safetensors headers before anything is served.

vLLM starts with a draft that does not fit, reports healthy, answers, and accepts nothing. It does not warn of a wrong
vocabulary, head size, layer type or intermediate size, nor of missing weights. Pure functions of data.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from . import config as configs
from .config import layer_shapes, number, outline, words
from .config import text as text_config
from .weights import Finding, Model, Problem, Tensors, Unseen, missing_of, read_weights

ASSISTANT = "Gemma4AssistantForCausalLM"
"""The architecture whose weights are known well enough to check them."""
MISFIT = "use the draft that was made for this body"


class Judgement(NamedTuple):
    problems: list[Problem]
    facts: dict[str, Any]
    unseen: list[Unseen]


def judge(
    body: Model,
    draft: Model | None,
    drafts_itself: bool = False,
    speculation: Mapping[str, Any] | None = None,
) -> Judgement:
    """Every problem of a body, its draft, and the pair; the facts that they were judged by; and what was not looked at.

    :param drafts_itself: the draft is layers of the body
    :param speculation: the speculative config that the server gets
    """
    speculation = speculation or {}
    findings: list[Finding] = []
    facts: dict[str, Any] = {}
    known: dict[str, dict[str, Any]] = {}
    tensors: dict[str, Tensors] = {}
    left_out: dict[str, Tensors] = {}
    for model in (body, draft) if draft else (body,):
        config, found = configs.read(model)
        tensors[model.name], left_out[model.name], damaged = read_weights(model)
        findings += [*found, *damaged]
        if config is not None:
            known[model.name] = config
            facts[model.name] = outline(config) | {"tensors": len(tensors[model.name])}
    if drafts_itself and "body" in known:
        findings += check_own_layers(known["body"], tensors["body"], left_out["body"])
    if draft and len(known) == 2:
        findings += check_pair(known["body"], known["draft"], tensors["draft"], speculation)
        if tensors["draft"]:
            findings += check_assistant_weights(known["draft"], tensors["draft"])
            findings += check_eagle_weights(known["draft"], tensors["draft"])
    drafter = "draft" if draft else "body"
    if drafter in known:
        findings += check_depth(drafter, known[drafter], speculation)
    return Judgement(
        [each for each in findings if isinstance(each, Problem)],
        facts,
        [each for each in findings if isinstance(each, Unseen)],
    )


# -- configs


def check_pair(
    body: Mapping[str, Any],
    draft: Mapping[str, Any],
    tensors: Tensors | None = None,
    speculation: Mapping[str, Any] | None = None,
) -> Iterator[Finding]:
    """Facts of the two models that decide whether a draft token can ever be accepted.

    :param tensors: the draft's
    """
    one, other = outline(body), outline(draft)
    hidden, backbone = one["hidden_size"], other["backbone_hidden_size"]
    if hidden is None:
        yield Unseen("body hidden_size", "its config.json names none where a language model's part is known")
    elif backbone is None:
        if ASSISTANT in words(draft, "architectures"):
            yield Problem("draft backbone_hidden_size", f"{hidden}, the body's hidden_size", "none", MISFIT)
    elif backbone != hidden:
        # The server is healthy until the first request; then vLLM dies.
        yield Problem(
            "draft backbone_hidden_size", f"{hidden}, the body's hidden_size", f"{backbone}", MISFIT
        )
    if not (speculation or {}).get("use_heterogeneous_vocab"):
        yield from _check_vocabulary(one["vocab_size"], other["vocab_size"])
    for name, config in (("body", body), ("draft", draft)):
        text = text_config(config)
        kinds, layers = words(text, "layer_types"), number(text, "num_hidden_layers")
        if kinds and layers is not None and len(kinds) != layers:
            do = "the config does not fit its own model: fetch it again"
            yield Problem(f"{name} layer_types", f"{layers} entries, one a layer", f"{len(kinds)}", do)
    if is_dflash(draft):
        yield from _check_dflash(one, draft, tensors or {})
    elif is_eagle(draft, tensors or {}):
        yield from _check_eagle(one, draft)
    yield from _check_layer_ids(one["layers"], draft)
    there, wanted = layer_shapes(body), layer_shapes(draft)
    # Only a draft without its own keys and values reads the body's.
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


def _check_vocabulary(body: int | None, draft: int | None) -> Iterator[Finding]:
    for name, size in (("body", body), ("draft", draft)):
        if size is None:
            yield Unseen(f"{name} vocab_size", "its config.json names none")
    if body is not None and draft is not None and body != draft:
        do = f"{MISFIT}, or allow it by use_heterogeneous_vocab in the speculative-config"
        yield Problem("draft vocab_size", f"{body}, the body's", f"{draft}", do)


def check_depth(name: str, config: Mapping[str, Any], speculation: Mapping[str, Any]) -> Iterator[Problem]:
    """A block drafter proposes well at the size that it was trained for. A DSpark one takes no other, a DFlash one also less.

    :param name: the model that drafts
    """
    depth, method = number(speculation, "num_speculative_tokens"), speculation.get("method")
    for key, size in configs.block_sizes(config):
        exact = key == "dspark_block_size"
        counts = method == "dspark" if exact else is_dflash(config)
        if counts and depth is not None and (depth != size if exact else depth > size):
            yield Problem(
                "speculative-config num_speculative_tokens",
                f"{'' if exact else 'at most '}{size}, the {key} of the {name}",
                f"{depth}",
                f"write num_speculative_tokens: {size}",
            )
            return


def is_dflash(draft: Mapping[str, Any]) -> bool:
    """Whether a draft proposes a block at once from hidden states of the body."""
    names = (str(draft.get("speculators_model_type")), *words(draft, "architectures"))
    return "dflash_config" in draft or any("dflash" in name.lower() for name in names)


def is_eagle(draft: Mapping[str, Any], tensors: Tensors) -> bool:
    """Whether a draft is of the EAGLE kind: it reads hidden states of the body, and has its own cache.

    The first such drafts name the architecture of their layers. They differ from others by their own vocabulary.
    """
    names = (str(draft.get("speculators_model_type")), *words(draft, "architectures"))
    return (
        any("eagle" in name.lower() for name in names)
        or "draft_vocab_size" in draft
        or any(_last(name) == "d2t" for name in tensors)
    )


def _last(name: str) -> str:
    return name.rpartition(".")[2]


def _check_eagle(body: Mapping[str, Any], draft: Mapping[str, Any]) -> Iterator[Problem]:
    """:param body: its outline"""
    read = number(draft, "target_hidden_size") or number(text_config(draft), "hidden_size")
    if None not in (read, body["hidden_size"]) and read != body["hidden_size"]:
        expected = f"{body['hidden_size']}, the body's hidden_size"
        yield Problem("draft target_hidden_size", expected, f"{read}", MISFIT)


def _check_dflash(body: Mapping[str, Any], draft: Mapping[str, Any], tensors: Tensors) -> Iterator[Problem]:
    """:param body: its outline"""
    layers, hidden = number(draft, "num_target_layers"), body["hidden_size"]
    if None not in (layers, body["layers"]) and layers != body["layers"]:
        yield Problem("draft num_target_layers", f"{body['layers']}, the body's layers", f"{layers}", MISFIT)
    read = next((len(ids) for _key, ids in configs.layer_ids(draft)), None)
    # The weight takes the hidden states of all those layers, side by side. A quantised one may be packed.
    for name, (dtype, shape) in tensors.items():
        whole = name.split(".")[-2:] == ["fc", "weight"] and dtype in ("BF16", "F16", "F32")
        if whole and read and hidden and shape[1:] != [read * hidden]:
            expected = f"{read * hidden} columns, {read} times the body's hidden_size"
            yield Problem(f"draft {name}", expected, f"shape {shape}", MISFIT)


def _check_layer_ids(layers: int | None, draft: Mapping[str, Any]) -> Iterator[Problem]:
    """:param layers: how many the body has"""
    for key, ids in configs.layer_ids(draft):
        if layers is not None and max(ids) > layers:
            yield Problem(f"draft {key}", f"layers of the body, which has {layers}", f"{ids}", MISFIT)


def _shapes(shapes: set[tuple[Any, Any]]) -> str:
    return " or ".join(f"{head_dim} x {heads}" for head_dim, heads in sorted(shapes, key=str))


# -- weights


def check_own_layers(config: Mapping[str, Any], tensors: Tensors, left_out: Tensors) -> Iterator[Problem]:
    """The layers that draft, if a body says how many it has, as Qwen does since 3.5. Other bodies are not judged.

    A quantisation may leave these layers out and keep the config. vLLM then drafts with what lay in memory.

    :param left_out: tensors in files that the index does not name, so that vLLM does not load them
    """
    layers = number(text_config(config), "mtp_num_hidden_layers")
    if layers is None:
        return
    do = "take a quantisation that kept them, or a recipe without speculation"
    if not layers:
        yield Problem("body mtp_num_hidden_layers", "layers that draft", f"{layers}", do)
    elif tensors and not _mtp(tensors):
        seen = (
            "them in a file that the index does not name, which vLLM does not read"
            if _mtp(left_out)
            else "none"
        )
        yield Problem("body weights", f"{layers} layer{'s' * (layers > 1)} that draft, named mtp", seen, do)


def _mtp(tensors: Tensors) -> bool:
    return any("mtp" in name.split(".") for name in tensors)


def check_eagle_weights(config: Mapping[str, Any], tensors: Tensors) -> Iterator[Problem]:
    """A draft that knows only some tokens must name them. Otherwise vLLM takes each of its tokens for another one."""
    known, every = number(config, "draft_vocab_size"), number(text_config(config), "vocab_size")
    if not known or known == every:
        return
    shape = next((shape for name, (_dtype, shape) in tensors.items() if _last(name) == "d2t"), None)
    if shape != [known]:
        seen = "none" if shape is None else f"shape {shape}"
        yield Problem("draft weights", f"d2t, the token of the body for each of its {known}", seen, MISFIT)


def check_assistant_weights(config: Mapping[str, Any], tensors: Tensors) -> Iterator[Problem]:
    """The linear weights of a Gemma 4 assistant must all be there, with the shapes that its config says.

    vLLM loads an assistant without them, or with others, and silently drafts nonsense.
    """
    text = text_config(config)
    if ASSISTANT not in words(config, "architectures") or config.get("quantization_config"):
        return
    hidden, backbone = number(text, "hidden_size"), number(outline(config), "backbone_hidden_size")
    heads, intermediate = number(text, "num_attention_heads"), number(text, "intermediate_size")
    kinds = words(text, "layer_types")
    if not (kinds and hidden and backbone and heads and intermediate):
        do = "the config does not fit the architecture: fetch it again"
        yield Problem("draft config.json", "sizes and layer types of an assistant", "some missing", do)
        return
    if text.get("use_double_wide_mlp"):
        intermediate *= 2
    expected = {"pre_projection.weight": [hidden, 2 * backbone], "post_projection.weight": [backbone, hidden]}
    for index, kind in enumerate(kinds):
        one = {
            "layer_types": [kind],
            "per_layer_config": {"0": configs.mapping(text, "per_layer_config").get(str(index))},
        }
        ((head_dim, _heads),) = layer_shapes({**text, **one})[kind]
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
