# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ask the Docker engine over its socket, with the standard library: before there is any environment for an SDK."""

from __future__ import annotations

import http.client
import json
import socket
from typing import Any


class EngineError(RuntimeError):
    """The engine does not answer, or answers with an error."""


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
    connection = _UnixConnection(path, timeout)
    try:
        connection.request("GET", url)
        response = connection.getresponse()
        body = response.read()
    except (OSError, http.client.HTTPException) as error:
        raise EngineError(f"{path}: {error or type(error).__name__}") from None
    finally:
        connection.close()
    if response.status != 200:
        raise EngineError(f"{path}: {url}: {response.status} {body[:200].decode(errors='replace').strip()}")
    try:
        return json.loads(body)
    except ValueError:
        raise EngineError(f"{path}: {url}: no JSON but {body[:80]!r}") from None
