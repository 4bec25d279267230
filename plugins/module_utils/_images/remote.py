# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Manifests and blobs of one repository, read from one registry. Manifests are verified here, blobs where they are stored."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from .._common import bounded, upstream
from .reference import Reference
from .registry import ACCEPT, Credentials, authorize

with suppress(ImportError):  # the module says so, with missing_required_lib
    import requests

BLOCK = 64 * 1024
"""Bytes of one read. A broken connection loses a block that was read in part."""
TIMEOUT = (5, 60)
"""Seconds to connect, and to wait for a byte."""


class Source:
    """`home` is the address of the registry's API. Threads may share it."""

    def __init__(self, home: str, reference: Reference, credentials: Credentials | None = None) -> None:
        self.home = home.rstrip("/")
        self._reference, self._credentials = reference, credentials
        self._lock = threading.Lock()
        self._authorization: str | None = None

    def manifest(self, digest: str) -> bytes:
        """:raises UpstreamError: the registry does not give it, or gives other bytes"""
        url = f"{self.home}/v2/{self._reference.repository}/manifests/{digest}"
        answer = upstream.ask("GET", url, headers={"Accept": ACCEPT}, authorization=self._authorization)
        if answer.status == 401:
            self._renew(answer)
            answer = upstream.ask("GET", url, headers={"Accept": ACCEPT}, authorization=self._authorization)
        self._refuse(answer.status, url)
        seen = "sha256:" + hashlib.sha256(answer.body).hexdigest()
        if seen != digest:
            raise upstream.Unusable(
                f"{url}: expected the manifest {digest}, seen one of {seen}; do not use this registry"
            )
        return answer.body

    @contextmanager
    def blob(self, digest: str, offset: int) -> Iterator[tuple[int, Iterator[bytes]]]:
        """(where the bytes begin, the bytes): at `offset`, or at 0 from a registry that knows no ranges.

        :raises UpstreamError: the registry does not give it; Unreachable when asking again may help
        """
        url = f"{self.home}/v2/{self._reference.repository}/blobs/{digest}"
        try:
            with self._open(url, offset) as answer:
                yield (offset if answer.status_code == 206 else 0), answer.iter_content(BLOCK)
        except requests.exceptions.RequestException as error:
            raise upstream.Unreachable(
                f"{url}: expected the blob, seen {upstream.reason(error)}; check the network and the address"
            ) from error

    def _open(self, url: str, offset: int) -> Any:
        def get() -> Any:
            headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={offset}-"} if offset else {})
            if self._authorization:
                headers["Authorization"] = self._authorization
            # A redirect to another host (Docker Hub's blobs lie on a CDN) loses the authorization.
            return bounded.session().get(url, headers=headers, timeout=TIMEOUT, stream=True)

        answer = get()
        if answer.status_code == 401:
            answer.close()
            self._renew(upstream.Answer(401, answer.headers))
            answer = get()
        try:
            self._refuse(answer.status_code, url)
        except upstream.UpstreamError:
            answer.close()
            raise
        return answer

    def _renew(self, answer: upstream.Answer) -> None:
        """Get a new token. Tokens end after minutes, while other threads still read with theirs."""
        with self._lock:
            self._authorization = authorize(
                answer, self.home, self._reference.repository, self._credentials, upstream.ask
            )

    def _refuse(self, status: int, url: str) -> None:
        if status in (200, 206):
            return
        problem = f"{url}: expected HTTP 200, seen {status}"
        if status == 404:
            raise upstream.NotFound(f"{problem}: not there; check the lock and the address")
        if status in (401, 403):
            raise upstream.Unauthorized(f"{problem}; set the registry's user name and password")
        if status == 429 or status >= 500:
            raise upstream.Unreachable(f"{problem}; wait, or name a mirror")
        raise upstream.Unusable(f"{problem}; check that the address is a registry")
