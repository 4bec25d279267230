# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a recipe knows better than whoever runs it: how deep speculation paid, and which vLLM does not do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .._images.reference import parse_reference
from .._vllm import versions


def depth(arguments: Mapping[str, Any]) -> int:
    """Tokens that serve arguments have a draft propose a step; 0 without speculation."""
    config = arguments.get("speculative-config")
    if not isinstance(config, Mapping):
        return 0
    # A schedule by the size of the batch: each entry ends in its depth.
    schedule = config.get("num_speculative_tokens_per_batch_size")
    entries = schedule if isinstance(schedule, list) else []
    depths = [config.get("num_speculative_tokens"), *(entry[-1] for entry in entries if entry)]
    return max((depth for depth in depths if isinstance(depth, int)), default=0)


def deeper(arguments: Mapping[str, Any], published: Mapping[str, Any], do: str) -> str | None:
    """Why arguments should not speculate as deep as they do, with the figures; None where nothing is known against it.

    :param published: that of the recipe, may be empty
    :param do: what there is to do besides going less deep
    """
    deepest, tokens = published.get("deepest"), depth(arguments)
    if deepest is None or tokens <= deepest:
        return None
    return (
        f"expected num_speculative_tokens of at most {deepest}, the deepest that paid on this body, seen {tokens}:"
        f" {published.get('because', 'nobody says why')}. Published: {figures(published)} ({published['source']})."
        f" Do: {f'take num_speculative_tokens: {deepest}' if deepest else 'serve without speculation'}, or {do}"
    )


def figures(published: Mapping[str, Any]) -> str:
    """``1 token 52.6 tok/s at 69 %; …``"""
    told = []
    for figure in published.get("figures") or ():
        tokens = figure["num_speculative_tokens"]
        text = f"{tokens} token{'s' if tokens != 1 else ''}" if tokens else "no speculation"
        if "tokens_per_second" in figure:
            text += f" {figure['tokens_per_second']:g} tok/s"
        if figure.get("rates"):
            text += f" at {'/'.join(f'{100 * rate:.0f}' for rate in figure['rates'])} %"
        told.append(text)
    return "; ".join(told) or "no figures"


def refused(rules: Sequence[Mapping[str, Any]], version: str | None) -> str | None:
    """The reason of the first rule that refuses a version of vLLM; None for one that is not refused, or not known."""
    rule = next((rule for rule in rules if version and versions.within(version, rule["vllm"])), None)
    return f"{rule['because']} (refused: {rule['vllm']})" if rule else None


def refused_image(rules: Sequence[Mapping[str, Any]], reference: str) -> str | None:
    """Why an image cannot be had, as far as its tag tells. What only the image knows, C(serve_validate) asks it."""
    try:
        version = versions.tagged(parse_reference(reference).tag)
    except ValueError:
        return None
    reason = refused(rules, version)
    return reason and refusal(reference, version, reason)


def refusal(image: str, version: str | None, reason: str) -> str:
    """What to tell a person about an image whose vLLM is refused."""
    return (
        f"expected an image with a vLLM that this recipe can be served with, seen vLLM {version} in {image}: {reason}."
        " Do: take another one, in image.reference of a recipe of yours that extends this one"
    )
