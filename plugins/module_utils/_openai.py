# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The OpenAI-compatible side of a vLLM server: readiness, models, counters, chat completions and their timing."""

from __future__ import annotations

import json
import secrets
import statistics
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

try:
    import requests

    REQUESTS_IMPORT_ERROR: str | None = None
except ImportError:
    REQUESTS_IMPORT_ERROR = traceback.format_exc()

CONNECT_TIMEOUT = 5.0
SHORT_TIMEOUT = 10.0
CHUNK_TIMEOUT = 180.0
"""Longest wait for the next piece of an answer: a first request may compile kernels for minutes."""


class ServerError(Exception):
    """The server could not be reached, or answered something else than was asked for.

    :param status: the HTTP status; None when there was no answer at all (refused, reset, silent)
    """

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Completion:
    """One answer. Times are seconds on one monotonic clock."""

    completion_tokens: int
    text: str
    first: float
    last: float
    sent: float | None = None
    """When the request went out; None for one that somebody else timed."""

    @property
    def decode_rate(self) -> float | None:
        """Tokens per second after the first; None when there was nothing to time.

        (completion_tokens - 1) / (t_last - t_first), tokens from `usage`. Chunks are never counted: under
        speculation one of them is one engine step and holds 1 to n + 1 tokens.
        """
        span = self.last - self.first
        return (self.completion_tokens - 1) / span if self.completion_tokens > 1 and span > 0 else None


def time_to_first_token(completion: Completion) -> float:
    """Seconds from sending the request to the first text of its answer.

    :raises ValueError: somebody else timed it, so nobody knows when it was sent
    """
    if completion.sent is None:
        raise ValueError("expected a completion with the time at which it was asked for, seen none")
    return completion.first - completion.sent


def decode_tokens_per_second(completions: Sequence[Completion]) -> float | None:
    """The median over streams: one stream that waited for a compile does not move it."""
    rates = [rate for completion in completions if (rate := completion.decode_rate) is not None]
    return statistics.median(rates) if rates else None


def _text(delta: dict[str, Any]) -> str:
    """What a message or its delta says; a reasoning parser moves text out of `content`."""
    return "".join(delta.get(key) or "" for key in ("reasoning_content", "reasoning", "content"))


def read_stream(lines: Iterable[str], clock: Callable[[], float] = time.monotonic) -> Completion:
    """Read the server-sent events of one streamed chat completion.

    :raises ServerError: an error event, no usage, or a stream that ends before ``[DONE]``
    """
    text: list[str] = []
    first = last = None
    opened = 0.0
    tokens: int | None = None
    for line in lines:
        if not line.startswith("data:"):
            continue
        data = line[5:].strip()
        if data == "[DONE]":
            break
        try:
            event = json.loads(data)
        except ValueError as error:
            raise ServerError(f"the stream holds something else than JSON: {data[:200]}") from error
        if "error" in event:
            raise ServerError(_error_message(event))
        if event.get("choices"):
            now = clock()
            opened = opened or now
            piece = _text(event["choices"][0].get("delta") or {})
            if piece:
                text.append(piece)
                first = first or now
            last = now
        if event.get("usage"):
            tokens = event["usage"]["completion_tokens"]
    else:
        raise ServerError("the stream ended before [DONE]: the server went away in the middle of an answer")
    if tokens is None:
        raise ServerError("the stream ended without usage (stream_options.include_usage was asked for)")
    return Completion(tokens, "".join(text), first or opened, last or opened)


def _error_message(answer: Any) -> str:
    """What an error answer says, in the forms vLLM has given it."""
    if isinstance(answer, dict):
        error = answer.get("error", answer)
        if isinstance(error, dict):
            return str(error.get("message") or error.get("detail") or error)
        return str(error)
    return str(answer)


class Server:
    """A vLLM server. Every method raises ServerError and nothing else."""

    def __init__(self, base_url: str, api_key: str | None = None) -> None:
        self._base = base_url.rstrip("/")
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}

    def healthy(self) -> bool:
        """Whether /health answers 200. Not answering is a plain no: that is what a starting server does."""
        try:
            return self._request("GET", "/health").status_code == 200
        except ServerError:
            return False

    def version(self) -> str:
        """The version that the server says it is; empty for one that does not say."""
        try:
            return str(self._json(self._request("GET", "/version"))["version"])
        except (ServerError, KeyError, TypeError):
            return ""

    def models(self) -> list[str]:
        """The names under which models are served, aliases and adapters among them."""
        answer = self._json(self._request("GET", "/v1/models"))
        try:
            return [model["id"] for model in answer["data"]]
        except (KeyError, TypeError) as error:
            raise ServerError(f"/v1/models is not a list of models: {str(answer)[:200]}") from error

    def metrics(self) -> str:
        answer = self._request("GET", "/metrics")
        if answer.status_code != 200:
            raise ServerError(f"/metrics answers {answer.status_code}", answer.status_code)
        answer.encoding = "utf-8"
        return answer.text

    def complete(self, model: str, text: str, max_tokens: int) -> Completion:
        """One chat completion as a user would ask for it: not streamed, ending where the model ends it."""
        body = self._body(model, text, max_tokens)
        started = time.monotonic()
        answer = self._json(self._request("POST", "/v1/chat/completions", json=body, timeout=CHUNK_TIMEOUT))
        try:
            said = _text(answer["choices"][0]["message"])
            tokens = answer["usage"]["completion_tokens"]
        except (KeyError, IndexError, TypeError) as error:
            raise ServerError(f"/v1/chat/completions is no completion: {str(answer)[:200]}") from error
        return Completion(tokens, said, started, time.monotonic())

    def stream(self, model: str, text: str, max_tokens: int, uncached: bool = False) -> Completion:
        """One streamed chat completion of exactly `max_tokens` tokens.

        :param uncached: let nothing of it come from the prefix cache, whatever was asked before. vLLM salts the cache
            with a string of the request; a server that does not know it computes what it would anyway
        """
        body = self._body(model, text, max_tokens) | {
            "ignore_eos": True,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if uncached:
            body["cache_salt"] = secrets.token_hex(16)
        sent = time.monotonic()
        answer = self._request("POST", "/v1/chat/completions", json=body, timeout=CHUNK_TIMEOUT, stream=True)
        try:
            if answer.status_code != 200:
                self._json(answer)
            lines = (line.decode("utf-8", "replace") for line in answer.iter_lines(chunk_size=None))
            return replace(read_stream(lines), sent=sent)
        except requests.RequestException as error:
            raise ServerError(f"/v1/chat/completions: {_plain(error)}") from error
        finally:
            answer.close()

    def stream_all(
        self, model: str, texts: Sequence[str], max_tokens: int, concurrency: int, uncached: bool = False
    ) -> list[Completion]:
        """Stream several prompts, `concurrency` at a time. The first error ends it."""
        with ThreadPoolExecutor(max_workers=concurrency) as pool:
            return list(pool.map(lambda text: self.stream(model, text, max_tokens, uncached), texts))

    @staticmethod
    def _body(model: str, text: str, max_tokens: int) -> dict[str, Any]:
        return {
            "model": model,
            "messages": [{"role": "user", "content": text}],
            "max_tokens": max_tokens,
            "temperature": 0,
        }

    def _request(
        self, method: str, path: str, timeout: float = SHORT_TIMEOUT, **options: Any
    ) -> requests.Response:
        # A session of its own for each request: none is shared between threads, and none keeps a connection
        # that the server closes just when the next request goes out.
        try:
            with requests.Session() as session:
                session.trust_env = False  # a proxy of the host has no business in front of its own server
                return session.request(
                    method,
                    self._base + path,
                    headers=self._headers,
                    timeout=(CONNECT_TIMEOUT, timeout),
                    allow_redirects=False,
                    **options,
                )
        except requests.RequestException as error:
            raise ServerError(f"{path}: {_plain(error)}") from error

    @staticmethod
    def _json(answer: requests.Response) -> Any:
        try:
            data = answer.json()
        except ValueError:
            data = answer.text.strip()[:500]
        if answer.status_code != 200:
            raise ServerError(
                f"{answer.request.path_url} answers {answer.status_code}: {_error_message(data)}",
                answer.status_code,
            )
        if isinstance(data, str):
            raise ServerError(
                f"{answer.request.path_url} answers no JSON: {data[:200]!r}", answer.status_code
            )
        return data


def _plain(error: Exception) -> str:
    """The innermost reason of a requests error; its own text is a nest of object representations."""
    cause: BaseException = error
    seen: list[BaseException] = []
    while cause not in seen:
        seen.append(cause)
        inner = getattr(cause, "reason", None) or (cause.args[0] if cause.args else None)
        if isinstance(inner, BaseException):
            cause = inner
        elif cause.__context__ is not None:
            cause = cause.__context__
    return f"{type(cause).__name__}: {cause}"
