"""Every recipe that is shipped: that it loads, keeps its own promises, says where its figures are from, and can be locked."""

from __future__ import annotations

import math
import re
import textwrap

import pytest
from ansible_collections.sparkfleet.vllm.plugins.module_utils._images import registry
from ansible_collections.sparkfleet.vllm.plugins.module_utils._images.reference import parse_reference
from ansible_collections.sparkfleet.vllm.plugins.module_utils._recipe import lock as locks
from ansible_collections.sparkfleet.vllm.plugins.module_utils._recipe import recipe as recipes
from ansible_collections.sparkfleet.vllm.plugins.module_utils._recipe import resolve
from ansible_collections.sparkfleet.vllm.plugins.module_utils._recipe import rules as recipe_rules
from ansible_collections.sparkfleet.vllm.plugins.modules import recipe_lock
from ansible_collections.sparkfleet.vllm.plugins.plugin_utils import recipes as recipe_files
from helpers.hub import lab_hub
from helpers.recipe import ROOT, depot

FILES = sorted(path for path in (ROOT / "recipes").glob("*.yml") if not path.name.endswith(".lock.yml"))
RECIPES = {path.stem: recipe_files.load(path, None) for path in FILES}
every_recipe = pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)


def find(name):
    return (ROOT / "recipes" / f"{name}.yml").read_text(), f"{name}.yml"


def speculation(recipe):
    return recipe["serve"]["arguments"].get("speculative-config")


@every_recipe
def test_it_is_whole_and_valid_and_needs_no_exception(recipe):
    assert recipes.validate(recipe, f"{recipe['name']}.yml") == []
    assert "extends" not in recipe
    assert recipe["serve"]["unchecked"] == []
    assert recipe["description"].endswith(".")


@every_recipe
def test_it_is_commented(recipe):
    text = (ROOT / "recipes" / f"{recipe['name']}.yml").read_text()
    assert re.match(r"---\n# \S.*\n", text)


@every_recipe
def test_the_model_has_a_name_and_not_a_path(recipe):
    assert re.fullmatch(r"[a-z0-9.-]+", recipe["serve"]["arguments"]["served-model-name"])


@every_recipe
def test_a_stop_lets_running_answers_end(recipe):
    assert recipe["serve"]["arguments"]["shutdown-timeout"] >= 60


@every_recipe
def test_what_is_expected_can_fail_and_does_not_by_chance(recipe):
    expect, config = recipe["expect"], speculation(recipe)
    if config is None:
        assert expect == {"acceptance_floor": 0.0, "minimum_drafts": 0}
        return
    assert expect["acceptance_floor"] >= 0.3 and expect["minimum_drafts"] >= 200
    for figure in recipe["published"]["figures"]:
        if figure["num_speculative_tokens"] == config["num_speculative_tokens"] and figure["rates"]:
            rate = figure["rates"][0]
            error = math.sqrt(rate * (1 - rate) / expect["minimum_drafts"])
            assert expect["acceptance_floor"] < rate - 3 * error


@every_recipe
def test_its_figures_have_a_source_and_its_depth_is_what_paid(recipe):
    published = recipe["published"]
    assert re.search(r"https://\S+", published["source"])
    assert recipe_rules.depth(recipe["serve"]["arguments"]) <= published["deepest"]
    for figure in published["figures"]:
        assert figure["rates"] or figure["tokens_per_second"] > 0, "a figure says something"


@every_recipe
def test_a_lock_can_be_made_of_it(recipe, tmp_path, monkeypatch):
    reference = parse_reference(recipe["image"]["reference"])
    with lab_hub(tmp_path / "hub") as hub, depot() as server:
        monkeypatch.setattr(registry, "DOCKER_HUB_API", server.url)
        server.manifests[f"{reference.repository}:{reference.tag}"] = b'{"schemaVersion": 2}'
        for number, model in enumerate(recipe["models"].values()):
            revision = model["revision"]
            commit = revision if re.fullmatch(recipes.COMMIT, revision) else str(number) * 40
            hub.add(model["repository"], {"config.json": b"{}"}, commit=commit)
        parameters = dict.fromkeys(("registry_username", "registry_password", "hub_token"))
        parameters |= {"registry_mirrors": [], "hub_endpoint": hub.url, "raw_endpoint": f"{server.url}/raw"}
        upstream = recipe_lock.Upstream(parameters, patient=False)
        # What is built has no digest but the one that its build gives.
        built = "build" in recipe["image"]
        before = resolve.with_image(recipe, {}, f"sha256:{'7' * 64}")[0] if built else None
        resolution = resolve.resolve(recipe, upstream, recipe_lock.Cache(str(tmp_path / "cache")), before)
    lock, problems = locks.parse(locks.render(resolution.lock), "lock.yml")
    assert problems == []
    assert locks.against(recipe, lock) == []
    assert lock["recipe"] == recipe["name"] and set(lock["models"]) == set(recipe["models"])


# -- what single ones are for


GEMMA_MTP_ON_A_RELEASE = [
    name
    for name, recipe in RECIPES.items()
    if (speculation(recipe) or {}).get("method") == "mtp"
    and "draft" in recipe["models"]
    and not recipe["patches"]
]


def test_the_catalogue_has_what_the_recipes_author_names():
    assert {
        "huihui-gemma4-mtp-n1", "huihui-gemma4-mtp-n1-release", "huihui-gemma4-mtp-n1-nightly",
        "huihui-gemma4-mtp-n1-main", "gemma4-mtp-n4", "huihui-gemma4-eagle3", "qwen3.6-35b-a3b", "huihui-gemma4-batch",
    } <= set(RECIPES)  # fmt: skip
    assert len(GEMMA_MTP_ON_A_RELEASE) >= 4


@pytest.mark.parametrize("name", GEMMA_MTP_ON_A_RELEASE)
def test_without_the_patch_a_vllm_that_breaks_or_lacks_the_draft_is_refused_with_the_reason(name):
    rules = RECIPES[name]["image"]["refused"]
    for version in ("0.25.0", "0.25.1", "0.26.0", "0.26.1rc1.dev20+g0123abc"):
        assert "vLLM issue 48848" in str(recipe_rules.refused(rules, version))
    assert "lacks gemma4_mtp.py" in str(recipe_rules.refused(rules, "0.20.2rc1.dev49+g9b4e83934"))
    for version in ("0.21.0", "0.24.0", "0.28.0", "0.30.0", "0.34.0.dev1"):
        assert recipe_rules.refused(rules, version) is None


GEMMA_ON_A_RELEASE = [name for name, recipe in RECIPES.items() if "gemma4" in name and not recipe["patches"]]


@pytest.mark.parametrize("name", GEMMA_ON_A_RELEASE)
def test_a_vllm_that_cannot_load_gemma_is_refused_whatever_the_draft(name):
    rules = RECIPES[name]["image"]["refused"]
    for version in ("0.27.0", "0.27.1", "0.27.2rc1.dev3+g0123abc"):
        assert "AmbiguousGlobalPerLayerAttributeError" in str(recipe_rules.refused(rules, version))
    assert recipe_rules.refused(rules, "0.28.0") is None and len(GEMMA_ON_A_RELEASE) >= 6


def test_a_vllm_whose_prefix_cache_spoils_the_answers_of_qwen_is_refused():
    recipe = RECIPES["qwen3.6-35b-a3b"]
    assert recipe["serve"]["arguments"]["enable-prefix-caching"] is True
    for version in ("0.16.0", "0.28.0", "0.29.1"):
        assert "wrong tokens" in str(recipe_rules.refused(recipe["image"]["refused"], version))
    for version in ("0.30.0", "0.33.0"):
        assert recipe_rules.refused(recipe["image"]["refused"], version) is None


def test_a_recipe_of_a_users_own_that_takes_a_refused_release_is_refused():
    base = (ROOT / "recipes" / "huihui-gemma4-mtp-n1-release.yml").read_text()
    text = base.replace("vllm-openai:v0.30.0", "vllm-openai:v0.26.0")
    assert text != base
    _none, (problem,) = recipes.parse(text, "huihui-gemma4-mtp-n1-release.yml", find)
    assert problem.key == "image.reference" and "48848" in str(problem)


@pytest.mark.parametrize("name", ["release", "nightly", "main"])
def test_without_the_patch_it_differs_from_the_preview_in_image_and_patch_only(name):
    preview, release = RECIPES["huihui-gemma4-mtp-n1"], RECIPES[f"huihui-gemma4-mtp-n1-{name}"]
    assert release["patches"] == [] and preview["patches"]
    for key in ("models", "expect", "published"):
        assert release[key] == preview[key]
    arguments = dict(preview["serve"]["arguments"])
    del arguments["trust-remote-code"]
    assert release["serve"]["arguments"] == arguments


def test_the_draft_of_qwen_comes_with_its_body():
    recipe = RECIPES["qwen3.6-35b-a3b"]
    assert set(recipe["models"]) == {"body"}
    assert speculation(recipe)["method"] == "mtp" and "model" not in speculation(recipe)
    assert recipe["expect"]["minimum_drafts"] == 200


UNITS = {name: recipe for name, recipe in RECIPES.items() if recipe.get("topology")}


def test_the_catalogue_has_models_for_two_sparks_and_for_four():
    assert {recipe["topology"]["nodes"] for recipe in UNITS.values()} == {2, 4}


@pytest.mark.parametrize("name", UNITS)
def test_a_recipe_of_several_sparks_says_how_many_and_reaches_rdma(name):
    recipe = UNITS[name]
    assert name.endswith(f"-{recipe['topology']['nodes']}x")
    assert recipe["serve"]["devices"] == ["/dev/infiniband"] and recipe["serve"]["ulimits"]["memlock"] == -1
    assert "not been run here" in (ROOT / "recipes" / f"{name}.yml").read_text().replace("\n# ", " ")


def test_the_recipe_that_the_documentation_extends_is_valid():
    page = (ROOT / "docs" / "recipes.md").read_text()
    (text,) = re.findall(r"^    name: mine\n(?:    .*\n)+", page, re.M)
    recipe, problems = recipes.parse(textwrap.dedent(text), "mine.yml", find)
    assert problems == []
    assert speculation(recipe) is None and "draft" not in recipe["models"] and "published" not in recipe


@pytest.mark.parametrize("page", ["docs/recipes.md", "README.md"])
def test_every_recipe_is_on_the_page(page):
    text = (ROOT / page).read_text()
    assert [name for name in RECIPES if f"`{name}`" not in text] == []
