"""A recipe that says only what differs from another: what comes out, and where a problem is told to stand."""

from __future__ import annotations

import pytest
import yaml
from ansible_collections.sparkfleet.vllm.plugins.module_utils._recipe import recipe as recipes
from helpers.recipe import SHIPPED

NAME = "huihui-gemma4-mtp-n1"
BASE = f"recipes/{NAME}.yml"
WHOLE, _PROBLEMS = recipes.parse(SHIPPED.read_text(), BASE)


def parse(text, name="mine", **others):
    """A recipe of that text, that may extend the shipped one and `others` by name."""
    files = {NAME: SHIPPED.read_text()} | others

    def find(asked):
        if asked not in files:
            raise LookupError(f"expected one of {', '.join(files)}, seen '{asked}'")
        return files[asked], f"recipes/{asked}.yml"

    files[name] = f"name: {name}\n{text}"
    return recipes.parse(files[name], f"recipes/{name}.yml", find)


def told(text, **others):
    recipe, problems = parse(text, **others)
    assert recipe == {}
    return [str(problem) for problem in problems]


EXTENDS = f"extends: {NAME}\n"


def test_what_is_not_said_is_as_in_the_other_and_the_name_is_its_own():
    recipe, problems = parse(EXTENDS)
    assert problems == []
    assert recipe == WHOLE | {"name": "mine"}
    assert "extends" not in recipe


def test_mappings_are_merged_and_lists_and_values_replaced():
    recipe, problems = parse(
        f"""{EXTENDS}
image: {{reference: "vllm/vllm-openai:v0.32.0"}}
patches: []
serve:
  arguments:
    max-model-len: 16384
    limit-mm-per-prompt: {{video: 1}}
    max-num-seqs: 4
"""
    )
    assert problems == []
    assert recipe["image"]["reference"] == "vllm/vllm-openai:v0.32.0"
    assert recipe["patches"] == []
    arguments = recipe["serve"]["arguments"]
    assert arguments == WHOLE["serve"]["arguments"] | {
        "max-model-len": 16384,
        "limit-mm-per-prompt": {"image": 0, "audio": 0, "video": 1},
        "max-num-seqs": 4,
    }
    assert recipe["models"] == WHOLE["models"]


def test_null_takes_a_key_away():
    recipe, problems = parse(
        f"{EXTENDS}expect: null\nmodels: {{draft: null}}\nserve: {{arguments: {{speculative-config: null}}}}\n"
    )
    assert problems == []
    assert "draft" not in recipe["models"] and "speculative-config" not in recipe["serve"]["arguments"]
    assert recipe["expect"] == {"acceptance_floor": 0.0, "minimum_drafts": 0}


def test_null_that_takes_nothing_away_is_a_misspelling():
    (problem,) = told(f"{EXTENDS}serve:\n  arguments:\n    max-model-length: null\n")
    assert problem == (
        "recipes/mine.yml:5: serve.arguments.max-model-length: null takes a key away, and"
        f" {BASE} has no such key; nearest: max-model-len"
    )


def test_a_chain_is_followed_and_the_nearest_wins():
    middle = (
        f"name: middle\n{EXTENDS}description: of the middle\nserve: {{port: 8001, arguments: {{seed: 1}}}}\n"
    )
    recipe, problems = parse("extends: middle\nserve: {arguments: {seed: 2}}\n", middle=middle)
    assert problems == []
    assert (recipe["name"], recipe["description"], recipe["serve"]["port"]) == ("mine", "of the middle", 8001)
    assert recipe["serve"]["arguments"]["seed"] == 2
    assert recipe["models"] == WHOLE["models"]


@pytest.mark.parametrize(
    ("text", "others", "expected"),
    [
        ("extends: mine\n", {}, "seen recipes/mine.yml -> recipes/mine.yml"),
        (
            "extends: other\n",
            {"other": "name: other\nextends: mine\n"},
            "recipes/other.yml:2: extends: expected a recipe that does not extend this one, seen"
            " recipes/mine.yml -> recipes/other.yml -> recipes/mine.yml",
        ),
        ("extends: huihui\n", {}, f"recipes/mine.yml:2: extends: expected one of {NAME}, mine, seen 'huihui'"),
        ("extends: [a]\n", {}, "recipes/mine.yml:2: extends: expected text, seen a list"),
        ("extends:\n", {}, "recipes/mine.yml:2: extends: expected text, seen no value"),
        ("extends: ../a.yml\n", {}, "recipes/mine.yml:2: extends: expected lower-case letters"),
        ("extends: other\n", {"other": "# nothing\n"}, "recipes/other.yml: expected a recipe to extend, seen none"),
        ("extends: other\n", {"other": "name: [\n"}, "recipes/other.yml:2: not valid YAML"),
    ],
)  # fmt: skip
def test_a_recipe_that_cannot_be_made_is_told_once(text, others, expected):
    (problem,) = told(text, **others)
    assert expected in problem


def test_a_recipe_that_must_be_complete_cannot_extend():
    _none, (problem,) = recipes.parse(f"name: mine\n{EXTENDS}", "mine.yml")
    assert "complete in itself" in str(problem)


def line(text: str, word: str) -> int:
    return next(number for number, found in enumerate(text.splitlines(), 1) if word in found)


def test_a_problem_is_told_where_the_value_stands():
    base = SHIPPED.read_text()
    for old, new in (
        (f"name: {NAME}", "name: other"),
        ("port: 8000", "port: 80000"),
        ("kv-cache-dtype: fp8", "kv-cache-dtype: true"),
    ):
        assert old in base
        base = base.replace(old, new)
    mine = "extends: other\nserve:\n  arguments:\n    max_model_len: 1\n    enable-prefix-caching: maybe\n"
    assert told(mine, other=base) == [
        "recipes/mine.yml:5: serve.arguments.max_model_len: expected the long name of an option, in small letters with '-'"
        " between them; what is nested goes into a mapping; nearest valid key: max-model-len",
        "recipes/mine.yml:6: serve.arguments.enable-prefix-caching: expected true or false, seen the text 'maybe'",
        f"recipes/other.yml:{line(base, 'port: 80000')}: serve.port: expected 1 to 65535, seen 80000",
        f"recipes/other.yml:{line(base, 'dtype: true')}: serve.arguments.kv-cache-dtype: expected a value, seen the"
        " boolean true; text such as on or yes goes in quotes",
    ]


def test_a_value_that_is_wrong_only_in_the_whole_is_told_where_it_stands():
    published = "published: {source: s, deepest: 1, because: two are not better}\n"
    base = f"name: other\n{EXTENDS}{published}"
    (problem,) = told(
        "extends: other\nserve: {arguments: {speculative-config: {\n  num_speculative_tokens: 2}}}\n",
        other=base,
    )
    assert problem.startswith(
        "recipes/mine.yml:4: serve.arguments.speculative-config.num_speculative_tokens: "
    )
    assert "seen 2: two are not better" in problem
    mine = "extends: other\npublished: {deepest: 2}\nserve: {arguments: {speculative-config: {num_speculative_tokens: 2}}}\n"
    assert parse(mine, other=base)[1] == []


def test_a_replaced_list_is_told_in_its_own_file():
    patches = yaml.safe_dump([WHOLE["patches"][0] | {"commit": "short"}])
    (problem,) = told(f"{EXTENDS}patches:\n{patches}")
    assert problem.startswith("recipes/mine.yml:4: patches[0].commit: ")
    # What it lacks is not told where the list that it replaces has it.
    (problem,) = told(f"{EXTENDS}patches:\n  - {{name: a.py, repository: a/b, path: a.py}}\n")
    assert problem.startswith("recipes/mine.yml:4: patches[0].commit: required and missing")


def test_every_file_of_a_chain_has_its_own_name():
    base = SHIPPED.read_text().replace(f"name: {NAME}", "name: someone-elses")
    (problem,) = told("extends: other\n", other=base)
    assert (
        problem
        == f"recipes/other.yml:{line(base, 'name:')}: name: expected the file's own name 'other', seen 'someone-elses'"
    )


def test_a_name_is_never_inherited():
    recipe, problems = recipes.parse(EXTENDS, "recipes/mine.yml", lambda name: (SHIPPED.read_text(), BASE))
    assert recipe == {}
    (problem,) = problems
    assert problem.key == "name" and "required and missing" in str(problem)


PAIR = f"""{EXTENDS}image: {{entrypoint: [vllm, serve]}}
topology: {{nodes: 2}}
"""


def test_a_topology_is_extended_as_any_mapping_and_null_serves_on_one_spark_again():
    recipe, problems = parse("extends: pair\ntopology: {nodes: 4}\n", pair=f"name: pair\n{PAIR}")
    assert problems == []
    assert recipe["topology"] == {"nodes": 4, "tensor_parallel": 4, "pipeline_parallel": 1}
    recipe, problems = parse("extends: pair\ntopology: null\n", pair=f"name: pair\n{PAIR}")
    assert problems == [] and "topology" not in recipe
    fixed = PAIR.replace("nodes: 2", "nodes: 2, tensor_parallel: 2")
    (said,) = told("extends: pair\ntopology: {nodes: 4}\n", pair=f"name: pair\n{fixed}")
    assert said.startswith("recipes/mine.yml:3: topology: ") and "seen 2 times 1 for 4" in said
