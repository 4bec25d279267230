# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A measured speculation in a lock: in place of the recipe's, kept over a new lock, dropped with the model."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from ansible_collections.sparkfleet.vllm.plugins.module_utils._recipe import lock as locks
from ansible_collections.sparkfleet.vllm.plugins.module_utils._recipe import recipe
from ansible_collections.sparkfleet.vllm.plugins.module_utils._recipe.measured import keep, tuned
from helpers.recipe import SHIPPED

RECIPE, _PROBLEMS = recipe.parse(SHIPPED.read_text(), "r")
DRAFT = RECIPE["models"]["draft"]["mount"]
MEASURED: dict[str, Any] = {
    "at": "2026-11-26T12:00:00Z",
    "hosts": ["spark-1"],
    "version": "0.32.0",
    "concurrency": 1,
    "ratio": 1.34,
    "low": 1.3,
    "high": 1.38,
    "because": "mtp n=2 gives 52.6 tok/s",
}
TWO: dict[str, Any] = {
    "num_speculative_tokens": 2,
    "method": "mtp",
    "options": {"model": DRAFT},
    "measured": MEASURED,
}
OFF = {**TWO, "num_speculative_tokens": 0, "method": "", "options": {}}
NGRAM = {**TWO, "method": "ngram", "options": {"prompt_lookup_max": 4}}
LOCK: dict[str, Any] = {
    "version": 1,
    "recipe": RECIPE["name"],
    "image": {
        "reference": RECIPE["image"]["reference"],
        "digest": "sha256:" + "1" * 64,
        "pinned": "vllm/vllm-openai@sha256:" + "1" * 64,
    },
    "models": {
        role: {
            "repository": model["repository"],
            "revision": model["revision"],
            "commit": digit * 40,
            "files": {"a": {"size": 1, "sha256": "2" * 64}},
        }
        for (role, model), digit in zip(RECIPE["models"].items(), "bd", strict=True)
    },
    "patches": [
        {key: patch[key] for key in ("name", "repository", "commit", "path")}
        | {"size": 1, "md5": "3" * 32, "sha256": "4" * 64}
        for patch in RECIPE["patches"]
    ],
}


def config(lock: dict[str, Any]) -> Any:
    return tuned(RECIPE, lock)["serve"]["arguments"].get("speculative-config")


def test_what_was_measured_takes_the_place_of_the_recipes() -> None:
    before = copy.deepcopy(RECIPE)
    assert config({}) == config(LOCK) == RECIPE["serve"]["arguments"]["speculative-config"]
    assert config({"speculation": TWO}) == {"method": "mtp", "model": DRAFT, "num_speculative_tokens": 2}
    assert config({"speculation": NGRAM}) == {
        "method": "ngram",
        "prompt_lookup_max": 4,
        "num_speculative_tokens": 2,
    }
    assert config({"speculation": OFF}) is None
    two = tuned(RECIPE, {"speculation": TWO})["serve"]["arguments"]
    assert list(two) == list(RECIPE["serve"]["arguments"]), (
        "in its place: the order is that of a command line"
    )
    # The rest is the recipe's, the draft included, and the recipe itself is as it was.
    served = tuned(RECIPE, {"speculation": OFF})
    assert served["models"] == RECIPE["models"]
    assert list(served["serve"]["arguments"]) == list(RECIPE["serve"]["arguments"])[1:]
    assert served["tune"]["own"] == RECIPE["serve"]["arguments"]["speculative-config"]
    assert tuned(RECIPE, LOCK) == before == RECIPE


def test_a_lock_holds_it_and_its_diff_shows_it() -> None:
    after = {**LOCK, "speculation": TWO}
    assert locks.parse(locks.render(after), "l") == (after, [])
    sides = locks.diff(LOCK, after)
    assert sides["before"] == ""
    assert sides["after"].splitlines()[:3] == [
        "speculation.num_speculative_tokens: 2",
        "speculation.method: mtp",
        f"speculation.options.model: {DRAFT}",
    ]
    assert "speculation.measured.ratio: 1.34" in sides["after"]
    assert (
        locks.summary(after)[-1]
        == "speculation mtp n=2, measured 2026-11-26T12:00:00Z: mtp n=2 gives 52.6 tok/s"
    )
    assert locks.summary({**LOCK, "speculation": OFF})[-1].startswith("speculation off, ")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"num_speculative_tokens": -1}, "expected 0 to 64"),
        ({"num_speculative_tokens": "2"}, "a whole number"),
        ({"method": ""}, "expected a method"),
        ({"measured": {}}, "required and missing"),
        ({"depth": 1}, "unknown key"),
    ],
)
def test_anything_else_is_no_lock(change: dict[str, Any], words: str) -> None:
    lock, problems = locks.parse(locks.render({**LOCK, "speculation": TWO | change}), "l")
    assert lock == {}
    assert words in "\n".join(map(str, problems))


def test_a_new_lock_keeps_it() -> None:
    moved = {**LOCK, "image": {**LOCK["image"], "digest": "sha256:" + "9" * 64}}
    assert keep(RECIPE, {**LOCK, "speculation": TWO}, moved) == ({**moved, "speculation": TWO}, "")
    assert keep(RECIPE, LOCK, moved) == (moved, "")
    assert keep(RECIPE, {}, moved) == (moved, "")


@pytest.mark.parametrize("role", ["body", "draft"])
def test_a_new_lock_drops_it_when_a_model_is_another_one(role: str) -> None:
    moved = copy.deepcopy(LOCK)
    moved["models"][role]["commit"] = "e" * 40
    lock, why = keep(RECIPE, {**LOCK, "speculation": TWO}, moved)
    assert lock == moved
    assert (
        f"measured with the {role} of commit {LOCK['models'][role]['commit']}, and this is {'e' * 40}" in why
    )
    assert "tune.yml" in why and "mtp n=2" in why
    del moved["models"][role]
    assert "and this is none" in keep(RECIPE, {**LOCK, "speculation": TWO}, moved)[1]


def test_a_recipe_that_no_longer_mounts_its_draft_is_not_what_was_locked() -> None:
    lock = {**LOCK, "speculation": TWO}
    assert locks.against(RECIPE, lock) == []
    elsewhere = copy.deepcopy(RECIPE)
    elsewhere["models"]["draft"]["mount"] = "/models/elsewhere"
    (difference,) = locks.against(elsewhere, lock)
    assert (difference.part, difference.locked) == ("speculation", DRAFT)
    assert "which the recipe does not mount" in keep(elsewhere, lock, LOCK)[1]
