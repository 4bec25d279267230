"""Which bundle is used, and what of it the controller takes, keeps and refuses."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible.errors import AnsibleActionFail
from ansible_collections.sparkfleet.vllm.plugins.action import bundle_import, bundle_write
from ansible_collections.sparkfleet.vllm.plugins.module_utils._recipe import lock as locks
from ansible_collections.sparkfleet.vllm.plugins.module_utils._recipe.recipe import parse as parse_recipe
from ansible_collections.sparkfleet.vllm.plugins.plugin_utils import recipes
from helpers.recipe import SHIPPED

PATCH = b"pass\n"
LOOK = {"found": True, "problem": "", "machine": "aarch64", "python": "3.12", "address": "10.0.0.1"}


def look(**other):
    return {**LOOK, "bundle": {"recipe": "mine", "machine": "aarch64", "python": "3.12"}, **other}


NONE = {**LOOK, "found": False}


# -- which one


def test_the_first_host_that_has_one_is_chosen():
    assert bundle_import.choose("/b", {"one": NONE, "two": look(), "three": look()}) == "two"


def test_a_damaged_bundle_is_passed_over_and_named_when_there_is_no_other():
    damaged = {**NONE, "problem": "/b: seen 1 damaged: lock.yml"}
    assert bundle_import.choose("/b", {"one": damaged, "two": look()}) == "two"
    with pytest.raises(AnsibleActionFail, match=r"one: /b: seen 1 damaged: lock.yml"):
        bundle_import.choose("/b", {"one": damaged, "two": NONE})


def test_nobody_has_one():
    with pytest.raises(
        AnsibleActionFail, match=r"expected a bundle at /b on a host of this run, seen none on one, two"
    ):
        bundle_import.choose("/b", {"one": NONE, "two": NONE})


@pytest.mark.parametrize("other", [{"machine": "x86_64"}, {"python": "3.11"}])
def test_a_host_that_cannot_use_its_wheels_is_named(other):
    with pytest.raises(AnsibleActionFail, match=r"its kind \(aarch64, Python 3.12\), seen two \("):
        bundle_import.choose("/b", {"one": look(), "two": {**NONE, **other}})


def test_a_host_with_several_addresses_must_be_told_which():
    with pytest.raises(AnsibleActionFail, match="set spark_interface"):
        bundle_import.choose("/b", {"one": look(address="")})


# -- what is in it


@pytest.fixture
def held():
    """Recipe and lock as text, and their patches, that fit together."""
    recipe_text = SHIPPED.read_text().replace("name: huihui-gemma4-mtp-n1", "name: mine")
    recipe, problems = parse_recipe(recipe_text, "mine.yml")
    assert not problems, problems
    sha256 = hashlib.sha256(PATCH).hexdigest()
    model = {"commit": "c" * 40, "files": {"config.json": {"size": 2, "sha256": "a" * 64}}}
    lock = {
        "version": 1,
        "recipe": recipe["name"],
        "image": {
            "reference": recipe["image"]["reference"],
            "digest": "sha256:" + "d" * 64,
            "pinned": "x@sha256:" + "d" * 64,
        },
        "models": {
            role: {"repository": asked["repository"], "revision": asked["revision"], **model}
            for role, asked in recipe["models"].items()
        },
        "patches": [
            {
                **{key: patch[key] for key in ("name", "repository", "commit", "path")},
                "size": len(PATCH), "md5": hashlib.md5(PATCH).hexdigest(), "sha256": sha256,
            }
            for patch in recipe["patches"]
        ],
    }  # fmt: skip
    assert lock["patches"]
    texts = {"recipe.yml": recipe_text.encode(), "lock.yml": locks.render(lock).encode()}
    texts |= {f"patches/{patch['sha256']}/{patch['name']}": PATCH for patch in lock["patches"]}
    return SimpleNamespace(recipe=recipe, lock=lock, texts=texts)


def encoded(texts):
    return {path: base64.b64encode(content).decode() for path, content in texts.items()}


def test_what_fits_together_is_taken(held):
    contents = bundle_import.check(encoded(held.texts), "mine", "one")
    assert contents.recipe == held.recipe and contents.lock == held.lock
    assert set(contents.patches.values()) == {PATCH}


def test_a_patch_with_other_bytes_than_locked_is_refused(held):
    (path,) = [path for path in held.texts if path.startswith("patches/")]
    for content in (b"exec\n", None):
        texts = {key: value for key, value in {**held.texts, path: content}.items() if value is not None}
        with pytest.raises(AnsibleActionFail, match="with the locked sha256, seen"):
            bundle_import.check(encoded(texts), "mine", "one")


def test_a_lock_of_another_recipe_is_refused(held):
    text = locks.render({**held.lock, "image": {**held.lock["image"], "reference": "another:1"}}).encode()
    with pytest.raises(AnsibleActionFail, match="another:1"):
        bundle_import.check(encoded({**held.texts, "lock.yml": text}), "mine", "one")


# -- what the controller does with it


class Controller:
    """An inventory directory, and the action run on it."""

    def __init__(self, root: Path, texts: dict[str, bytes]) -> None:
        self.inventory, self.cache, self.texts = root / "inventory", root / "cache", texts
        self.inventory.mkdir()
        self.recipe, self.lock = root / "recipes/mine.yml", root / "locks/mine.lock.yml"

    def take(self, check_mode: bool = False, **arguments: Any) -> dict[str, Any]:
        contents = bundle_import.check(encoded(self.texts), "mine", "one")
        action = object.__new__(bundle_import.ActionModule)
        action._task = SimpleNamespace(check_mode=check_mode)
        action._loader = SimpleNamespace(get_basedir=lambda: str(self.inventory))
        given = {"name": "", "lock_dir": str(self.lock.parent), "cache_dir": str(self.cache), **arguments}
        variables = {"inventory_dir": str(self.inventory), "ansible_inventory_sources": [str(self.inventory)]}
        return action._place(contents, given, variables)


@pytest.fixture
def controller(tmp_path, held):
    return Controller(tmp_path, held.texts)


def test_recipe_lock_and_patches_are_put_where_the_roles_look(controller, held):
    taken = controller.take()
    assert taken["changed"] and (taken["recipe"], taken["lock_dir"]) == ("mine", str(controller.lock.parent))
    assert controller.recipe.read_bytes() == held.texts["recipe.yml"]
    assert controller.lock.read_bytes() == held.texts["lock.yml"]
    (patch,) = held.lock["patches"]
    assert (controller.cache / f"patches/{patch['sha256']}/{patch['name']}").read_bytes() == PATCH
    assert not controller.take()["changed"]


def test_check_mode_writes_to_the_cache_alone_and_says_where_to_read(controller):
    taken = controller.take(check_mode=True)
    assert taken["changed"]
    assert not controller.recipe.exists() and not controller.lock.exists()
    assert Path(taken["recipe"]).is_relative_to(controller.cache)
    assert (Path(taken["lock_dir"]) / "mine.lock.yml").exists()


def test_a_lock_that_is_held_already_must_be_the_bundles(controller, held):
    controller.lock.parent.mkdir()
    other = json.loads(json.dumps(held.lock))
    other["models"]["body"]["commit"] = "e" * 40
    controller.lock.write_text(locks.render(other))
    with pytest.raises(
        AnsibleActionFail, match=r"(?s)the lock that the bundle was made of.*eeeeeee.*in the bundle.*ccccccc"
    ):
        controller.take()
    assert "e" * 40 in controller.lock.read_text()
    assert not controller.recipe.exists()


def test_a_recipe_that_was_edited_since_is_refused(controller, held):
    controller.recipe.parent.mkdir()
    controller.recipe.write_bytes(
        held.texts["recipe.yml"].replace(b"description: ", b"description: other ", 1)
    )
    with pytest.raises(AnsibleActionFail, match="seen a difference in description"):
        controller.take()
    assert not controller.lock.exists()


def test_another_recipe_than_asked_for_is_refused(controller):
    with pytest.raises(AnsibleActionFail, match="expected recipe 'theirs' in the bundle, seen 'mine'"):
        controller.take(name="theirs")


# -- how the controller makes one


def test_the_recipe_of_a_bundle_is_complete_in_itself(held, tmp_path):
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "mine.yml").write_bytes(held.texts["recipe.yml"])
    path = tmp_path / "recipes" / "more.yml"
    path.write_text("name: more\nextends: mine\nserve: {port: 8123}\n")
    arguments = {
        "lock": {**held.lock, "patches": []},
        "recipe_path": path,
        "lock_path": tmp_path / "more.lock.yml",
    }
    written = bundle_write.texts(arguments, tmp_path)["recipe.yml"].decode()
    recipe, problems = parse_recipe(written, "more.yml")
    assert problems == []
    assert recipe == recipes.load(path, tmp_path)
    assert (recipe["name"], recipe["serve"]["port"]) == ("more", 8123)
    # One that extends nothing keeps its comments.
    arguments["recipe_path"] = tmp_path / "recipes" / "mine.yml"
    assert bundle_write.texts(arguments, tmp_path)["recipe.yml"] == held.texts["recipe.yml"]


def test_the_lock_of_a_bundle_is_the_file_and_carries_nothing_of_run_time(held, tmp_path):
    (tmp_path / "p.py").write_bytes(PATCH)
    running = {
        **held.lock,
        "patches": [
            {**patch, "src": str(tmp_path / "p.py"), "target": "/x"} for patch in held.lock["patches"]
        ],
    }
    (tmp_path / "mine.yml").write_bytes(held.texts["recipe.yml"])
    arguments = {
        "lock": running,
        "recipe_path": tmp_path / "mine.yml",
        "lock_path": tmp_path / "mine.lock.yml",
    }
    assert bundle_write.texts(arguments) == held.texts
    (tmp_path / "mine.lock.yml").write_bytes(held.texts["lock.yml"] + b"# kept\n")
    assert bundle_write.texts(arguments)["lock.yml"].endswith(b"# kept\n")
