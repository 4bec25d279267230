from __future__ import annotations

from pathlib import Path

import pytest
from ansible.errors import AnsibleActionFail
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


@pytest.mark.parametrize(
    ("recipe", "lock", "lies", "refused"),
    [
        ("fleet/recipes/x.yml", "locks/x.lock.yml", [], "fleet/recipes/x.yml"),
        ("recipes/x.yml", "fleet/locks/x.lock.yml", [], "fleet/locks/x.lock.yml"),
        ("recipes/x.yml", "locks/x.lock.yml", ["fleet/recipes/other.yaml"], "fleet/recipes/other.yaml"),
        ("recipes/x.yml", "locks/x.lock.yml", [], ""),
        ("recipes/../fleet/x.yml", "locks/x.lock.yml", [], "fleet/x.yml"),
    ],
)
def test_what_ansible_reads_as_inventory_is_no_recipe_and_no_lock(
    tmp_path: Path, recipe: str, lock: str, lies: list[str], refused: str
) -> None:
    for name in ("recipes", "fleet"):
        (tmp_path / name).mkdir()
    for file in (recipe, lock, *lies):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    given = (tmp_path / recipe, tmp_path / lock, tmp_path / "fleet")
    for sources in ([str(tmp_path / "fleet")], [str(tmp_path / "fleet/hosts.yml"), "host,"]):
        variables = {"ansible_inventory_sources": sources}
        if refused and len(sources) == 1:
            with pytest.raises(AnsibleActionFail, match="read it as you would a program, then move it"):
                recipes.refuse_as_inventory(*given, variables)
        else:
            recipes.refuse_as_inventory(*given, variables)


def test_a_recipe_of_the_project_is_found_in_a_job_of_a_controller(tmp_path, monkeypatch):
    """There the inventory lies by itself, so its recipe is named by a path, from the top of the project as at a person's desk."""
    recipes_of_project = tmp_path / "project/inventory/recipes"
    recipes_of_project.mkdir(parents=True)
    (tmp_path / "inventory").mkdir()
    (recipes_of_project / "ours.yml").write_text("name: ours\nextends: huihui-gemma4-mtp-n1\n")
    (recipes_of_project / "mine.yml").write_text("name: mine\nextends: ours\nserve: {port: 8001}\n")
    monkeypatch.chdir(tmp_path / "project")
    path = recipes.find("inventory/recipes/mine.yml", tmp_path / "inventory", [Path.cwd()])
    recipe = recipes.load(path, tmp_path / "inventory")
    assert (recipe["name"], recipe["serve"]["port"]) == ("mine", 8001)


def test_a_recipe_beside_the_one_that_extends_it_counts_once(tmp_path):
    own = tmp_path / "recipes"
    own.mkdir()
    (own / "ours.yml").write_text("name: ours\nextends: huihui-gemma4-mtp-n1\n")
    assert recipes.by_name("ours", tmp_path, own / "mine.yml") == own / "ours.yml"
