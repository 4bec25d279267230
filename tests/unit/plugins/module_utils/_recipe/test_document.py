"""A recipe or a lock is read to its end, whoever wrote it."""

from __future__ import annotations

import pytest
from ansible_collections.sparkfleet.vllm.plugins.module_utils._recipe import document
from helpers.bounded import ends


def bomb(levels: int, width: int = 9) -> str:
    """A few lines, of which each is `width` times the one before."""
    lines = ["a0: &a0 [x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * width)}]" for n in range(1, levels + 1)]
    return "\n".join(lines) + "\n"


def test_aliases_that_stand_for_millions_of_values_are_a_problem_with_a_line():
    code = f"from {document.__name__} import load; print(*load({bomb(40)!r}, 'r.yml').problems)"
    told = ends(code)
    assert told.startswith("r.yml:") and "its aliases stand for too many values; write them out" in told
    assert len(told) < 200


def test_aliases_as_a_writer_uses_them_are_read():
    text = "one: &one {a: 1}\nothers: [" + ", ".join(["*one"] * 500) + "]\n"
    read = document.load(text, "r.yml")
    assert read.problems == [] and read.data["others"][499] == {"a": 1}


def test_a_list_without_aliases_may_be_long():
    read = document.load("a:\n" + "  - {b: 1, c: 2}\n" * 5000, "r.yml")
    assert read.problems == [] and len(read.data["a"]) == 5000


@pytest.mark.parametrize("text", ["[" * 3000, "a:\n- " + "- " * 100 + "x", bomb(60, width=1)])
def test_what_nests_without_end_is_a_problem_with_a_line(text):
    (problem,) = document.load(text, "r.yml").problems
    assert "not valid YAML: nested deeper than 50 levels" in str(problem) and problem.line


@pytest.mark.parametrize("text", ["0x_", "0b_", "0x" + "f" * 5000])
def test_what_yaml_takes_for_a_number_and_is_none_is_a_problem_with_a_line(text):
    (problem,) = document.load(f"a: {text}\n", "r.yml").problems
    assert "r.yml:1: a: YAML reads 0" in str(problem) and "in quotes" in str(problem)
