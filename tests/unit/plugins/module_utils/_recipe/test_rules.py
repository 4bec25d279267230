from __future__ import annotations

from ansible_collections.sparkfleet.vllm.plugins.module_utils._recipe import rules


def test_arguments_on_top_of_a_recipe_are_held_to_the_same_rules():
    problems = rules.argument_problems(
        {"max-model-len": 8192, "kv_cache_dtype": "fp8", "port": 1, "seed": None, "newer": 1},
        "vllm_serve",
    )
    assert {problem.key for problem in problems} == {"kv_cache_dtype", "port"}
    assert "kv-cache-dtype" in " ".join(map(str, problems))
