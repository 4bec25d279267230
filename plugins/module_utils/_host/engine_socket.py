# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ask the Docker engine over its socket, with the standard library: before there is any environment for an SDK."""

from __future__ import annotations

import http.client
import json
import socket
import urllib.parse
from typing import Any


class EngineError(RuntimeError):
    """The engine does not answer, or answers with an error: then `status` is that of HTTP, and `said` its message."""

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


def get(path: str, url: str, timeout: float = 5) -> Any:
    """The JSON that the engine on socket `path` returns for GET `url` (/info, /containers/json …)."""
    return _ask("GET", path, url, timeout)


def delete(path: str, url: str, timeout: float = 5) -> Any:
    """Have the engine remove what `url` names; the JSON that it returns."""
    return _ask("DELETE", path, url, timeout)


def stop(path: str, container: str, timeout: float) -> None:
    """Have the engine stop a container, in the time that this was made with. One that is stopped, or gone, is."""
    try:
        _ask("POST", path, f"/containers/{urllib.parse.quote(container, safe='')}/stop", timeout)
    except EngineError as error:
        if error.status not in (204, 304, 404):
            raise


def _ask(method: str, path: str, url: str, timeout: float) -> Any:
    connection = _UnixConnection(path, timeout)
    try:
        connection.request(method, url)
        response = connection.getresponse()
        body = response.read()
    except (OSError, http.client.HTTPException) as error:
        raise EngineError(f"{path}: {error or type(error).__name__}") from None
    finally:
        connection.close()
    if response.status != 200:
        text = body[:200].decode(errors="replace").strip()
        raise EngineError(f"{path}: {url}: {response.status} {text}", response.status, _message(body) or text)
    try:
        return json.loads(body)
    except ValueError:
        raise EngineError(f"{path}: {url}: no JSON but {body[:80]!r}") from None


def _message(body: bytes) -> str:
    """What the engine says of an error, without the JSON around it."""
    try:
        return str(json.loads(body)["message"])
    except (ValueError, KeyError, TypeError):
        return ""
