# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a model's config.json says, as far as this collection reads it. A value of another kind counts as absent: vLLM decides."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from .._common import json_text
from .weights import DAMAGED, Finding, Model, Problem, Unseen

_TEXT_PARTS = (
    "text_config",
    "thinker_config",
    "llm_config",
    "language_config",
    "transformer_layer_config",
    "decoder",
    "generator",
)
"""Where a config keeps the language model's part: a multimodal body or an assistant, and a draft of speculators."""
_BLOCK_PARTS = ("dflash_config", "eagle_config")
_BLOCK_SIZES = ("dspark_block_size", "block_size")
_LAYER_IDS = ("eagle_aux_hidden_state_layer_ids", "aux_hidden_state_layer_ids", "target_layer_ids")


def read(model: Model) -> tuple[dict[str, Any] | None, list[Finding]]:
    where = f"{model.name} config.json"
    if model.config is None:
        return None, [Unseen(where, "the repository has Mistral's own layout, params.json")]
    try:
        config = json_text.read(model.config, where, nulls=False, any_number=True)
    except json_text.JsonError as error:
        return None, [Problem(where, "JSON", f"{error}", DAMAGED)]
    parts = (
        [config, *(config.get(name, {}) for name in _TEXT_PARTS)] if isinstance(config, dict) else [config]
    )
    for part in parts:
        if not isinstance(part, dict):
            do = "is this a model repository?"
            return None, [Problem(where, "a mapping", type(part).__name__, do)]
    return config, []


def number(config: Mapping[str, Any], key: str) -> int | None:
    value = config.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def words(config: Mapping[str, Any], key: str) -> list[str]:
    value = config.get(key)
    return value if isinstance(value, list) and all(isinstance(each, str) for each in value) else []


def mapping(config: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = config.get(key)
    return value if isinstance(value, dict) else {}


def text(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The language model's part, however deep it lies, or the whole of a text-only model."""
    while inner := next(filter(None, (mapping(config, name) for name in _TEXT_PARTS)), None):
        config = inner
    return config


def layer_shapes(config: Mapping[str, Any]) -> dict[str, set[tuple[int | None, int | None]]]:
    """{layer type: {(head_dim, key/value heads)}}: what a draft layer must have to read the body's cache."""
    part = text(config)
    shapes: dict[str, set[tuple[int | None, int | None]]] = {}
    own = mapping(part, "per_layer_config")
    for index, kind in enumerate(words(part, "layer_types")):
        head_dim, heads = number(part, "head_dim"), number(part, "num_key_value_heads")
        if kind == "full_attention":
            head_dim = number(part, "global_head_dim") or head_dim
            if part.get("attention_k_eq_v"):
                heads = number(part, "num_global_key_value_heads") or heads
        layer = {"head_dim": head_dim, "num_key_value_heads": heads, **mapping(own, str(index))}
        shapes.setdefault(kind, set()).add((number(layer, "head_dim"), number(layer, "num_key_value_heads")))
    return shapes


def outline(config: Mapping[str, Any]) -> dict[str, Any]:
    part = text(config)
    return {
        "architecture": ", ".join(words(config, "architectures")) or None,
        "hidden_size": number(part, "hidden_size"),
        "vocab_size": number(part, "vocab_size"),
        "layers": number(part, "num_hidden_layers"),
        "layer_types": sorted(set(words(part, "layer_types"))),
        "backbone_hidden_size": number(config, "backbone_hidden_size")
        or number(part, "backbone_hidden_size"),
        "block_size": next((size for _name, size in block_sizes(config)), None),
    }


def block_sizes(config: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    """How many tokens a block drafter was trained to propose at once, with the key that says it."""
    for part in _parts(config):
        for key in _BLOCK_SIZES:
            if size := number(part, key):
                yield key, size


def layer_ids(config: Mapping[str, Any]) -> Iterator[tuple[str, list[int]]]:
    """The body's layers that a draft reads, with the key that says it."""
    for part in _parts(config):
        for key in _LAYER_IDS:
            ids = part.get(key)
            if isinstance(ids, list) and ids and all(isinstance(each, int) for each in ids):
                yield key, ids


def _parts(config: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    inner = text(config)
    places = [config] if inner is config else [config, inner]
    return places + [mapping(config, name) for name in _BLOCK_PARTS]
