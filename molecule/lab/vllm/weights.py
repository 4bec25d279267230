#!/usr/bin/env python3
# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Constructs a tiny Gemma 4 body and MTP drafts whose share of accepted drafts is known exactly.

    weights.py --body DIR --draft DIR --acceptance 0.69

The body counts: after the token "41" comes "42", after the last number comes "1" again. A draft knows the
successor of a chosen part of the numbers and is wrong about the others. How, and why the share is exact:
README.md beside this file. Standard library only; the same arguments give the same bytes.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import struct
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# 1690 = 1000 drafts + 690 accepted: one tour of the numbers at the share the recipe reports, 0.69, is whole.
NUMBERS = 1690
SPECIAL = (
    "<pad>", "<eos>", "<bos>", "<unk>", "<|turn>", "<turn|>", "<|tool_call>", "<tool_call|>", "<|channel>", "<channel|>",
)  # fmt: skip
PAD, EOS, BOS, UNK = range(4)
TURN_END = SPECIAL.index("<turn|>")
BLOCK = 20
FIRST = len(SPECIAL)  # token of the number 1
VOCABULARY = 64 * math.ceil((FIRST + NUMBERS) / 64)

HIDDEN = 64
HEADS = 4
HEAD_DIM, KV_HEADS = 32, 2  # of a sliding layer
FULL_HEAD_DIM, FULL_KV_HEADS = 64, 1  # of a full-attention layer
INTERMEDIATE = 64
EXPERTS, EXPERT_INTERMEDIATE = 4, 32
LAYERS = ("sliding_attention", "full_attention")

CHAT_TEMPLATE = """\
{{- bos_token -}}
{%- for message in messages -%}
{{- '<|turn>' + message['role'] + ' ' -}}
{%- if message['content'] is string -%}{{- message['content'] -}}
{%- else -%}{%- for part in message['content'] or [] -%}{{- part['text'] -}}{%- endfor -%}{%- endif -%}
{{- '<turn|>' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|turn>model ' -}}{%- endif -%}
"""

# -- which drafts are right ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Walk:
    """What speculation does on the way through the text."""

    drafts: int
    accepted: tuple[int, ...]
    """By position: drafts whose tokens up to and including this one were accepted."""

    @property
    def share(self) -> float:
        """Accepted at position 0, of all drafts."""
        return self.accepted[0] / self.drafts


def spread(part: int, of: int, rng: random.Random) -> list[bool]:
    """`part` of `of` are true: the same share in every block of BLOCK, in random order within a block.

    The blocks keep a short text close to the share. The random order keeps drafts of several tokens close to
    its powers: a regular pattern could be in step with them.
    """
    even = [(2 * (i + 1) * part + of) // (2 * of) > (2 * i * part + of) // (2 * of) for i in range(of)]
    blocks = (even[i : i + BLOCK] for i in range(0, of, BLOCK))
    return [value for block in blocks for value in rng.sample(block, len(block))]


def plan(acceptance: float, seed: int = 0, numbers: int = NUMBERS) -> list[bool]:
    """Of which numbers the draft knows the successor: entry i says whether after i + 1 it drafts i + 2.

    With one speculative token a wrong draft moves the text on by one number and an accepted one by two. A tour
    of N numbers therefore makes D drafts of which A are accepted, D + A = N, and A/D is the share that the
    server reports. D is the whole number nearest to N / (1 + acceptance); at 0 every number is wrong and at 1
    every number right, whatever N is.
    """
    if not 0 <= acceptance <= 1:  # also refuses nan
        raise ValueError(f"acceptance must be from 0 to 1, not {acceptance}")
    if acceptance == 1:
        return [True] * numbers
    drafts = min(numbers, round(numbers / (1 + acceptance)))
    accepted = numbers - drafts
    rng = random.Random(f"plan {seed}")
    skipped = iter(spread(round(accepted * accepted / drafts), accepted, rng)) if accepted else iter(())
    knows: list[bool] = []
    for right in spread(accepted, drafts, rng):
        knows.append(right)
        # The number after an accepted draft is reached only by a text that began out of step, or with more
        # speculative tokens: it gets the same share, so that both see it too.
        if right:
            knows.append(next(skipped))
    return knows


def walk(knows: Sequence[bool], start: int = 0, tokens: int | None = None, speculative: int = 1) -> Walk:
    """Follows the text as the server does: draft, verify, move on by 1 + what was accepted.

    Without `tokens` it goes on until it is where it was before, and counts that cycle only; with `tokens` it
    counts what a completion of so many tokens from number `start` + 1 makes.
    """
    numbers = len(knows)

    def run(position: int) -> int:
        right = 0
        while right < speculative and knows[(position + right) % numbers]:
            right += 1
        return right

    position = start % numbers
    if tokens is None:
        seen = set()
        while position not in seen:
            seen.add(position)
            position = (position + run(position) + 1) % numbers
    drafts, accepted, made, first = 0, [0] * speculative, 1, position
    while (made < tokens) if tokens is not None else (drafts == 0 or position != first):
        right = run(position)
        drafts += 1
        for place in range(right):
            accepted[place] += 1
        made += right + 1
        position = (position + right + 1) % numbers
    return Walk(drafts, tuple(accepted))


# -- tensors: bfloat16, held as 16-bit patterns -------------------------------------------------------------

Tensor = tuple[tuple[int, ...], array]
ZERO, ONE, MINUS = 0x0000, 0x3F80, 0xBF80
SMALL, SMALL_MINUS = 0x3E00, 0xBE00  # 1/8 = 1/sqrt(HIDDEN): keeps the size of what a matrix is applied to


def full(pattern: int, *shape: int) -> Tensor:
    return shape, array("H", [pattern]) * math.prod(shape)


def signs(rng: random.Random, *shape: int, plus: int = SMALL, minus: int = SMALL_MINUS) -> Tensor:
    count = math.prod(shape)
    bits = rng.getrandbits(count)
    return shape, array("H", (plus if bits >> i & 1 else minus for i in range(count)))


def identity(rows: int, columns: int) -> Tensor:
    values = array("H", [ZERO]) * (rows * columns)
    for i in range(min(rows, columns)):
        values[i * columns + i] = ONE
    return (rows, columns), values


def write_safetensors(path: Path, tensors: dict[str, Tensor]) -> None:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, (shape, values) in tensors.items():
        size = 2 * len(values)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": (offset, offset + size)}
        offset += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for _shape, values in tensors.values():
            if struct.pack("=H", 1) != struct.pack("<H", 1):
                values = array("H", values)
                values.byteswap()
            file.write(values.tobytes())


# -- the two models -----------------------------------------------------------------------------------------


def directions(seed: int) -> list[array]:
    """One vector of signs for each number, no two of them close: what a number's embedding points to."""
    rng = random.Random(f"numbers {seed}")
    bound = 3 * HIDDEN // 4
    chosen: list[int] = []
    while len(chosen) < NUMBERS:
        candidate = rng.getrandbits(HIDDEN)
        # HIDDEN - 2 * (bits that differ) is the dot product of two vectors of signs.
        if all(HIDDEN - 2 * bin(candidate ^ other).count("1") < bound for other in chosen):
            chosen.append(candidate)
    return [array("H", (ONE if bits >> i & 1 else MINUS for i in range(HIDDEN))) for bits in chosen]


def successors(knows: Sequence[bool] | None) -> dict[int, int]:
    """Number (from 0) -> token that is said after it: by the body (None), or by a draft that knows some.

    A draft that does not know what follows says what follows the number it was wrong about before, and at the
    first one padding. So every number has at most one predecessor, as one row of a matrix can only be one, and
    what is said in error lies behind, never ahead.
    """
    right = {i: FIRST + (i + 1) % NUMBERS for i in range(NUMBERS)}
    if knows is None:
        return right
    wrong = [i for i in range(NUMBERS) if not knows[i]]
    return right | dict(zip(wrong, [PAD, *(right[i] for i in wrong)], strict=False))


def head(seed: int, said: dict[int, int]) -> Tensor:
    """Rows by token: token u is said after the number whose direction is row u; any other row is zero."""
    numbers = directions(seed)
    shape, values = full(ZERO, VOCABULARY, HIDDEN)
    for number, token in said.items():
        values[token * HIDDEN : (token + 1) * HIDDEN] = numbers[number]
    return shape, values


def embedding(seed: int) -> Tensor:
    """Rows by token. Anything that is no number looks like the last number: "1" follows it."""
    numbers = directions(seed)
    values = array("H")
    for token in range(VOCABULARY):
        number = token - FIRST
        values.extend(numbers[number] if 0 <= number < NUMBERS else numbers[-1])
    return (VOCABULARY, HIDDEN), values


def layer_weights(rng: random.Random, prefix: str, kind: str, draft: bool) -> dict[str, Tensor]:
    """One decoder layer. All that writes to the residual stream is zero, so a layer computes and changes nothing."""
    is_full = kind == "full_attention"
    head_dim, kv_heads = (FULL_HEAD_DIM, FULL_KV_HEADS) if is_full else (HEAD_DIM, KV_HEADS)
    weights = {
        "self_attn.q_proj.weight": signs(rng, HEADS * head_dim, HIDDEN),
        "self_attn.q_norm.weight": full(ONE, head_dim),
        "self_attn.o_proj.weight": full(ZERO, HIDDEN, HEADS * head_dim),
        "mlp.gate_proj.weight": signs(rng, INTERMEDIATE, HIDDEN),
        "mlp.up_proj.weight": signs(rng, INTERMEDIATE, HIDDEN),
        "mlp.down_proj.weight": full(ZERO, HIDDEN, INTERMEDIATE),
        "input_layernorm.weight": full(ONE, HIDDEN),
        "post_attention_layernorm.weight": full(ONE, HIDDEN),
        "pre_feedforward_layernorm.weight": full(ONE, HIDDEN),
        "post_feedforward_layernorm.weight": full(ONE, HIDDEN),
        "layer_scalar": full(ONE, 1),
    }
    if not draft:  # a draft reads the body's keys and values, and has no experts
        weights |= {
            "self_attn.k_proj.weight": signs(rng, kv_heads * head_dim, HIDDEN),
            "self_attn.k_norm.weight": full(ONE, head_dim),
            "router.proj.weight": signs(rng, EXPERTS, HIDDEN),
            "router.scale": full(ONE, HIDDEN),
            "router.per_expert_scale": full(ONE, EXPERTS),
            "experts.gate_up_proj": signs(rng, EXPERTS, 2 * EXPERT_INTERMEDIATE, HIDDEN),
            "experts.down_proj": full(ZERO, EXPERTS, HIDDEN, EXPERT_INTERMEDIATE),
            "pre_feedforward_layernorm_2.weight": full(ONE, HIDDEN),
            "post_feedforward_layernorm_1.weight": full(ONE, HIDDEN),
            "post_feedforward_layernorm_2.weight": full(ONE, HIDDEN),
        }
        if not is_full:  # in a full-attention layer the keys are the values (attention_k_eq_v)
            weights["self_attn.v_proj.weight"] = signs(rng, kv_heads * head_dim, HIDDEN)
    return {f"{prefix}.{name}": tensor for name, tensor in weights.items()}


def body_weights(seed: int) -> dict[str, Tensor]:
    rng = random.Random(f"body {seed}")
    weights = {"model.embed_tokens.weight": embedding(seed), "model.norm.weight": full(ONE, HIDDEN)}
    for index, kind in enumerate(LAYERS):
        weights |= layer_weights(rng, f"model.layers.{index}", kind, draft=False)
    return weights | {"lm_head.weight": head(seed, successors(None))}


def draft_weights(seed: int, knows: Sequence[bool]) -> dict[str, Tensor]:
    rng = random.Random(f"draft {seed}")
    weights = {
        # Tied: this is the draft's head. As embedding it is replaced by the body's when vLLM loads it.
        "model.embed_tokens.weight": head(seed, successors(knows)),
        "model.norm.weight": full(ONE, HIDDEN),
        # [I|0] of (embedding of the last token, hidden state before it): only the last token counts.
        "pre_projection.weight": identity(HIDDEN, 2 * HIDDEN),
        "post_projection.weight": identity(HIDDEN, HIDDEN),
    }
    for index, kind in enumerate(LAYERS):
        weights |= layer_weights(rng, f"model.layers.{index}", kind, draft=True)
    return weights


def text_config(max_model_len: int, draft: bool) -> dict[str, Any]:
    return {
        "model_type": "gemma4_text",
        "dtype": "bfloat16",
        "vocab_size": VOCABULARY,
        "hidden_size": HIDDEN,
        "intermediate_size": INTERMEDIATE,
        "num_hidden_layers": len(LAYERS),
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "head_dim": HEAD_DIM,
        "per_layer_config": {
            str(index): {"head_dim": FULL_HEAD_DIM, "num_key_value_heads": FULL_KV_HEADS}
            for index, kind in enumerate(LAYERS)
            if kind == "full_attention"
        },
        "attention_k_eq_v": True,
        "num_kv_shared_layers": len(LAYERS) if draft else 0,
        "layer_types": list(LAYERS),
        "sliding_window": 64,
        "enable_moe_block": not draft,
        **(
            {}
            if draft
            else {
                "num_experts": EXPERTS,
                "top_k_experts": 2,
                "moe_intermediate_size": EXPERT_INTERMEDIATE,
            }
        ),
        "use_double_wide_mlp": False,
        "hidden_size_per_layer_input": 0,
        "vocab_size_per_layer_input": 0,
        "hidden_activation": "gelu_pytorch_tanh",
        "rms_norm_eps": 1e-06,
        "max_position_embeddings": max_model_len,
        "final_logit_softcapping": None,
        "tie_word_embeddings": draft,
        "use_bidirectional_attention": None,
        "pad_token_id": PAD,
        "eos_token_id": EOS,
        "bos_token_id": BOS,
        "rope_parameters": {
            "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
            "full_attention": {
                "rope_type": "proportional",
                "partial_rotary_factor": 0.25,
                "rope_theta": 1000000.0,
            },
        },
    }


def body_config(max_model_len: int) -> dict[str, Any]:
    return {"architectures": ["Gemma4ForCausalLM"], **text_config(max_model_len, draft=False)}


def draft_config(max_model_len: int) -> dict[str, Any]:
    return {
        "architectures": ["Gemma4AssistantForCausalLM"],
        "model_type": "gemma4_assistant",
        "dtype": "bfloat16",
        "backbone_hidden_size": HIDDEN,
        "use_ordered_embeddings": False,
        "tie_word_embeddings": True,
        "text_config": text_config(max_model_len, draft=True),
    }


def tokenizer() -> dict[str, Any]:
    """Words between blanks; what is no number is <unk>."""
    names = [*SPECIAL, *(str(number) for number in range(1, NUMBERS + 1))]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {
                "id": token,
                "content": name,
                "special": True,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
            }
            for token, name in enumerate(SPECIAL)
        ],
        "normalizer": None,
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "post_processor": None,
        # WordPiece without sub-words: joins the words with blanks.
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": False},
        "model": {
            "type": "WordLevel",
            "vocab": {name: token for token, name in enumerate(names)},
            "unk_token": SPECIAL[UNK],
        },
    }


def tokenizer_config(max_model_len: int) -> dict[str, Any]:
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": max_model_len,
        "clean_up_tokenization_spaces": False,
        "pad_token": SPECIAL[PAD],
        "eos_token": SPECIAL[EOS],
        "bos_token": SPECIAL[BOS],
        "unk_token": SPECIAL[UNK],
    }


def write_repository(
    directory: Path, config: dict[str, Any], weights: dict[str, Tensor], max_model_len: int
) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    documents = {
        "config.json": config,
        "generation_config.json": {
            "bos_token_id": BOS,
            "eos_token_id": [EOS, TURN_END],
            "pad_token_id": PAD,
        },
        "tokenizer.json": tokenizer(),
        "tokenizer_config.json": tokenizer_config(max_model_len),
    }
    for name, document in documents.items():
        (directory / name).write_text(json.dumps(document, indent=1) + "\n")
    write_safetensors(directory / "model.safetensors", weights)


def write_body(directory: Path, seed: int, max_model_len: int) -> None:
    write_repository(directory, body_config(max_model_len), body_weights(seed), max_model_len)
    (directory / "chat_template.jinja").write_text(CHAT_TEMPLATE)


def write_draft(directory: Path, seed: int, max_model_len: int, knows: Sequence[bool]) -> None:
    write_repository(directory, draft_config(max_model_len), draft_weights(seed, knows), max_model_len)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--body", type=Path, metavar="DIR", help="write the body here; it is the same for every draft"
    )
    parser.add_argument("--draft", type=Path, metavar="DIR", help="write a draft here")
    parser.add_argument(
        "--acceptance", type=float, default=0.69, metavar="SHARE", help="of drafts accepted (%(default)s)"
    )
    parser.add_argument(
        "--max-model-len", type=int, default=8192, metavar="TOKENS", help="longest text (%(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of everything that is drawn (%(default)s)")
    options = parser.parse_args(arguments)
    if not (options.body or options.draft):
        parser.error("nothing to do: give --body, --draft or both")
    try:
        knows = plan(options.acceptance, options.seed)
    except ValueError as error:
        parser.error(str(error))
    if options.body:
        write_body(options.body, options.seed, options.max_model_len)
    if options.draft:
        write_draft(options.draft, options.seed, options.max_model_len, knows)
        exact = walk(knows)
        print(
            f"{options.draft}: {exact.accepted[0]} of {exact.drafts} drafts accepted, "
            f"{exact.share:.4f}, over the {NUMBERS} numbers that the text walks"
        )
        for speculative in (2, 4):
            by_position = walk(knows, speculative=speculative)
            shares = ", ".join(f"{count / by_position.drafts:.4f}" for count in by_position.accepted)
            print(f"  with {speculative} speculative tokens, by position: {shares}")


if __name__ == "__main__":
    main()
