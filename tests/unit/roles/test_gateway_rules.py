"""What the role gateway writes, in a real HAProxy: who may ask what, how much, and what a refusal says."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from helpers.gateway import KEY, OTHER_KEY
from helpers.haproxy import CHAT, Gateway, behind, eventually, gateway, needs_haproxy, stubs
from helpers.vllm_stub import Stub

pytestmark = needs_haproxy
BODY = 8 * 1024 * 1024
EMBED = "org/embed"
SERVER_KEY = "the-key-of-the-sparks"
WRONG_KEY = "sk-0000aaaaBBBBccccDDDDeeee"


@pytest.fixture(scope="module")
def sparks() -> Iterator[list[Stub]]:
    """Three that chat, and one that embeds."""
    with stubs("s1", "s2", "s3", "e1") as made:
        yield made


@pytest.fixture(scope="module")
def api(sparks: list[Stub]) -> Iterator[Gateway]:
    keys = [
        {"name": "anna", "key": KEY, "concurrent": 100, "requests_per_minute": 100_000},
        {"name": "team", "key": OTHER_KEY, "concurrent": 1, "requests_per_minute": 20},
    ]
    servers = behind(sparks[:3]) + behind(sparks[3:], EMBED, "second")
    timeouts = {"body": 1}
    with gateway(servers=servers, keys=keys, timeouts=timeouts) as made:
        yield made


@pytest.fixture
def fresh(sparks: list[Stub]) -> list[Stub]:
    for each in sparks:
        each.seen.clear()
    return sparks


def seen(sparks: list[Stub]) -> list[int]:
    return [len(each.seen) for each in sparks]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/metrics"),
        ("GET", "/docs"),
        ("GET", "/health"),
        ("POST", "/tokenize"),
        ("POST", "/invocations"),
        ("POST", "/v1/audio/transcriptions"),
        ("GET", CHAT),
        ("PUT", CHAT),
        ("OPTIONS", CHAT),
        ("POST", "/v1/models"),
        ("POST", f"{CHAT}/"),
        ("POST", f"/{CHAT}"),
        ("POST", f"/v1/../v1/{CHAT}"),
        ("POST", "/v1/%63hat/completions"),
        ("POST", CHAT.upper()),
    ],
)
def test_nothing_but_what_is_listed(api: Gateway, fresh: list[Stub], method: str, path: str) -> None:
    answer = api.request(method, path, {"model": "chat"})
    assert answer.status == 404
    assert answer.headers["content-type"] == "application/json"
    assert answer.error["message"] == f"Invalid URL ({method} {path})"
    assert answer.error["type"] == "invalid_request_error"
    assert seen(fresh) == [0, 0, 0, 0]


@pytest.mark.parametrize("path", [CHAT, "/v1/completions", "/v1/embeddings", "/v1/responses", "/v1/rerank"])
def test_what_is_listed_goes_to_the_pool_of_the_model(api: Gateway, fresh: list[Stub], path: str) -> None:
    assert api.request("POST", path, {"model": EMBED}).json == {"server": "e1"}
    assert [each[0] for each in fresh[3].seen] == [path]


@pytest.mark.parametrize(
    ("headers", "code", "says"),
    [
        ({}, None, "You didn't provide an API key"),
        ({"authorization": "Basic YTpi"}, None, "You didn't provide an API key"),
        ({"authorization": f"Bearer {WRONG_KEY}"}, "invalid_api_key", "Incorrect API key provided"),
        ({"authorization": f"Bearer {KEY[:-1]}"}, "invalid_api_key", "Incorrect API key provided"),
        ({"authorization": "Bearer "}, None, "You didn't provide an API key"),
    ],
)
def test_no_request_without_a_key(
    api: Gateway, fresh: list[Stub], headers: dict[str, str], code: str | None, says: str
) -> None:
    for method, path in (("POST", CHAT), ("GET", "/v1/models")):
        answer = api.request(method, path, {"model": "chat"}, key=None, headers=headers)
        assert answer.status == 401
        assert (answer.error["code"], answer.error["type"]) == (code, "invalid_request_error")
        assert says in answer.error["message"]
    assert seen(fresh) == [0, 0, 0, 0]


def test_the_models_are_those_of_all_pools(api: Gateway) -> None:
    answer = api.request("GET", "/v1/models")
    assert answer.json["object"] == "list"
    assert [(each["id"], each["object"]) for each in answer.json["data"]] == [
        ("chat", "model"),
        (EMBED, "model"),
    ]


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("size", [100, 1024 * 1024, BODY - 1000])
def test_the_model_is_found_behind_the_messages(
    api: Gateway, fresh: list[Stub], size: int, chunked: bool
) -> None:
    text = 'a quote " and {"model": "evil"} and é\n'
    messages = [{"role": "user", "content": (text * (size // len(text) + 1))[:size]}]
    body = json.dumps({"messages": messages, "model": EMBED}, ensure_ascii=False).encode()
    body = body[:-1].ljust(size, b" ") + b"}" if size > len(body) else body
    if len(body) > BODY:
        messages[0]["content"] = "x" * size
        body = json.dumps({"messages": messages, "model": EMBED}).encode()
    answer = api.request("POST", CHAT, body, chunked=chunked)
    assert (answer.status, answer.json) == (200, {"server": "e1"})
    assert fresh[3].seen[0][2] == len(body)


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("size", [BODY + 1, 50_000_000])
def test_a_body_that_is_too_large_reaches_no_spark(
    api: Gateway, fresh: list[Stub], size: int, chunked: bool
) -> None:
    body = b'{"model":"chat","messages":"' + b"x" * size + b'"}'
    answer = api.request("POST", CHAT, body[:size], chunked=chunked)
    assert answer.status == 413
    assert answer.error["code"] == "request_too_large"
    assert seen(fresh) == [0, 0, 0, 0]


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b'{"messages": []}', "you must provide a model parameter"),
        (b' \n{"model": null}\r\n', "you must provide a model parameter"),
        (b'{"a": {"model": "chat"}}', "you must provide a model parameter"),
        (b"", "We could not parse the JSON body"),
        (b'{"mess', "We could not parse the JSON body"),
        (b'[{"model": "chat"}]', "We could not parse the JSON body"),
        (b'"chat"', "We could not parse the JSON body"),
        (b"model=chat", "We could not parse the JSON body"),
        (b'chat: {"role": "user"}', "We could not parse the JSON body"),
        (b"\x00\xff", "We could not parse the JSON body"),
    ],
)
def test_a_body_without_a_model_reaches_no_spark(
    api: Gateway, fresh: list[Stub], body: bytes, says: str
) -> None:
    answer = api.request("POST", CHAT, body)
    assert answer.status == 400
    assert says in answer.error["message"]
    assert seen(fresh) == [0, 0, 0, 0]


@pytest.mark.parametrize("model", ["gpt", 'a "quoted" \\ one', "chat ", "Chat", "x" * 5000, "# Model"])
def test_a_model_that_nobody_serves(api: Gateway, fresh: list[Stub], model: str) -> None:
    answer = api.chat(model=model)
    assert answer.status == 404
    assert answer.error["code"] == "model_not_found"
    assert f"The model `{model[:300]}` does not exist" in answer.error["message"]
    assert seen(fresh) == [0, 0, 0, 0]


def test_a_key_has_so_many_requests_at_once_and_not_more(api: Gateway) -> None:
    first: list[Any] = []
    asking = threading.Thread(target=lambda: first.append(api.chat(key=OTHER_KEY, seconds=0.7)))
    asking.start()
    eventually(lambda: "conn_cur=1" in api.ask("@1 show table gateway:keys"), api)
    refused = api.chat(key=OTHER_KEY)
    assert refused.status == 429
    assert refused.error["code"] == "rate_limit_exceeded"
    assert int(refused.headers["retry-after"]) >= 1
    assert api.chat(key=KEY).status == 200
    asking.join()
    assert first[0].status == 200
    eventually(lambda: api.chat(key=OTHER_KEY).status == 200, api)


def test_a_key_has_so_many_requests_a_minute_and_not_more(api: Gateway) -> None:
    answers = [api.request("GET", "/v1/models", key=OTHER_KEY) for _ in range(25)]
    assert answers[0].status in (200, 429)
    assert answers[-1].status == 429
    assert "per minute" in answers[-1].error["message"]
    assert int(answers[-1].headers["retry-after"]) >= 1
    assert api.request("GET", "/v1/models", key=KEY).status == 200


def test_a_client_that_sends_its_body_too_slowly_is_let_go(api: Gateway, fresh: list[Stub]) -> None:
    with socket.create_connection(("127.0.0.1", api.port)) as client:
        head = f"POST {CHAT} HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {KEY}\r\ncontent-length: 99\r\n\r\n"
        client.sendall(head.encode() + b'{"mod')
        client.settimeout(5)
        began = time.monotonic()
        answer = client.recv(65536)
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b'"type": "timeout"' in answer
        assert 0.8 < time.monotonic() - began < 4
    assert seen(fresh) == [0, 0, 0, 0]


def test_the_key_of_a_client_reaches_no_spark(api: Gateway, fresh: list[Stub]) -> None:
    api.chat(model=EMBED)
    assert [headers for _, headers, _ in fresh[3].seen if "authorization" in headers] == []
    assert len(fresh[3].seen) == 1


def test_the_sparks_get_a_key_of_their_own(sparks: list[Stub], fresh: list[Stub]) -> None:
    with gateway(
        servers=behind(sparks[:1]), server_key=True, files={"server.key": f"servers {SERVER_KEY}\n"}
    ) as made:
        assert made.chat().status == 200
    assert [headers["authorization"] for _, headers, _ in fresh[0].seen] == [f"Bearer {SERVER_KEY}"]


def test_the_log_has_the_name_of_the_key_and_neither_key_nor_content(api: Gateway) -> None:
    api.chat("a secret question")
    api.chat(key=WRONG_KEY)
    api.request("POST", f"{CHAT}?api_key={KEY}", {"model": "gpt"})
    api.request("GET", "/metrics", key=KEY)
    api.request("POST", CHAT, b"{")
    with socket.create_connection(("127.0.0.1", api.port)) as client:
        client.sendall(f"BROKEN\r\nauthorization: Bearer {KEY}\r\n\r\n".encode())
        client.recv(65536)
    eventually(lambda: "400" in api.log.splitlines()[-1], api)
    assert "key=anna POST /v1/chat/completions" in api.log
    assert [
        word for word in (KEY, OTHER_KEY, WRONG_KEY, "secret question", "Bearer") if word in api.log
    ] == []


def test_tokens_come_one_by_one(api: Gateway) -> None:
    connection = api.connect()
    asked = {"model": "chat", "stream": True, "max_tokens": 50}
    began = time.monotonic()
    connection.request("POST", CHAT, json.dumps(asked), {"authorization": f"Bearer {KEY}"})
    answer = connection.getresponse()
    assert answer.readline() == b"data: token 0\n"
    first = time.monotonic() - began
    assert answer.read().endswith(b"data: [DONE]\n\n")
    assert first < (time.monotonic() - began) / 4
    connection.close()
