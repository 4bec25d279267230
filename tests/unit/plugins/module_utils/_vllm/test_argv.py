from __future__ import annotations

import json

import pytest
from ansible_collections.sparkfleet.vllm.plugins.module_utils._vllm.argv import (
    ArgumentsError,
    options,
    render,
    shutdown_timeout,
)


def test_order_of_the_mapping_is_the_order_of_argv():
    assert render({"max-model-len": 8192, "kv-cache-dtype": "fp8"}) == [
        "--max-model-len", "8192", "--kv-cache-dtype", "fp8",
    ]  # fmt: skip


def test_switches_take_both_values_and_null_leaves_out():
    assert render({"enable-prefix-caching": True, "trust-remote-code": False, "port": None}) == [
        "--enable-prefix-caching", "--no-trust-remote-code",
    ]  # fmt: skip


def test_nested_values_are_one_json_word():
    value = {
        "method": "mtp",
        "model": "/models/草稿 x",
        "num_speculative_tokens": 1,
        "deep": {"on": True, "none": None},
    }
    name, word = render({"speculative-config": value})
    assert name == "--speculative-config"
    assert json.loads(word) == value
    assert word.startswith(
        '{"method":"mtp","model":'
    )  # compact: one spelling, so a comparison is one of text


def test_lists_are_several_values_of_one_option():
    assert render({"served-model-name": ["a", "b"]}) == ["--served-model-name", "a", "b"]


@pytest.mark.parametrize(
    ("name", "values", "argv"),
    [
        (
            "allowed-origins",
            ["https://a.example", "https://b.example"],
            ["--allowed-origins", '["https://a.example","https://b.example"]'],
        ),
        ("middleware", ["a.One", "a.Two"], ["--middleware", "a.One", "--middleware", "a.Two"]),
        ("disable-access-log-for-endpoints", ["/a", "/b"], ["--disable-access-log-for-endpoints", "/a,/b"]),
    ],
)
def test_lists_are_written_as_vllm_reads_them(name, values, argv):
    assert render({name: values}) == argv
    assert options([*argv, "--seed", "1"]) == {
        name: ("a.One", "a.Two") if name == "middleware" else tuple(argv[1:]),
        "seed": ("1",),
    }


@pytest.mark.parametrize("name", ["--port", "max_model_len!", "-p", "", "Port", 8000])
def test_a_name_that_is_no_long_option_is_refused_with_the_right_one(name):
    with pytest.raises(ArgumentsError, match="long option name"):
        render({name: 1})


def test_the_nearest_spelling_is_suggested():
    with pytest.raises(ArgumentsError, match="'max-model-len'"):
        render({"--max_model_len": 8192})


def test_a_secret_never_enters_argv():
    with pytest.raises(ArgumentsError, match="vllm_serve_api_key") as caught:
        render({"api-key": "s3cret"})
    assert "s3cret" not in str(caught.value)


def test_a_value_without_a_text_form_is_refused():
    with pytest.raises(ArgumentsError, match="bad: expected"):
        render({"bad": object()})


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        ([], {}),
        (["/m", "--port", "8000"], {"": ("/m",), "port": ("8000",)}),
        (["--port=8000", "--a=b=c"], {"port": ("8000",), "a": ("b=c",)}),
        (["--max_model_len", "1"], {"max-model-len": ("1",)}),
        (["--a", "--no-b", "-sc", "{}"], {"a": (), "b": ("false",), "sc": ("{}",)}),
        (["--a", "1", "--a", "2"], {"a": ("2",)}),
        (["--a", "--no-a"], {"a": ("false",)}),
        (["--seed", "-1"], {"seed": ("-1",)}),
        (["--names", "x", "y"], {"names": ("x", "y")}),
    ],
)
def test_any_argv_by_option(argv, expected):
    assert options(argv) == expected


def test_what_was_rendered_is_read_back():
    arguments = {"a": "1", "b": True, "c": False, "d": ["x", "y"], "e": {"k": 1}}
    assert options(render(arguments)) == {
        "a": ("1",),
        "b": (),
        "c": ("false",),
        "d": ("x", "y"),
        "e": ('{"k":1}',),
    }


@pytest.mark.parametrize(
    ("argv", "seconds"),
    [
        (["/models/body", "--port", "8000"], 0),
        (["/models/body", "--shutdown-timeout", "120", "--port", "8000"], 120),
        (["--shutdown-timeout=120", "--shutdown-timeout", "60"], 60),
        (["--shutdown_timeout", "120"], 120),
        (["--hf-overrides", '{"note":"--shutdown-timeout 120"}'], 0),
        (["--shutdown-timeout", "soon"], 0),
        (["--shutdown-timeout", "-1"], 0),
        (["--shutdown-timeout"], 0),
    ],
)
def test_how_long_a_server_lets_running_answers_end(argv, seconds):
    assert shutdown_timeout(argv) == seconds
