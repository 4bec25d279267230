from __future__ import annotations

import copy
import json
import re
from typing import Any

import pytest
from ansible_collections.sparkfleet.vllm.plugins.module_utils._recipe import recipe as recipes
from ansible_collections.sparkfleet.vllm.plugins.module_utils._recipe.document import dotted, load
from ansible_collections.sparkfleet.vllm.plugins.module_utils._recipe.recipe import parse, validate
from ansible_collections.sparkfleet.vllm.plugins.module_utils._recipe.schema import Key, nearest
from ansible_collections.sparkfleet.vllm.plugins.module_utils._vllm import options
from helpers.recipe import ROOT, SHIPPED

FILE = "recipes/huihui-gemma4-mtp-n1.yml"
TEXT = SHIPPED.read_text()


@pytest.fixture
def recipe():
    return copy.deepcopy(load(TEXT, FILE).data)


def put(data, path, value):
    *parents, last = path
    for part in parents:
        data = data[part]
    if value is ...:
        del data[last]
    else:
        data[last] = value


def problems_of(data):
    return {problem.key: problem for problem in validate(data, FILE)}


def test_the_shipped_recipe_is_the_recipe():
    recipe, problems = parse(TEXT, FILE)
    assert problems == []
    draft = "/models/gemma-4-26B-A4B-it-assistant"
    assert recipe["image"]["reference"] == "vllm/vllm-openai:gemma4-0505-arm64-cu130"
    assert (
        recipe["models"]["body"]["repository"] == "coolthor/Huihui-gemma-4-26B-A4B-it-abliterated-FP8-Dynamic"
    )
    assert recipe["models"]["body"]["revision"] == "c4bbb7689dc16de4aaa468647625a5a02f98e22f"
    assert recipe["models"]["draft"] == {
        "repository": "google/gemma-4-26B-A4B-it-assistant", "revision": "main", "mount": draft,
    }  # fmt: skip
    assert recipe["patches"] == [
        {
            "name": "gemma4_mtp.py",
            "repository": "vllm-project/vllm",
            "commit": "27e0057aeda6bc443069c20fdf2f3cc95ed892f3",
            "path": "vllm/model_executor/models/gemma4_mtp.py",
            "target": "/usr/local/lib/python3.12/dist-packages/vllm/model_executor/models/gemma4_mtp.py",
            "tried_with": ["vllm/vllm-openai:gemma4-0505-arm64-cu130"],
        }
    ]
    assert recipe["serve"]["port"] == 8000
    assert recipe["serve"]["arguments"] == {
        "speculative-config": {"method": "mtp", "model": draft, "num_speculative_tokens": 1},
        "kv-cache-dtype": "fp8",
        "gpu-memory-utilization": 0.65,
        "max-model-len": 8192,
        "limit-mm-per-prompt": {"image": 0, "audio": 0, "video": 0},
        "enable-auto-tool-choice": True,
        "tool-call-parser": "gemma4",
        "enable-prefix-caching": True,
        "trust-remote-code": True,
        "shutdown-timeout": 120,
        "served-model-name": "huihui-gemma4",
        "host": "0.0.0.0",
    }
    assert recipe["expect"] == {"acceptance_floor": 0.40, "minimum_drafts": 200}


@pytest.mark.parametrize(
    ("path", "wrong", "right"),
    [
        (("modles",), {}, "models"),
        (("image", "refrence"), "x", "reference"),
        (("models", "drafft"), {}, "draft"),
        (("models", "body", "Revision"), "main", "revision"),
        (("patches", 0, "tried-with"), [], "tried_with"),
        (("serve", "argumets"), {}, "arguments"),
        (("expect", "acceptance_flour"), 0.4, "acceptance_floor"),
        (("serve", "arguments", "max_model_len"), 8192, "max-model-len"),
        (("serve", "arguments", "Max-Model-Len"), 8192, "max-model-len"),
        (("serve", "arguments", "speculative-config", "num_speculative_token"), 1, "num_speculative_tokens"),
    ],
)
def test_a_misspelled_key_names_file_key_and_the_nearest_valid_key(recipe, path, wrong, right):
    put(recipe, path, wrong)
    correct = (*path[:-1], right)
    parent = recipe
    for part in path[:-1]:
        parent = parent[part]
    parent.pop(right, None)
    (problem,) = [p for p in validate(recipe, FILE) if p.key == dotted(path)]
    assert (problem.source, problem.nearest) == (FILE, right)
    assert str(problem).startswith(f"{FILE}: {dotted(path)}: ")
    assert f"nearest valid key: {right}" in str(problem)
    # The misspelling is the one problem: what it stands for is not reported missing as well.
    assert dotted(correct) not in problems_of(recipe)


def test_a_key_like_no_other_names_the_valid_ones(recipe):
    recipe["models"]["zzz"] = {}
    assert "valid keys: body, draft" in str(problems_of(recipe)["models.zzz"])


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        (("serve", "port"), "8000", "a whole number, seen the text '8000'"),
        (("serve", "port"), True, "seen the boolean true"),
        (("serve", "port"), 8000.5, "a whole number"),
        (("serve", "port"), 70000, "1 to 65535"),
        (("models", "draft", "revision"), 1.0, "put it in quotes"),
        (("models", "draft"), "google/x", "a mapping"),
        (("models", "body", "repository"), "just-a-name", "owner/name"),
        (("models", "body", "mount"), "models/x", "an absolute path"),
        (("models", "body", "mount"), "/models/../x", "an absolute path"),
        (("models", "body", "mount"), "/models/gemma-4-26B-A4B-it-assistant", None),
        (("image", "reference"), "vllm/vllm-openai", "a tag or a digest"),
        (("image", "reference"), "VLLM/x:y", "an image reference"),
        (("image", "entrypoint"), "vllm serve", "a list of text"),
        (
            ("image", "entrypoint"),
            [],
            "words that end in vllm, serve, which the serve arguments are for, seen: none",
        ),
        (("image", "entrypoint"), ["/run.sh"], "seen: /run.sh"),
        (("image", "entrypoint"), ["", "vllm", "serve"], "words that end in vllm, serve"),
        (("image", "entrypoint"), ["vllm", "serve", "--x"], "words that end in vllm, serve"),
        (("image", "caches"), ["/root/.triton"], "a mapping"),
        (
            ("image", "caches"),
            {"../x": "/root/x"},
            "names of small letters, digits, '-' and '_', seen '../x'",
        ),
        (
            ("image", "caches"),
            {"b12x": True},
            "a directory of the container for b12x, or false to keep none, seen the boolean true",
        ),
        (("image", "caches"), {"b12x": False}, "seen false, which is for vllm, flashinfer, triton, tilelang"),
        (
            ("image", "caches"),
            {"b12x": "/usr/lib/x"},
            "such as /root/.cache/b12x, seen the system's /usr/lib/x",
        ),
        (("image", "caches"), {"b12x": "/root"}, "the system's /root"),
        (("image", "caches"), {"b12x": "/root/x:rw"}, "an absolute path"),
        (
            ("serve", "devices"),
            ["infiniband"],
            "paths below /dev, such as /dev/infiniband, seen the text 'infiniband'",
        ),
        (("serve", "devices"), ["/dev/../etc"], "paths below /dev"),
        (("serve", "devices"), ["/dev/"], "paths below /dev"),
        (("serve", "devices"), ["/var/run/docker.sock"], "paths below /dev"),
        (("serve", "devices"), "/dev/infiniband", "a list of text"),
        (("serve", "devices"), ["/dev/infiniband:/dev/x"], "paths below /dev"),
        (("serve", "devices"), ["/dev/dri", "/dev/dri"], "each device once"),
        (("serve", "ulimits"), ["memlock=-1"], "a mapping, seen a list"),
        (
            ("serve", "host_environment"),
            {"X": "{{ x }}"},
            "one of address, interface, name for X, seen the text '{{ x }}'",
        ),
        (
            ("serve", "host_environment"),
            {"X": ["name"]},
            "one of address, interface, name for X, seen a list",
        ),
        (("serve", "host_environment"), {"X-Y": "name"}, "names of letters, digits and '_'"),
        (("serve", "host_environment"), {"HF_TOKEN": "name"}, "is a secret"),
        (("patches",), {}, "a list of mappings"),
        (("patches", 0), "gemma4_mtp.py", "a mapping"),
        (("patches", 0, "commit"), "27e0057", "40 lower-case hex digits"),
        (("patches", 0, "commit"), "27E0057AEDA6BC443069C20FDF2F3CC95ED892F3", "40 lower-case hex digits"),
        (("patches", 0, "path"), "../vllm/x.py", "inside the repository"),
        (("patches", 0, "name"), "a/b.py", "a file name"),
        (("patches", 0, "target"), "/usr/lib/other.py", "a file named gemma4_mtp.py"),
        (("patches", 0, "tried_with"), ["vllm"], "a tag or a digest"),
        (("patches", 0, "tried_with", 0), 5, "text"),
        (("serve", "environment"), {"VLLM_X": 1}, "put it in quotes"),
        (("serve", "environment"), {"HF_TOKEN": "x"}, "a secret"),
        (("serve", "arguments", "kv-cache-dtype"), True, "expected a value"),
        (("serve", "arguments", "enable-prefix-caching"), "yes", "true or false"),
        (("serve", "arguments", "gpu-memory-utilization"), "0.65", "a number"),
        (("serve", "arguments", "max-num-seqs"), True, "expected a value"),
        (("serve", "arguments", "hf-overrides.rope_theta"), 1, "a mapping"),
        (("serve", "arguments", "gpu-memory-util"), 0.9, "the beginning of gpu-memory-utilization"),
        (
            ("serve", "arguments", "spec"),
            {},
            "spec-method and spec-model and spec-tokens and speculative-config",
        ),
        (("serve", "arguments", "api-k"), "x", "the beginning of api-key"),
        (("serve", "arguments", "api_key"), "x", "with '-' between them"),
        (("serve", "arguments", "proxy-password"), "x", "a secret"),
        (("serve", "arguments", "max-model-len"), None, "seen none"),
        (("serve", "arguments", "speculative-config"), "{}", "a mapping"),
        (("serve", "arguments", "model"), "/x", "models.body.mount"),
        (("serve", "arguments", "port"), 1, "serve.port"),
        (("serve", "arguments", "api-key"), "x", "a recipe is public"),
        (("serve", "arguments", "host"), "127.0.0.1", "vllm_serve_bind"),
        (("serve", "arguments", "hos"), "127.0.0.1", "the beginning of host"),
        (("serve", "arguments", "uds"), "/run/vllm.sock", "over HTTP"),
        (("serve", "arguments", "grpc"), True, "over HTTP"),
        (("serve", "arguments", "api-server-count"), 0, "without an API"),
        (("serve", "arguments", "ssl-certfile"), "/c.pem", "plain HTTP"),
        (("serve", "arguments", "no-enable-prefix-caching"), True, "enable-prefix-caching: false"),
        (("serve", "arguments", "speculative-config", "num_speculative_tokens"), 0, "1 to 64"),
        (("serve", "arguments", "speculative-config", "num_speculative_tokens"), "1", "a whole number"),
        (("serve", "arguments", "speculative-config", "model"), "google/x", "the mount of a model"),
        (("expect", "acceptance_floor"), 40, "0 to 1"),
        (("expect", "minimum_drafts"), -1, "0 to"),
        (("name",), "other", "the file's own name"),
        (("name",), "Big Name", "lower-case letters"),
    ],
)
def test_a_wrong_value_says_what_was_expected_and_seen(recipe, path, value, says):
    put(recipe, path, value)
    key = "models.draft.mount" if says is None else dotted(path)
    problems = problems_of(recipe)
    assert key in problems, list(problems)
    assert (says or "a mount of its own") in str(problems[key])


@pytest.mark.parametrize(
    "path",
    [
        ("name",), ("image",), ("image", "reference"), ("models",), ("models", "body"), ("serve",),
        ("models", "body", "repository"), ("models", "draft", "revision"), ("models", "draft", "mount"),
        ("patches", 0, "name"), ("patches", 0, "commit"), ("patches", 0, "path"), ("serve", "arguments"),
        ("serve", "arguments", "speculative-config", "num_speculative_tokens"),
        ("serve", "arguments", "speculative-config", "model"),
    ],
    ids=dotted,
)  # fmt: skip
def test_a_missing_value_is_named(recipe, path):
    put(recipe, path, ...)
    assert "required and missing" in str(problems_of(recipe)[dotted(path)])


@pytest.mark.parametrize(
    "path", [("models", "body", "mount"), ("serve", "port"), ("image",), ("patches",)], ids=dotted
)
def test_a_key_without_a_value_is_named(recipe, path):
    put(recipe, path, None)
    assert "seen no value" in str(problems_of(recipe)[dotted(path)])


def test_every_problem_comes_at_once_with_its_line():
    text = (
        TEXT.replace("port: 8000", "prt: 8000")
        .replace("max-model-len: 8192", "max-model-len: 8192\n    max_model_len: 1")
        .replace("acceptance_floor: 0.40", "acceptance_floor: forty")
    )
    _none, problems = parse(text, FILE)
    where = {problem.key: problem.line for problem in problems}
    lines = text.splitlines()
    for key, word in {
        "serve.prt": "prt:", "serve.arguments.max_model_len": "max_model_len:", "expect.acceptance_floor": "forty",
    }.items():  # fmt: skip
        assert word in lines[(where[key] or 0) - 1]
    assert str(problems[0]).startswith(f"{FILE}:{problems[0].line}: ")
    assert _none == {}


@pytest.mark.parametrize(
    ("old", "new", "key", "says"),
    [
        ("kv-cache-dtype: fp8", "kv-cache-dtype: on", "serve.arguments.kv-cache-dtype", "reads on as a boolean"),
        ("enable-prefix-caching: true", "enable-prefix-caching: yes",
         "serve.arguments.enable-prefix-caching", "write true or false"),
        ("revision: main", "revision: 2026-05-05", "models.draft.revision", "as a date"),
        ("port: 8000", "port: 8_000", "serve.port", "as the number 8000"),
        ("port: 8000", "port: 1:30", "serve.port", "as the number 90"),
        ("port: 8000", "port: 0o17", "serve.port", "a whole number"),
        ("port: 8000", "port: !vault x", "serve.port", "the tag !"),
        ("acceptance_floor: 0.40", "acceptance_floor: .inf", "expect.acceptance_floor", "its own kind"),
        ("port: 8000", "port: 8000\n  port: 8001", "serve.port", "given twice, first in line"),
        ("  port: 8000", "  on: 8000", "serve.on", "quote it"),
    ],
)  # fmt: skip
def test_what_yaml_reads_differently_is_told_with_its_line(old, new, key, says):
    assert old in TEXT
    _none, problems = parse(TEXT.replace(old, new, 1), FILE)
    found = [problem for problem in problems if problem.key == key]
    assert len(found) == 1, [str(p) for p in problems]
    assert says in str(found[0])
    assert found[0].line is not None


@pytest.mark.parametrize(
    ("text", "says", "line"),
    [
        ("name: a\n  image: b\n", "not valid YAML", 2),
        ("name: [a\n", "not valid YAML", 2),
        ("name: 'a\n", "not valid YAML", 2),
        ("name: \x07\n", "not valid YAML", None),
        ("a: 1\n---\nb: 2\n", "not valid YAML", 2),
        ("a: &x [*x]\n", "contains itself", 1),
        ("? [a]\n: b\n", "expected text as a key", 1),
        ("- a\n", "expected a mapping, seen a list", 1),
        ("", "the file is empty", None),
        ("# nothing\n", "the file is empty", None),
    ],
)
def test_what_is_no_yaml_or_no_recipe_is_told_with_its_line(text, says, line):
    recipe, problems = parse(text, FILE)
    assert recipe == {}
    assert says in str(problems[0])
    assert problems[0].line == line


def test_without_speculation_there_is_no_draft_and_nothing_is_expected_of_one(recipe):
    del recipe["models"]["draft"]
    del recipe["serve"]["arguments"]["speculative-config"]
    assert "expected 0 or nothing without" in str(problems_of(recipe)["expect.acceptance_floor"])
    del recipe["expect"]
    assert validate(recipe, FILE) == []
    filled = recipes.complete(recipe)
    assert filled["expect"] == {"acceptance_floor": 0.0, "minimum_drafts": 0}
    assert "draft" not in filled["models"]
    assert validate(filled, FILE) == []


def test_speculation_is_never_judged_on_no_drafts_at_all(recipe):
    recipe["expect"]["minimum_drafts"] = 0
    assert "expected at least 1 with a speculative-config" in str(
        problems_of(recipe)["expect.minimum_drafts"]
    )


def test_speculation_without_a_draft_needs_no_model(recipe):
    del recipe["models"]["draft"]
    del recipe["published"]
    recipe["serve"]["arguments"]["speculative-config"] = {"method": "ngram", "num_speculative_tokens": 3}
    assert validate(recipe, FILE) == []


@pytest.mark.parametrize("method", ["mtp", "qwen3_5_mtp", "ngram", "suffix"])
def test_a_draft_that_comes_with_the_body_needs_no_model_of_its_own(recipe, method):
    del recipe["models"]["draft"]
    recipe["serve"]["arguments"]["speculative-config"] = {"method": method, "num_speculative_tokens": 1}
    assert validate(recipe, FILE) == []
    assert recipes.complete(recipe)["expect"]["minimum_drafts"] == 200


@pytest.mark.parametrize(
    ("method", "key", "says"),
    [
        ("eagle3", "model", "method eagle3 takes a draft of its own; add models.draft"),
        ("draft_model", "model", "takes a draft of its own"),
        (None, "method", "there is no draft that would tell it"),
    ],
)
def test_a_method_that_takes_a_draft_is_not_without_one(recipe, method, key, says):
    del recipe["models"]["draft"]
    config = {"num_speculative_tokens": 1} | ({"method": method} if method else {})
    recipe["serve"]["arguments"]["speculative-config"] = config
    assert says in str(problems_of(recipe)[f"serve.arguments.speculative-config.{key}"])


@pytest.mark.parametrize("name", ["spec-method", "spec-model", "spec-tokens"])
def test_speculation_is_said_in_one_place(recipe, name):
    recipe["serve"]["arguments"][name] = 4
    assert "write speculative-config:" in str(problems_of(recipe)[f"serve.arguments.{name}"])


# -- what is published, and what is refused

PUBLISHED: dict[str, Any] = {
    "source": "somebody, on one Spark",
    "deepest": 1,
    "because": "two are not better",
    "figures": [{"num_speculative_tokens": 1, "tokens_per_second": 52.6, "rates": [0.69]}],
}


@pytest.mark.parametrize(
    ("path", "value", "key", "says"),
    [
        (("source",), ..., "published.source", "required and missing"),
        (("source",), " ", "published.source", "expected a few words"),
        (("because",), ..., "published.because", "required and missing beside deepest"),
        (("deepest",), ..., "published.deepest", "required and missing beside because"),
        (("deepest",), -1, "published.deepest", "0 to 64"),
        (("figures", 0, "rates"), [0.69, 0.4], "published.figures[0].rates", "expected 1, one a position, or none, seen 2"),
        (("figures", 0, "rates"), [69], "published.figures[0].rates", "from 0 to 1"),
        (("figures", 0, "rates"), ["69 %"], "published.figures[0].rates[0]", "a number"),
        (("figures",), [{"num_speculative_tokens": 2, "rates": [0.4, 0.6]}], "published.figures[0].rates", "do not rise"),
        (("figures",), [{"num_speculative_tokens": 1}] * 2, "published.figures[1].num_speculative_tokens", "1 has its figures already"),
        (("figures",), [{"rates": []}], "published.figures[0].num_speculative_tokens", "required and missing"),
    ],
)  # fmt: skip
def test_what_is_published_is_consistent(recipe, path, value, key, says):
    recipe["published"] = copy.deepcopy(PUBLISHED)
    assert validate(recipe, FILE) == []
    put(recipe["published"], path, value)
    assert says in str(problems_of(recipe)[key])


def test_unknown_figures_are_left_out_and_not_invented(recipe):
    recipe["published"] = {"source": "a model card, without a figure"}
    assert validate(recipe, FILE) == []
    assert recipes.complete(recipe)["published"] == {**recipe["published"], "figures": []}


def test_a_recipe_that_goes_deeper_than_what_it_says_paid_is_refused(recipe):
    recipe["published"] = PUBLISHED
    config = recipe["serve"]["arguments"]["speculative-config"]
    config["num_speculative_tokens"] = 2
    (problem,) = validate(recipe, FILE)
    assert problem.key == "serve.arguments.speculative-config.num_speculative_tokens"
    assert (
        "seen 2: two are not better. Published: 1 token 52.6 tok/s at 69 % (somebody, on one Spark)"
        in str(problem)
    )
    recipe["published"] = {**PUBLISHED, "deepest": 2}
    assert validate(recipe, FILE) == []


def test_an_image_whose_tag_names_a_refused_release_is_refused_with_the_reason(recipe):
    recipe["image"] |= {
        "reference": "vllm/vllm-openai:v0.26.0-cu130",
        "refused": [{"vllm": ">=0.25,<0.27", "because": "it dies at the start"}],
    }
    problem = problems_of(recipe)["image.reference"]
    assert "seen vLLM 0.26.0 in vllm/vllm-openai:v0.26.0-cu130: it dies at the start" in str(problem)
    for good in ("v0.27.0", "nightly", "gemma4-0505-arm64-cu130"):
        recipe["image"]["reference"] = f"vllm/vllm-openai:{good}"
        assert validate(recipe, FILE) == []
    recipe["image"]["refused"][0]["vllm"] = "0.25.*"
    assert "a range of releases" in str(problems_of(recipe)["image.refused[0].vllm"])


def test_defaults_are_filled_in_and_what_is_given_is_not_touched(recipe):
    for path in (("serve", "port"), ("serve", "environment"), ("description",), ("expect",), ("patches",)):
        put(recipe, path, ...)
    before = copy.deepcopy(recipe)
    filled = recipes.complete(recipe)
    assert recipe == before
    assert (filled["serve"]["port"], filled["serve"]["environment"], filled["patches"]) == (8000, {}, [])
    assert filled["expect"] == {"acceptance_floor": 0.40, "minimum_drafts": 200}
    assert validate(filled, FILE) == []
    filled["patches"].append("x")
    assert recipes.complete(recipe)["patches"] == []


def warnings_of(text: str) -> list[str]:
    heard: list[str] = []
    recipe, problems = parse(text, FILE, warn=lambda unknown: heard.append(str(unknown)))
    assert recipe and problems == []
    return heard


def test_an_option_that_is_unknown_here_is_told_and_passes():
    assert warnings_of(TEXT) == []
    wrong = TEXT.replace("kv-cache-dtype: fp8", "kv-cache-dtyp: fp8\n    swap-space: 4")
    row = 1 + wrong.splitlines().index("    kv-cache-dtyp: fp8")
    near, other = warnings_of(wrong)
    assert near == (
        f"{FILE}:{row}: serve.arguments.kv-cache-dtyp: vLLM 0.33.0 has no such option; nearest: kv-cache-dtype;"
        " the vLLM of the image decides, before anything that serves is stopped"
    )
    assert other.startswith(f"{FILE}:{row + 1}: serve.arguments.swap-space: vLLM 0.33.0 has no such option; ")


def test_nothing_is_told_of_what_the_newest_release_has():
    """Options and keys of the speculative config that came with vLLM 0.33.0."""
    newer = TEXT.replace(
        "kv-cache-dtype: fp8",
        "kv-cache-dtype: fp8\n    monokernel: true\n    sleep-mode-backend: cumem\n    watchdog-config: {timeout: 60}"
        "\n    reasoning-effort-map: {low: none}",
    ).replace(
        "method: mtp",
        "method: mtp\n      disable_lookahead_block_hashes: true\n      draft_lm_head_quantization: fp8\n      xpress_topc: 1"
        "\n      fly_window_size: 1\n      fly_entropy_threshold: 0.3\n      fly_entropy_top_k: 3",
    )
    assert warnings_of(newer) == []


def test_a_key_of_the_speculative_config_that_is_unknown_here_is_told_and_passes():
    (told,) = warnings_of(TEXT.replace("method: mtp", "method: mtp\n      draft_temprature: 0"))
    assert "speculative-config.draft_temprature: vLLM 0.33.0 has no such key" in told


def test_nothing_is_told_of_an_option_that_is_named_as_meant():
    meant = TEXT.replace("kv-cache-dtype: fp8", "swap-space: 4").replace(
        "  port: 8000", "  port: 8000\n  unchecked: [swap-space]"
    )
    assert meant.count("swap-space") == 2
    assert warnings_of(meant) == []


def test_what_is_refused_is_not_told_as_unknown_too():
    heard: list[str] = []
    _none, problems = parse(
        TEXT.replace("kv-cache-dtype: fp8", "KV-cache: fp8"),
        FILE,
        warn=lambda unknown: heard.append(str(unknown)),
    )
    assert [problem.key for problem in problems] == ["serve.arguments.KV-cache"]
    assert heard == []


def test_two_patches_cannot_share_name_or_target(recipe):
    recipe["patches"].append(dict(recipe["patches"][0]))
    assert {"patches[1].name", "patches[1].target"} <= set(problems_of(recipe))


def test_any_data_at_all_is_told_and_not_a_crash(recipe):
    junk: Any
    for junk in (
        None,
        [],
        "x",
        5,
        {},
        {"models": []},
        {"patches": [None, {"name": []}], "serve": {"arguments": []}},
    ):
        assert validate(junk, FILE)
    for key in recipe:
        for junk in (None, [], "x", 5, {}, [None], [[]], True):
            validate(recipe | {key: junk}, FILE)


def test_every_known_option_is_its_own_nearest():
    for name in options.NAMES:
        assert nearest(name.replace("-", "_").upper(), options.NAMES) == name


def rows(keys: tuple[Key, ...], prefix: str = "") -> list[str]:
    """The rows of the table in docs/recipes.md, from the declaration."""
    told = []
    for key in keys:
        name = prefix + key.name
        default = (
            "required" if key.required else "" if key.default is None else f"`{json.dumps(key.default)}`"
        )
        kind = {"strings": "list of text", "numbers": "list of numbers", "map": "mapping"}.get(
            key.kind, key.kind
        )
        told.append(f"| `{name}` | {kind} | {default} | {key.meaning} |")
        told += rows(key.keys, f"{name}[]." if key.kind == "list" else f"{name}.")
    return told


def test_the_documentation_lists_every_key_as_it_is_declared():
    page = (ROOT / "docs" / "recipes.md").read_text()
    assert re.findall(r"^\| `.*\|$", page, re.M) == rows(recipes.SCHEMA)


COMMIT = "dee37d89115db4c94a820a79a78a7828e141c910"
BUILD = {"repository": "vllm-project/vllm", "commit": COMMIT}


def test_an_image_that_is_built_fills_in_its_defaults(recipe):
    recipe["image"] = {"reference": f"sparkfleet/vllm-openai:main-{COMMIT[:12]}", "build": BUILD}
    assert validate(recipe, FILE) == []
    assert recipes.complete(recipe)["image"]["build"] == BUILD | {"dockerfile": "Dockerfile", "arguments": {}}


@pytest.mark.parametrize(
    "reference",
    [
        "sparkfleet/vllm-openai:main",
        f"sparkfleet/vllm-openai:main-{COMMIT[1:13]}",
        f"sparkfleet/vllm-openai:{COMMIT[:11]}",
        f"sparkfleet/vllm-openai:main-{COMMIT[:12]}@sha256:{'0' * 64}",
    ],
)
def test_a_tag_that_does_not_tell_its_commit_is_refused_with_one_that_does(recipe, reference):
    recipe["image"] = {"reference": reference, "build": BUILD}
    problem = problems_of(recipe)["image.reference"]
    assert f"write sparkfleet/vllm-openai:main-{COMMIT[:12]}" in str(problem)


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("commit", "main", "a whole commit"),
        ("repository", "https://github.com/vllm-project/vllm", "owner/name"),
        ("dockerfile", "../Dockerfile", "inside the repository"),
        ("arguments", {"max_jobs": 16}, "put it in quotes"),
        ("arguments", {"HF_TOKEN": "x"}, "is a secret"),
        ("arguments", {"a b": "x"}, "names of letters"),
        ("argument", {}, "nearest valid key: arguments"),
    ],
)
def test_a_build_is_held_to_its_keys(recipe, key, value, says):
    recipe["image"]["build"] = BUILD | {key: value}
    assert says in str(problems_of(recipe)[f"image.build.{key}"])


@pytest.mark.parametrize(
    ("mount", "said"),
    [
        ("/m:rw", "without ':'"),
        ("models/a", "an absolute path"),
        ("/etc", "seen the system's /etc"),
        ("/proc/1", "seen the system's /proc/1"),
        ("/usr/local/lib", "seen the system's"),
        ("/var", "seen the system's /var"),
        ("/etcetera", None),
        ("/root/models", None),
        ("/models/a", None),
    ],
)
def test_a_model_is_mounted_where_it_takes_nothing_away(recipe, mount, said):
    put(recipe, ("models", "body", "mount"), mount)
    problem = problems_of(recipe).get("models.body.mount")
    assert (problem is None) if said is None else said in str(problem)


def test_a_patch_goes_to_a_path_that_a_mount_can_name(recipe):
    put(recipe, ("patches", 0, "target"), "/usr/lib/a.py:rw")
    assert "without ':'" in str(problems_of(recipe)["patches[0].target"])


@pytest.mark.parametrize("words", [["vllm", "serve"], ["/opt/nvidia/nvidia_entrypoint.sh", "vllm", "serve"]])
def test_an_entrypoint_that_hands_on_to_vllm_serve(recipe, words):
    recipe["image"]["entrypoint"] = words
    assert validate(recipe, FILE) == []
    assert recipes.complete(recipe)["image"]["entrypoint"] == words


@pytest.mark.parametrize(
    ("caches", "mount", "key", "says"),
    [
        ({"b12x": "/root/.cache"}, None, "image.caches.b12x", "/root/.cache beside /root/.cache/vllm, which is image.caches.vllm"),
        ({"b12x": "/root/.triton/x"}, None, "image.caches.b12x", "beside /root/.triton, which is image.caches.triton"),
        ({"b12x": "/models/body/x"}, "/models/body", "image.caches.b12x", "beside /models/body, which is models.body.mount"),
        ({}, "/root/.tilelang", "models.body.mount", "which is image.caches.tilelang"),
    ],
)  # fmt: skip
def test_a_cache_has_a_place_to_itself(recipe, caches, mount, key, says):
    recipe["image"]["caches"] = caches
    if mount:
        recipe["models"]["body"]["mount"] = mount
    assert says in str(problems_of(recipe)[key])


def test_a_cache_that_is_not_kept_takes_no_place(recipe):
    recipe["image"]["caches"] = {"triton": False, "b12x": "/root/.triton", "vllm": "/home/vllm/.cache/vllm"}
    assert validate(recipe, FILE) == []


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("memlock", "-1", "a whole number"),
        ("memlock", -2, "expected -1 to"),
        ("nofile", -1, "expected 1024 to"),
        ("stack", True, "a whole number"),
        ("nproc", 1, "unknown key"),
    ],
)
def test_a_limit_that_is_none(recipe, name, value, says):
    recipe["serve"]["ulimits"] = {name: value}
    assert says in str(problems_of(recipe)[f"serve.ulimits.{name}"])


def test_devices_and_limits_of_those_who_use_a_fabric(recipe):
    recipe["serve"] |= {
        "devices": ["/dev/infiniband"],
        "ulimits": {"memlock": -1, "stack": 67108864, "nofile": 1048576},
    }
    assert validate(recipe, FILE) == []


@pytest.mark.parametrize(
    ("mount", "key", "says"),
    [
        ({"path": "x/y", "mount": "/etc/x"}, "mount", "what is mounted, such as /config/name, seen the system's /etc/x"),
        ({"path": "x/y", "mount": "/proc/1"}, "mount", "the system's /proc/1"),
        ({"path": "x/y", "mount": "config"}, "mount", "an absolute path"),
        ({"path": "x/y", "mount": "/"}, "mount", "an absolute path"),
        ({"path": "x/y", "mount": "/dev/infiniband"}, "mount", "the system's /dev/infiniband"),
        ({"path": "x/y", "mount": "/var/run/docker.sock"}, "mount", "the system's /var/run/docker.sock"),
        ({"path": "x/y", "mount": "/models/x/../y"}, "mount", "an absolute path"),
        ({"path": "/srv/x/", "mount": "/config/x"}, "path", "without '/' at its end"),
        ({"path": "x/y", "mount": "/config/x", "mode": "rw"}, "mode", "unknown key"),
        ({"path": "../y", "mount": "/config/x"}, "path", "without '..'"),
        ({"path": ".", "mount": "/config/x"}, "path", "expected a path in the store"),
        ({"path": "/etc/../x", "mount": "/config/x"}, "path", "an absolute path"),
        ({"path": "a:b", "mount": "/config/x"}, "path", "without '..' and ':'"),
        ({"mount": "/config/x"}, "path", "required and missing"),
        ({"path": "x", "mount": "/root/.triton"}, "mount", "which is image.caches.triton"),
    ],
)  # fmt: skip
def test_a_mount_that_is_none(recipe, mount, key, says):
    recipe["serve"]["mounts"] = [mount]
    assert says in str(problems_of(recipe)[f"serve.mounts[0].{key}"])


def test_two_mounts_have_two_places(recipe):
    recipe["serve"]["mounts"] = [{"path": "x", "mount": "/config"}, {"path": "/y/z", "mount": "/config/z"}]
    assert "which is serve.mounts[0].mount" in str(problems_of(recipe)["serve.mounts[1].mount"])
    recipe["serve"]["mounts"][1]["mount"] = "/configured"
    assert validate(recipe, FILE) == []


UNIT = ["vllm", "serve"]


def over(recipe, topology, entrypoint=UNIT, **arguments):
    """The recipe over several Sparks, without speculation unless `arguments` has one."""
    for path in (
        ("models", "draft"),
        ("serve", "arguments", "speculative-config"),
        ("expect",),
        ("published",),
    ):
        put(recipe, path, ...)
    recipe["topology"] = topology
    recipe["serve"]["arguments"] |= arguments
    if entrypoint:
        recipe["image"]["entrypoint"] = entrypoint
    return recipe


@pytest.mark.parametrize(
    ("topology", "whole"),
    [
        ({"nodes": 2}, (2, 2, 1)),
        ({"nodes": 4, "pipeline_parallel": 2}, (4, 2, 2)),
        ({"nodes": 4, "tensor_parallel": 1, "pipeline_parallel": 4}, (4, 1, 4)),
        ({"nodes": 1}, (1, 1, 1)),
    ],
)
def test_a_topology_is_filled_in_and_one_that_is_absent_stays_absent(recipe, topology, whole):
    assert "topology" not in recipes.complete(recipe)
    over(recipe, topology)
    assert validate(recipe, FILE) == []
    filled = recipes.complete(recipe)
    names = ("nodes", "tensor_parallel", "pipeline_parallel")
    assert filled["topology"] == dict(zip(names, whole, strict=True))
    assert validate(filled, FILE) == []


MTP = {"speculative-config": {"method": "mtp", "num_speculative_tokens": 1}}


@pytest.mark.parametrize(
    ("topology", "entrypoint", "arguments", "key", "says"),
    [
        ({"nodes": 2, "tensor_parallel": 4}, UNIT, {}, "topology", "seen 4 times 1 for 2"),
        ({"nodes": 3, "pipeline_parallel": 2}, UNIT, {}, "topology", "seen 1 times 2 for 3"),
        ({"nodes": 1, "tensor_parallel": 2}, UNIT, {}, "topology", "a Spark has one GPU, seen 2 times 1 for 1"),
        ({"nodes": 17}, UNIT, {}, "topology.nodes", "expected 1 to 16"),
        ({"tensor_parallel": 2}, UNIT, {}, "topology.nodes", "required and missing"),
        ({"nodes": 2, "pipeline_parallel": 0}, UNIT, {}, "topology.pipeline_parallel", "expected 1 to 16"),
        ({"nodes": 2}, None, {}, "image.entrypoint", "required and missing with a topology of several nodes"),
        ({"nodes": 2}, UNIT, {"distributed-executor-backend": "ray"}, "serve.arguments.distributed-executor-backend", "expected mp"),
        ({"nodes": 2, "pipeline_parallel": 2}, UNIT, MTP, "serve.arguments.speculative-config", "no speculation with pipeline_parallel 2"),
    ],
)  # fmt: skip
def test_a_topology_that_cannot_be_is_refused_with_the_reason(
    recipe, topology, entrypoint, arguments, key, says
):
    told = problems_of(over(recipe, topology, entrypoint, **arguments))
    assert says in str(told[key]) and list(told) == [key]


def test_a_unit_speculates_without_stages_and_one_spark_has_any_executor(recipe):
    assert validate(over(recipe, {"nodes": 2}, **{"distributed-executor-backend": "mp"}, **MTP), FILE) == []
    assert validate(recipe | {"topology": {"nodes": 1}}, FILE) == []
    recipe["serve"]["arguments"]["distributed-executor-backend"] = "uni"
    assert validate(recipe | {"topology": {"nodes": 1}}, FILE) == []


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("tensor-parallel-size", 1, "topology of the recipe and spark_unit of the inventory give it"),
        ("tensor-parallel-size", 2, "topology"),
        ("pipeline-parallel-size", 1, "topology"),
        ("nnodes", 2, "topology"),
        ("node-rank", 0, "topology"),
        ("headless", True, "topology"),
        ("master-addr", "192.0.2.1", "topology"),
        ("master-port", 29501, "topology"),
        ("data-parallel-size", 2, "the gateway spreads requests over Sparks better"),
        ("data-parallel-hybrid-lb", True, "the gateway"),
        ("data-parallel-backend", "mp", "the gateway"),
        ("tensor-parallel", 2, "the beginning of tensor-parallel-size"),
    ],
)
def test_what_follows_from_the_topology_is_in_no_recipe(recipe, name, value, says):
    recipe["serve"]["arguments"][name] = value
    assert says in str(problems_of(recipe)[f"serve.arguments.{name}"])
