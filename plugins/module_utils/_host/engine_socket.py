# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ask the Docker engine over its socket, with the standard library: before there is any environment for an SDK."""

from __future__ import annotations

import http.client
import socket
import urllib.parse
from typing import Any

from .._common import json_text, shape


class EngineError(RuntimeError):
    """The engine does not answer, or answers with an error: then `status` is the HTTP status, and `said` its message."""

    def __init__(self, text: str, status: int | None = None, said: str = "") -> None:
        super().__init__(text)
        self.status, self.said = status, said


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("docker", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def get(path: str, url: str, timeout: float = 5, expected: Any = None) -> Any:
    """The JSON that the engine on socket `path` returns for GET `url` (/info, /containers/json …).

    :param expected: its shape; None for any
    :raises EngineError: it gives no such JSON
    """
    return read(_ask("GET", path, url, timeout), f"{path}: {url}", expected)


def delete(path: str, url: str, timeout: float = 5) -> Any:
    """Have the engine remove what `url` names. Gives the JSON that it returns."""
    return read(_ask("DELETE", path, url, timeout), f"{path}: {url}")


def stop(path: str, container: str, timeout: float) -> None:
    """Have the engine stop a container, within the container's own stop time. A stopped or missing container is no error."""
    try:
        _ask("POST", path, f"/containers/{urllib.parse.quote(container, safe='')}/stop", timeout)
    except EngineError as error:
        if error.status not in (204, 304, 404):
            raise


def kill(path: str, container: str, timeout: float) -> None:
    """Have the engine end a container at once. A stopped or missing container is no error."""
    try:
        _ask("POST", path, f"/containers/{urllib.parse.quote(container, safe='')}/kill?signal=KILL", timeout)
    except EngineError as error:
        if error.status not in (204, 404, 409):
            raise


def log(path: str, container: str, lines: int, limit: int, timeout: float) -> bytes:
    """The last lines of a container's log, at most so many bytes of them from the beginning.

    :raises EngineError: the engine gives none
    """
    name = urllib.parse.quote(container, safe="")
    url = f"/containers/{name}/logs?stdout=1&stderr=1&timestamps=1&tail={lines}"
    return _unframed(_ask("GET", path, url, timeout, limit))


def _unframed(body: bytes) -> bytes:
    """The text of a log. Without a terminal, each piece has a head of 8 bytes: the stream, three zeros, and the length."""
    if body[1:4] != bytes(3) or body[:1] not in (b"\0", b"\1", b"\2"):
        return body
    pieces, at = [], 0
    while at + 8 <= len(body):
        length = int.from_bytes(body[at + 4 : at + 8], "big")
        pieces.append(body[at + 8 : at + 8 + length])
        at += 8 + length
    return b"".join(pieces)


def _ask(method: str, path: str, url: str, timeout: float, limit: int = json_text.LIMIT + 1) -> bytes:
    connection = _UnixConnection(path, timeout)
    try:
        connection.request(method, url)
        response = connection.getresponse()
        body = response.read(limit)
    except (OSError, http.client.HTTPException) as error:
        raise EngineError(f"{path}: {error or type(error).__name__}") from None
    finally:
        connection.close()
    if response.status != 200:
        text = body[:200].decode(errors="replace").strip()
        raise EngineError(f"{path}: {url}: {response.status} {text}", response.status, _message(body) or text)
    return body


def read(body: bytes, name: str, expected: Any = None) -> Any:
    """:raises EngineError: the body is no JSON, or of another shape"""
    try:
        answer = json_text.read(body, name)
    except json_text.JsonError:
        raise EngineError(f"{name}: no JSON but {body[:80]!r}") from None
    if expected is not None and (unfit := shape.wrong(answer, expected)):
        raise EngineError(f"{name}: {unfit}")
    return answer


def _message(body: bytes) -> str:
    """The engine's error message, without the JSON around it."""
    try:
        return str(json_text.read(body, "the answer")["message"])
    except (json_text.JsonError, KeyError, TypeError):
        return ""
