from __future__ import annotations

import pytest
from ansible_collections.sparkfleet.vllm.plugins.plugin_utils import recipes
from helpers.recipe import SHIPPED


@pytest.mark.parametrize(
    ("asked", "recipe", "sources", "expected"),
    [
        ("", SHIPPED, ["fleet/hosts.yml"], "fleet/locks"),
        ("", SHIPPED, ["fleet"], "locks"),
        ("", SHIPPED, [], "fleet/locks"),
        ("", "fleet/recipes/x.yml", ["fleet/hosts.yml"], "fleet/recipes"),
        ("kept", SHIPPED, ["fleet"], "fleet/kept"),
        ("kept", "fleet/recipes/x.yml", ["fleet"], "fleet/kept"),
    ],
    ids=["of the collection", "a directory as inventory", "unknown sources", "yours", "asked for", "yours, asked for"],
)  # fmt: skip
def test_where_a_lock_lies(tmp_path, asked, recipe, sources, expected):
    inventory = tmp_path / "fleet"
    variables = {"ansible_inventory_sources": [str(tmp_path / source) for source in sources]}
    found = recipes.lock_file(asked, "x", tmp_path / recipe, inventory, variables)
    assert found == tmp_path / expected / "x.lock.yml"


def test_a_lock_without_an_inventory_lies_where_the_run_was_started(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert recipes.lock_file("", "x", SHIPPED, None, {}) == tmp_path / "locks" / "x.lock.yml"
    assert recipes.lock_file("", "x", tmp_path / "x.yml", None, {}) == tmp_path / "x.lock.yml"
