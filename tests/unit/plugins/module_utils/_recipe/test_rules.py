from __future__ import annotations

from ansible_collections.sparkfleet.vllm.plugins.module_utils._recipe import rules


def test_arguments_on_top_of_a_recipe_are_held_to_the_same_rules():
    problems = rules.argument_problems(
        {"max-model-len": 8192, "kv_cache_dtype": "fp8", "port": 1, "seed": None, "newer": 1},
        "vllm_serve",
    )
    assert {problem.key for problem in problems} == {"kv_cache_dtype", "port"}
    assert "kv-cache-dtype" in " ".join(map(str, problems))


def test_a_schedule_of_another_shape_is_no_traceback():
    for schedule, depth in (([1], 2), ([[1, 4], 3, []], 4), ("x", 2), ([{"a": 1}], 2)):
        config = {"num_speculative_tokens": 2, "num_speculative_tokens_per_batch_size": schedule}
        assert rules.depth({"speculative-config": config}) == depth
