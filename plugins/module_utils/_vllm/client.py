# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The OpenAI-compatible side of a vLLM server: readiness, models, counters, chat completions and their timing."""

from __future__ import annotations

import secrets
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from .._common import bounded, json_text

try:
    import requests
    import urllib3

    REQUESTS_IMPORT_ERROR: str | None = None
except ImportError:
    REQUESTS_IMPORT_ERROR = traceback.format_exc()

CONNECT_TIMEOUT = 5.0
SHORT_TIMEOUT = 10.0
"""Seconds for the whole of an answer that takes no work."""
CHUNK_TIMEOUT = 180.0
"""Longest wait for the next piece of an answer, in seconds: a first request may compile kernels for minutes."""
ANSWER_TIMEOUT = 3600.0
"""Seconds for the whole of an answer that is generated."""
LIMIT = 16 * 1024 * 1024
"""Bytes of an answer, and of one that is streamed. The counters of a server with many series take less than one MiB."""
LONGEST_LINE = 1024 * 1024
APART = 0.002
"""Least seconds between two pieces of an answer. Bytes that follow sooner were held back together: an engine step takes longer."""


class ServerError(Exception):
    """The server could not be reached, or its answer is not what was asked for.

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
    """When the request was sent; None if somebody else timed it."""
    pieces: int = 1
    """Number of pieces in which it came, each at least :data:`APART` after the one before."""

    @property
    def decode_rate(self) -> float | None:
        """Tokens per second after the first; None when there was nothing to time.

        (completion_tokens - 1) / (t_last - t_first), with tokens from `usage`. Chunks are never counted: with speculation, one
        chunk is one engine step and holds 1 to n + 1 tokens.
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


def _text(message: Any) -> str:
    """The text of a message or its delta. A reasoning parser moves text out of `content`, and some servers give parts."""
    if not isinstance(message, dict):
        return ""
    return "".join(_words(message.get(key)) for key in ("reasoning_content", "reasoning", "content"))


def _words(content: Any) -> str:
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    texts = [part.get("text") for part in parts if isinstance(part, dict)]
    return "".join(text for text in texts if isinstance(text, str))


def _tokens(usage: Any) -> int:
    """:raises ServerError: the usage has no count of tokens"""
    count = usage.get("completion_tokens") if isinstance(usage, dict) else None
    if not isinstance(count, int) or isinstance(count, bool) or count < 0:
        raise ServerError(f"expected usage with a number of completion_tokens, seen {str(usage)[:200]}")
    return count


def _event(data: str) -> dict[str, Any]:
    """:raises ServerError: the data is no event, or is an event about an error"""
    try:
        event = json_text.read(data, "the stream")
    except json_text.JsonError as error:
        raise ServerError(f"the stream holds something else than JSON: {data[:200]}") from error
    if not isinstance(event, dict):
        raise ServerError(f"the stream holds something else than events: {data[:200]}")
    if event.get("error"):
        raise ServerError(_error_message(event))
    return event


def read_stream(lines: Iterable[str], clock: Callable[[], float] = time.monotonic) -> Completion:
    """Read the server-sent events of one streamed chat completion.

    :raises ServerError: an error event, no usage, or a stream that ends before ``[DONE]``
    """
    text: list[str] = []
    first = last = None
    opened = piece_at = 0.0
    pieces = 0
    tokens: int | None = None
    for line in lines:
        if not line.startswith("data:"):
            continue
        data = line[5:].strip()
        if data == "[DONE]":
            break
        event = _event(data)
        choices = event.get("choices")
        if choices:
            now = clock()
            opened = opened or now
            choice = choices[0] if isinstance(choices, list) else None
            piece = _text(choice.get("delta")) if isinstance(choice, dict) else ""
            if piece:
                text.append(piece)
                first = first or now
            if not pieces or now - piece_at >= APART:
                pieces, piece_at = pieces + 1, now
            last = now
        if event.get("usage"):
            tokens = _tokens(event["usage"])
    else:
        raise ServerError("the stream ended before [DONE]: the server went away in the middle of an answer")
    if tokens is None:
        raise ServerError("the stream ended without usage (stream_options.include_usage was asked for)")
    return Completion(tokens, "".join(text), first or opened, last or opened, pieces=pieces)


def _error_message(answer: Any) -> str:
    """The message of an error answer, in the forms that vLLM has used."""
    if isinstance(answer, dict):
        error = answer.get("error", answer)
        if isinstance(error, dict):
            return str(error.get("message") or error.get("detail") or error)
        return str(error)
    return str(answer)


@dataclass(frozen=True)
class _Answer:
    path: str
    status: int
    body: bytes

    def json(self) -> Any:
        """:raises ServerError: another status than 200, or no JSON"""
        try:
            data = json_text.read(self.body, self.path)
        except json_text.JsonError:
            data = self.body.decode("utf-8", "replace").strip()[:500]
        if self.status != 200:
            raise ServerError(f"{self.path} answers {self.status}: {_error_message(data)}", self.status)
        if isinstance(data, str):
            raise ServerError(f"{self.path} answers no JSON: {data[:200]!r}", self.status)
        return data


class Server:
    """A vLLM server. Every method raises nothing but ServerError, and ends: answers are bounded in bytes and time."""

    def __init__(self, base_url: str, api_key: str | None = None, patience: float | None = None) -> None:
        """:param patience: seconds for the whole of an answer that is generated; None for as long as any may take"""
        self._base = base_url.rstrip("/")
        self._patience = ANSWER_TIMEOUT if patience is None else patience
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}

    def healthy(self) -> bool:
        """Whether /health answers 200. A server that does not answer is not healthy: it may be starting."""
        try:
            return self._ask("GET", "/health").status == 200
        except ServerError:
            return False

    def version(self) -> str:
        """The version that the server reports; empty if it reports none."""
        try:
            said = self._ask("GET", "/version").json()
        except ServerError:
            return ""
        version = said.get("version") if isinstance(said, dict) else None
        return version[:200] if isinstance(version, str) else ""

    def models(self) -> list[str]:
        """The names under which models are served, aliases and adapters among them."""
        answer = self._ask("GET", "/v1/models").json()
        try:
            names = [model["id"] for model in answer["data"]]
        except (KeyError, TypeError) as error:
            raise ServerError(f"/v1/models is not a list of models: {str(answer)[:200]}") from error
        if not all(isinstance(name, str) for name in names):
            raise ServerError(f"/v1/models has names that are no text: {str(names)[:200]}")
        return names

    def metrics(self) -> str:
        answer = self._ask("GET", "/metrics")
        if answer.status != 200:
            raise ServerError(f"/metrics answers {answer.status}", answer.status)
        return answer.body.decode("utf-8", "replace")

    def complete(self, model: str, text: str, max_tokens: int) -> Completion:
        """One chat completion as a user would ask for it: not streamed, ending where the model ends it."""
        started = time.monotonic()
        asked = self._body(model, text, max_tokens)
        answer = self._ask("POST", "/v1/chat/completions", asked).json()
        try:
            said = _text(answer["choices"][0]["message"])
            usage = answer["usage"]
        except (KeyError, IndexError, TypeError) as error:
            raise ServerError(f"/v1/chat/completions is no completion: {str(answer)[:200]}") from error
        return Completion(_tokens(usage), said, started, time.monotonic())

    def stream(self, model: str, text: str, max_tokens: int, uncached: bool = False) -> Completion:
        """One streamed chat completion of exactly `max_tokens` tokens.

        :param uncached: take nothing from the prefix cache, whatever was asked before. vLLM salts the cache with a string of
            the request. A server that does not know this option computes what it would compute anyway
        """
        path = "/v1/chat/completions"
        body = self._body(model, text, max_tokens) | {
            "ignore_eos": True,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if uncached:
            body["cache_salt"] = secrets.token_hex(16)
        sent = time.monotonic()
        try:
            with (
                bounded.Session(self._patience) as session,
                self._open(session, "POST", path, body, min(CHUNK_TIMEOUT, self._patience)) as response,
            ):
                if response.status_code != 200:
                    _Answer(path, response.status_code, session.read(response, LIMIT)).json()
                return replace(read_stream(_lines(response)), sent=sent)
        except (requests.RequestException, urllib3.exceptions.HTTPError, bounded.TooLongError) as error:
            raise ServerError(f"{path}: {_plain(error)}") from error

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

    def _ask(self, method: str, path: str, body: Any = None) -> _Answer:
        """The whole answer. A request with a body makes the server generate, so it may take its time."""
        whole = self._patience if body else SHORT_TIMEOUT
        piece = min(CHUNK_TIMEOUT, whole)
        try:
            with (
                bounded.Session(whole) as session,
                self._open(session, method, path, body, piece) as response,
            ):
                return _Answer(path, response.status_code, session.read(response, LIMIT))
        except (requests.RequestException, bounded.TooLongError) as error:
            raise ServerError(f"{path}: {_plain(error)}") from error

    def _open(
        self, session: bounded.Session, method: str, path: str, body: Any, timeout: float
    ) -> requests.Response:
        session.use_no_proxy()
        return session.request(
            method,
            self._base + path,
            json=body,
            headers=self._headers,
            timeout=(CONNECT_TIMEOUT, timeout),
            allow_redirects=False,
        )


def _lines(response: requests.Response) -> Iterator[str]:
    """Lines of an answer, each as soon as it is there.

    :raises TooLongError: there is no end of a line, or of all
    """
    if getattr(response.raw, "chunked", False):
        blocks = response.iter_content(bounded.BLOCK)
    else:  # take the bytes that have come, instead of waiting for a whole block
        blocks = iter(partial(response.raw.read1, bounded.BLOCK), b"")
    rest, total = b"", 0
    for block in blocks:
        *lines, rest = (rest + block).split(b"\n")
        total += len(block)
        if len(rest) > LONGEST_LINE or total > LIMIT:
            raise bounded.TooLongError(
                f"expected lines of at most {LONGEST_LINE} bytes, {LIMIT} in all, seen more"
            )
        for line in lines:
            yield line.decode("utf-8", "replace").rstrip("\r")
    if rest:
        yield rest.decode("utf-8", "replace").rstrip("\r")


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
