# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Chat completions: what a stream holds, how fast it was, and what an error answer says."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Iterable
from typing import Any

import pytest
from ansible_collections.sparkfleet.vllm.plugins.module_utils._common import bounded
from ansible_collections.sparkfleet.vllm.plugins.module_utils._vllm import client
from ansible_collections.sparkfleet.vllm.plugins.module_utils._vllm.client import (
    Completion,
    Server,
    ServerError,
    read_stream,
    time_to_first_token,
)
from helpers.hostile_server import dribbling
from helpers.stub_server import serving


def events(*items: object) -> list[str]:
    return [
        line for item in items for line in (f"data: {item if item == '[DONE]' else json.dumps(item)}", "")
    ]


def said(text: Any, key: str = "content") -> dict[str, object]:
    return {"choices": [{"index": 0, "delta": {key: text}}]}


ROLE = {"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]}
USAGE = {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 5, "total_tokens": 14}}


def read(lines: Iterable[str], times: Iterable[float]) -> Completion:
    clock = iter(times)
    return read_stream(lines, lambda: next(clock))


def test_tokens_come_from_usage_and_time_from_the_first_text() -> None:
    # Three chunks of text hold five tokens: a chunk is an engine step, not a token.
    completion = read(
        events(ROLE, said("a"), said("b c"), said("d e"), USAGE, "[DONE]"), [10.0, 11.0, 12.0, 13.0]
    )
    assert completion == Completion(5, "ab cd e", 11.0, 13.0, pieces=4)
    assert completion.decode_rate == (5 - 1) / (13.0 - 11.0)


def test_text_of_a_reasoning_parser_is_text() -> None:
    lines = events(said("think", "reasoning_content"), said("answer"), USAGE, "[DONE]")
    assert read(lines, [1.0, 2.0]).text == "thinkanswer"


def test_a_stream_without_text_is_timed_by_its_chunks() -> None:
    assert read(events(ROLE, ROLE, USAGE, "[DONE]"), [1.0, 2.0]) == Completion(5, "", 1.0, 2.0, pieces=2)


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        (events(ROLE, said("a"), USAGE), "before .DONE."),
        (events(ROLE, said("a"), "[DONE]"), "without usage"),
        (events({"error": {"message": "EngineCore encountered an issue"}}), "EngineCore encountered"),
        (["data: <html>"], "something else than JSON"),
        (["data: " + "[" * 100_000], "something else than JSON"),
        (["data: 1"], "something else than events"),
        (events([]), "something else than events"),
        (events(said("a"), {"usage": {}}, "[DONE]"), "without usage"),
        (events(said("a"), {"usage": [7]}), "number of completion_tokens"),
        (events(said("a"), {"usage": {"completion_tokens": "7"}}), "number of completion_tokens"),
        (events(said("a"), {"usage": {"completion_tokens": -1}}), "number of completion_tokens"),
        (events(said("a"), {"usage": {"completion_tokens": True}}), "number of completion_tokens"),
    ],
)
def test_broken_streams(lines: list[str], problem: str) -> None:
    with pytest.raises(ServerError, match=problem):
        read_stream(lines)


@pytest.mark.parametrize(
    ("items", "text"),
    [
        ([{**said("a"), "error": None}, {**USAGE, "error": None}], "a"),
        (
            [said([{"type": "text", "text": "a"}, {"type": "image"}, 5, {"text": 5}, {"text": "b"}]), USAGE],
            "ab",
        ),
        ([{"choices": [{"delta": None}]}, {**said("a"), "usage": None}, USAGE], "a"),
        (
            [
                {"choices": 5},
                {"choices": [5]},
                {"choices": {"a": 1}},
                {"choices": [{"delta": 5}]},
                said(5),
                USAGE,
            ],
            "",
        ),
        ([": ping", "event: message", said("a"), USAGE], "a"),
    ],
    ids=["error null", "parts", "nulls", "other shapes", "comments"],
)
def test_forms_that_other_servers_give(items: list[Any], text: str) -> None:
    lines = [line for item in items for line in ([item] if isinstance(item, str) else events(item))]
    completion = read_stream([*lines, "data: [DONE]"])
    assert (completion.text, completion.completion_tokens) == (text, 5)


@pytest.mark.parametrize(("tokens", "span"), [(1, 1.0), (0, 1.0), (5, 0.0)])
def test_nothing_to_time(tokens: int, span: float) -> None:
    assert Completion(tokens, "x", 1.0, 1.0 + span).decode_rate is None


def test_chunks_that_follow_at_once_are_one_piece() -> None:
    """What was held back on the way comes as many chunks in a few microseconds."""
    lines = events(ROLE, *[said("a")] * 100, USAGE, "[DONE]")
    held_back = [1.0 + 3e-6 * index for index in range(101)]
    assert read(lines, held_back).pieces == 1
    assert read(lines, [*held_back[:50], *(2.0 + time for time in held_back[50:])]).pieces == 2
    steps = [1.0 + 0.025 * index for index in range(101)]
    assert read(lines, steps).pieces == 101


def test_against_a_server() -> None:
    with serving(name="m", api_key="key-12345678", acceptance=0.5) as (_, url):
        server = Server(url, "key-12345678")
        assert server.healthy()
        assert server.models() == ["m"]
        assert server.complete("m", "hello", 10).completion_tokens == 10
        streams = server.stream_all("m", ["a", "b", "c"], 200, concurrency=2)
        assert [stream.completion_tokens for stream in streams] == [200, 200, 200]
        assert all(stream.last > stream.first for stream in streams)
        with pytest.raises(ServerError, match="does not exist") as missing:
            server.stream_all("other", ["a"], 200, 1)
        assert missing.value.status == 404
        with pytest.raises(ServerError) as refused:
            Server(url).models()
        assert refused.value.status == 401


def test_a_request_knows_when_it_was_sent_and_can_be_kept_from_the_prefix_cache(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bodies: list[dict[str, Any]] = []
    request = bounded.Session.request

    def recorded(self: bounded.Session, method: str, url: str, **options: Any) -> Any:
        bodies.append(options["json"])
        return request(self, method, url, **options)

    monkeypatch.setattr(bounded.Session, "request", recorded)
    with serving(name="m", step=0.002) as (_, url):
        one, two = Server(url).stream_all("m", ["a", "a"], 200, 1, uncached=True)
        Server(url).stream_all("m", ["a"], 200, 1)
    assert one.sent is not None and two.sent is not None
    assert one.sent < one.first < one.last <= two.sent
    assert time_to_first_token(one) == one.first - one.sent
    with pytest.raises(ValueError, match="the time at which it was asked for"):
        time_to_first_token(dataclasses.replace(one, sent=None))
    salts = [body.get("cache_salt") for body in bodies]
    assert salts[0] and salts[1] and salts[0] != salts[1]
    assert salts[2] is None


OK = b"HTTP/1.1 200 OK\r\n"
TEXT = OK + b"Content-Type: text/plain\r\n\r\n"


@pytest.mark.parametrize("ask", ["healthy", "models", "metrics", "version", "complete", "stream"])
@pytest.mark.parametrize(
    ("begin", "piece"),
    [(OK, b"X-A: b\r\n"), (TEXT, b" "), (OK + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n")],
    ids=["headers", "body", "chunks"],
)
def test_an_answer_that_dribbles_without_end_is_none(
    monkeypatch: pytest.MonkeyPatch, ask: str, begin: bytes, piece: bytes
) -> None:
    monkeypatch.setattr(client, "SHORT_TIMEOUT", 0.4)
    monkeypatch.setattr(client, "ANSWER_TIMEOUT", 0.4)
    began = time.monotonic()
    with dribbling(begin, piece, every=0.05) as url:
        assert_none(Server(url), ask)
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("ask", ["complete", "stream"])
def test_who_has_no_patience_waits_no_longer_than_that_for_what_is_generated(ask: str) -> None:
    began = time.monotonic()
    with dribbling(OK, b"X-A: b\r\n", every=0.05) as url:
        assert_none(Server(url, patience=0.4), ask)
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("ask", ["models", "metrics", "version", "complete", "stream"])
@pytest.mark.parametrize("piece", [b"x" * 65536, b"x\n" * 32768], ids=["one line", "lines"])
@pytest.mark.parametrize(
    "begin", [TEXT, OK + b"Content-Length: 999999999999\r\n\r\n"], ids=["to the end", "a length"]
)
def test_an_answer_without_end_is_not_read_to_the_end(
    monkeypatch: pytest.MonkeyPatch, ask: str, begin: bytes, piece: bytes
) -> None:
    monkeypatch.setattr(client, "LIMIT", 1_000_000)
    monkeypatch.setattr(client, "LONGEST_LINE", 300_000)
    with dribbling(begin, piece, every=0) as url:
        assert_none(Server(url), ask)


def test_one_chunk_without_end_is_not_read_to_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "LONGEST_LINE", 300_000)
    begin = OK + b"Transfer-Encoding: chunked\r\n\r\nfffffffff\r\n"
    with (
        dribbling(begin, b"x" * 65536, every=0) as url,
        pytest.raises(ServerError, match="lines of at most"),
    ):
        Server(url).stream("m", "a", 10)


def assert_none(server: Server, ask: str) -> None:
    """Neither an answer nor another exception."""
    if ask == "healthy":
        assert not server.healthy()
    elif ask == "version":
        assert server.version() == ""
    else:
        arguments = ("m", "a", 10) if ask in ("complete", "stream") else ()
        with pytest.raises(ServerError):
            getattr(server, ask)(*arguments)


@pytest.mark.parametrize(
    ("path", "answer"),
    [
        ("models", b'{"data": [{"id": 5}]}'),
        ("models", b'{"data": 5}'),
        ("models", b"[" * 100_000),
        ("complete", b'{"choices": 5}'),
        ("complete", b'{"choices": [{"message": 5}], "usage": 5}'),
        ("complete", b'{"choices": [], "usage": {}}'),
        ("version", b'{"version": {"a": 1}}'),
        ("version", b"[]"),
    ],
)
def test_answers_of_another_shape(path: str, answer: bytes) -> None:
    begin = OK + b"Content-Length: %d\r\n\r\n" % len(answer)
    with dribbling(begin + answer, b"", every=0.05) as url:
        assert_none(Server(url), path)


def test_the_version() -> None:
    with serving(name="m") as (_, url):
        assert Server(url).version() == "0.32.0"
    assert Server("http://127.0.0.1:9").version() == ""


def test_no_server() -> None:
    server = Server("http://127.0.0.1:9")
    assert not server.healthy()
    with pytest.raises(ServerError, match="/v1/models: ConnectionRefusedError: .*refused") as problem:
        server.models()
    assert problem.value.status is None


def test_a_proxy_of_the_environment_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with serving(name="m") as (_, url):
        assert Server(url).models() == ["m"]
