# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The measured speculation of a lock: how it takes the place of the recipe's, and what becomes of it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

CONFIG = "speculative-config"
DRAFTS = 200
"""How many drafts are judged where a recipe without speculation gives no number."""


def tuned(recipe: Mapping[str, Any], lock: Mapping[str, Any]) -> dict[str, Any]:
    """The recipe as it is served: the speculation that its lock holds as measured replaces its own speculative config.

    The draft stays, even if it does not speculate, and the recipe's own config stays as ``tune.own``: the next measurement
    needs both.
    """
    speculation = lock.get("speculation")
    if not speculation:
        return dict(recipe)
    own = recipe["serve"]["arguments"]
    # No deep copy: data that Ansible hands to a filter would bring all of its templating along.
    arguments = dict(own)
    depth = speculation["num_speculative_tokens"]
    if depth:
        config = {"method": speculation["method"], **speculation["options"], "num_speculative_tokens": depth}
        arguments[CONFIG] = config
    else:
        arguments.pop(CONFIG, None)
    return {
        **recipe,
        "serve": {**recipe["serve"], "arguments": arguments},
        "expect": _expect(recipe.get("expect", {}), depth),
        "tune": {**recipe.get("tune", {}), "own": own.get(CONFIG)},
    }


def _expect(own: Mapping[str, Any], depth: int) -> dict[str, Any]:
    """What the gate expects: nothing without speculation; with it drafts, even if the recipe expects none."""
    if not depth:
        return {**own, "acceptance_floor": 0.0, "minimum_drafts": 0}
    return {**own, "minimum_drafts": own.get("minimum_drafts") or DRAFTS}


def unmounted_draft(recipe: Mapping[str, Any], speculation: Mapping[str, Any]) -> str:
    """The model that a measured speculation drafts with, if the recipe does not mount it there; else empty."""
    model = speculation["options"].get("model", "")
    return "" if model in ("", *(each["mount"] for each in recipe["models"].values())) else str(model)


def keep(
    recipe: Mapping[str, Any], before: Mapping[str, Any], after: Mapping[str, Any]
) -> tuple[dict[str, Any], str]:
    """A newly resolved lock, with the measured speculation of the lock before it.

    :returns: the lock, and why it lost that speculation: empty when it did not
    """
    speculation = before.get("speculation")
    if not speculation:
        return dict(after), ""
    lost = (
        f"the speculation that was measured on {speculation['measured']['at']} ({describe(speculation)}) is dropped, and the recipe's "
        "own is in force; measure again with tune.yml: "
    )
    if model := unmounted_draft(recipe, speculation):
        return dict(after), f"{lost}it drafts with {model}, which the recipe does not mount"
    for role in dict.fromkeys([*before["models"], *after["models"]]):
        old, new = (lock["models"].get(role, {}).get("commit", "none") for lock in (before, after))
        if old != new:
            return dict(after), f"{lost}it was measured with the {role} of commit {old}, and this is {new}"
    return {**after, "speculation": speculation}, ""


def describe(speculation: Mapping[str, Any]) -> str:
    """A measured speculation in a few words."""
    depth = speculation["num_speculative_tokens"]
    return f"{speculation['method']} n={depth}" if depth else "off"


def lines(speculation: Mapping[str, Any]) -> dict[str, str]:
    """A measured speculation as flat, readable lines, for a diff."""
    flat = {"num_speculative_tokens": str(speculation["num_speculative_tokens"])}
    if speculation["method"]:
        flat["method"] = speculation["method"]
    for part in ("options", "measured"):
        flat |= {f"{part}.{name}": str(value) for name, value in speculation[part].items()}
    return {f"speculation.{name}": value for name, value in flat.items()}
