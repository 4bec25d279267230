# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Clients that stream from an OpenAI-compatible address for as long as a test works on what is behind it."""

from __future__ import annotations

import http.client
import json
import ssl
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

JSON = {"Content-Type": "application/json"}


@dataclass(frozen=True)
class Stream:
    """What became of one request. `fault` is empty for one that was answered whole."""

    began: float
    ended: float
    fault: str


@dataclass
class Address:
    url: str
    key: str
    model: str
    authority: str = ""
    """Certificate that its own is signed with, PEM; empty for plain HTTP."""
    silence: float = 30.0
    """Seconds after which a stream without a byte has failed."""

    def connect(self, timeout: float | None = None) -> http.client.HTTPConnection:
        at = urlsplit(self.url)
        assert at.hostname
        timeout = timeout or self.silence
        if at.scheme == "http":
            return http.client.HTTPConnection(at.hostname, at.port, timeout=timeout)
        context = ssl.create_default_context(cadata=self.authority)
        return http.client.HTTPSConnection(at.hostname, at.port, timeout=timeout, context=context)

    def ask(
        self, method: str, path: str, body: Any = None, key: str | None = None, timeout: float | None = None
    ) -> tuple[int, Mapping[str, str], str]:
        """(status, headers in lower case, text) of one request.

        :param key: in place of its own; empty for none
        """
        sent = JSON | ({"Authorization": f"Bearer {self.key if key is None else key}"} if key != "" else {})
        connection = self.connect(timeout)
        try:
            connection.request(method, path, json.dumps(body) if body is not None else None, sent)
            answer = connection.getresponse()
            return (
                answer.status,
                {name.lower(): text for name, text in answer.getheaders()},
                answer.read().decode(),
            )
        finally:
            connection.close()

    def stream(self, tokens: int, session: str) -> Stream:
        """One answer of that many tokens, read to its end."""
        began = time.time()
        try:
            fault = self._stream(tokens, session)
        except (OSError, http.client.HTTPException) as error:
            fault = f"{type(error).__name__}: {error}"
        return Stream(began, time.time(), fault)

    def _stream(self, tokens: int, session: str) -> str:
        asked = {
            "model": self.model,
            "messages": [{"role": "user", "content": session}],
            "max_tokens": tokens,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        headers = JSON | {"Authorization": f"Bearer {self.key}", "x-session-id": session}
        connection = self.connect()
        try:
            connection.request("POST", "/v1/chat/completions", json.dumps(asked), headers)
            answer = connection.getresponse()
            text = answer.read().decode()
        finally:
            connection.close()
        if answer.status != 200:
            return f"status {answer.status}: {text[:200]}"
        events = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]
        if events[-1:] != ["[DONE]"]:
            return f"no end after {len(events)} events"
        made = json.loads(events[-2])["usage"]["completion_tokens"]
        return "" if made == tokens else f"{made} tokens for {tokens}"


@dataclass
class Load:
    """Some clients, each of which begins its next conversation when one has ended. A context: it ends with the block."""

    address: Address
    clients: int
    tokens: int
    pause: float = 0.0
    """Seconds that a client takes between two conversations. A model on the processor leaves nothing to others meanwhile."""
    limit: float = 900.0
    """Seconds after which the clients begin no more."""
    done: list[Stream] = field(default_factory=list)

    def __enter__(self) -> Load:
        self._over = threading.Event()
        self._deadline = time.monotonic() + self.limit
        self._threads = [
            threading.Thread(target=self._client, args=(number,), daemon=True)
            for number in range(self.clients)
        ]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _client(self, number: int) -> None:
        turn = 0
        while not self._over.is_set() and time.monotonic() < self._deadline:
            turn += 1
            self.done.append(self.address.stream(self.tokens, f"client {number}, conversation {turn}"))
            time.sleep(self.pause or (0.2 if self.done[-1].fault else 0))

    @property
    def faults(self) -> list[str]:
        return [stream.fault for stream in self.done if stream.fault]

    def asked_after(self, moment: float) -> list[Stream]:
        return [stream for stream in self.done if stream.began > moment]
