from __future__ import annotations

import copy

import pytest
import yaml
from ansible_collections.sparkfleet.vllm.plugins.module_utils._recipe import lock as locks
from ansible_collections.sparkfleet.vllm.plugins.module_utils._recipe import resolve
from ansible_collections.sparkfleet.vllm.plugins.module_utils._recipe.lock import against, parse, render
from helpers.lock import MARK, RECIPE, Cache, Upstream, built, with_build
from helpers.recipe import BODY, IMAGE, TAG


@pytest.fixture
def lock():
    return resolve.resolve(RECIPE, Upstream(), Cache()).lock


def test_a_lock_survives_its_file_and_its_bytes_are_stable(lock):
    text = render(lock)
    assert parse(text, "l") == (lock, [])
    assert render(parse(text, "l")[0]) == text
    assert text.startswith("---\n# ")
    assert list(yaml.safe_load(text)) == ["version", "recipe", "image", "models", "patches"]


@pytest.mark.parametrize(
    ("change", "key", "says"),
    [
        (lambda lock: lock.update(version=2), "version", "made by another release"),
        (lambda lock: lock.pop("image"), "image", "required and missing"),
        (lambda lock: lock["image"].update(digest="sha256:12"), "image.digest", "sha256:…"),
        (lambda lock: lock["image"].update(pinned=f"{IMAGE}@sha256:{'2' * 64}"), "image.pinned", "expected the image"),
        (lambda lock: lock["models"]["body"].update(commit="main"), "models.body.commit", "40 lower-case"),
        (lambda lock: lock["models"]["body"].update(files={}), "models.body.files", "at least one"),
        (lambda lock: lock["models"]["body"]["files"]["z.json"].update(sha256="x"),
         "models.body.files.z.json.sha256", "64 lower-case"),
        (lambda lock: lock["models"]["body"]["files"]["z.json"].update(size="2"),
         "models.body.files.z.json.size", "a whole number"),
        (lambda lock: lock["patches"][0].update(md5="0"), "patches[0].md5", "32 hex digits"),
        (lambda lock: lock["patches"][0].update(src="/x"), "patches[0].src", "unknown key"),
    ],
)  # fmt: skip
def test_an_edited_lock_is_refused_with_its_line(lock, change, key, says):
    change(lock)
    found, problems = parse(render(lock), "l")
    assert found == {}
    (problem,) = problems
    assert problem.key == key
    assert says in str(problem)
    assert problem.line


def test_a_lock_covers_the_recipe_it_was_made_of(lock):
    assert against(RECIPE, lock) == []


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda r: r["image"].update(reference="a/b:c"), f"image: reference: locked {IMAGE}:{TAG}, recipe a/b:c"),
        (lambda r: r.update(name="x"), "recipe: name: locked huihui-gemma4-mtp-n1, recipe x"),
        (lambda r: r["models"]["draft"].update(revision="v2"), "models.draft: revision: locked main, recipe v2"),
        (lambda r: r["models"]["body"].update(repository="a/b"), f"models.body: repository: locked {BODY}, recipe a/b"),
        (lambda r: r["models"].pop("draft"), "models: draft: locked there, recipe absent"),
        (lambda r: r["patches"].clear(), "patches: gemma4_mtp.py: locked there, recipe absent"),
        (lambda r: r["patches"].append(r["patches"][0] | {"name": "b.py"}), "patches: b.py: locked absent, recipe there"),
        (lambda r: r["patches"][0].update(commit="e" * 40),
         f"patches.gemma4_mtp.py: commit: locked {RECIPE['patches'][0]['commit']}, recipe {'e' * 40}"),
        (lambda r: r["patches"][0].update(path="a.py"),
         "patches.gemma4_mtp.py: path: locked vllm/model_executor/models/gemma4_mtp.py, recipe a.py"),
    ],
)  # fmt: skip
def test_a_recipe_edited_after_its_lock_shows_both_values(lock, change, line):
    recipe = copy.deepcopy(RECIPE)
    change(recipe)
    assert [difference.line("recipe") for difference in against(recipe, lock)] == [line]


def test_what_no_lock_holds_can_change_freely(lock):
    recipe = copy.deepcopy(RECIPE)
    recipe["serve"]["arguments"]["max-model-len"] = 1
    recipe["models"]["body"]["mount"] = "/elsewhere"
    recipe["patches"][0]["tried_with"] = []
    assert against(recipe, lock) == []


def test_a_diff_shows_what_changed_and_nothing_else(lock):
    after = copy.deepcopy(lock)
    after["models"]["draft"]["commit"] = "e" * 40
    after["models"]["draft"]["files"]["z.json"] = {"size": 3, "sha256": "f" * 64}
    after["models"]["draft"]["files"]["new.json"] = {"size": 1, "sha256": "0" * 64}
    after["patches"][0]["md5"] = "9" * 32
    assert locks.diff(lock, after) == {
        "before": f"models.draft.commit: {'d' * 40}\n"
        f"models.draft.files[z.json]: 2 bytes, sha256 {'b' * 64}\n"
        f"patches[gemma4_mtp.py].md5: {MARK.md5}\n",
        "after": f"models.draft.commit: {'e' * 40}\n"
        f"models.draft.files[z.json]: 3 bytes, sha256 {'f' * 64}\n"
        f"models.draft.files[new.json]: 1 bytes, sha256 {'0' * 64}\n"
        f"patches[gemma4_mtp.py].md5: {'9' * 32}\n",
    }
    assert locks.diff(lock, lock) == {"before": "", "after": ""}
    assert locks.diff({}, lock)["before"] == ""


def test_trust_on_first_use_names_each_md5_that_no_earlier_lock_holds(lock):
    (line,) = locks.first_use(lock, {})
    assert MARK.md5 in line
    assert locks.first_use(lock, lock) == []


def test_the_summary_names_digest_commits_and_md5(lock):
    told = "\n".join(locks.summary(lock))
    for value in (lock["image"]["digest"], "d" * 40, RECIPE["models"]["body"]["revision"], MARK.md5):
        assert value in told


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"target": "test"}, "image.build: target: locked absent, recipe test"),
        ({"arguments": {"a": "2"}}, "image.build: arguments.a: locked 1, recipe 2"),
        ({"arguments": {}}, "image.build: arguments.a: locked 1, recipe absent"),
        (
            {"dockerfile": "Dockerfile"},
            "image.build: dockerfile: locked docker/Dockerfile, recipe Dockerfile",
        ),
    ],
)
def test_an_edit_of_the_build_is_not_covered_by_the_lock_and_asks_for_a_build(lock, changes, line):
    differences = against(with_build(**changes), built(lock))
    assert [difference.line("recipe") for difference in differences] == [line]
    assert "sparkfleet.vllm.build" in locks.outdated("r", "l", differences)


def test_an_image_that_is_published_again_asks_for_a_lock(lock):
    told = locks.outdated("r", "l", against(RECIPE, built(lock)))
    assert "image.build: repository: locked vllm-project/vllm, recipe absent" in told
    assert told.endswith("lock it as it is now: ansible-playbook sparkfleet.vllm.lock")


def test_a_diff_shows_what_an_image_is_built_from_an_argument_a_line(lock):
    sides = locks.diff(built(lock), built(lock, with_build(arguments={"a": "2"})))
    assert sides == {"before": "image.build.arguments.a: 1\n", "after": "image.build.arguments.a: 2\n"}


def test_a_lock_whose_build_was_edited_into_nonsense_is_told(lock):
    broken = copy.deepcopy(built(lock))
    broken["image"]["build"]["arguments"] = "x"
    _parsed, problems = parse(render(broken), "lock")
    assert [problem.key for problem in problems] == ["image.build.arguments"]
