# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""HTTP answers that end, whatever the other side does: bounded in bytes, and in seconds of all of the answer.

The time limit of requests is on each wait for bytes alone. A server that sends one header line every few seconds is
waited for without end.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Any

with suppress(ImportError):  # the module says so, with missing_required_lib
    import requests
    import urllib3

BLOCK = 65536


class TooLongError(Exception):
    """More bytes came than anybody should send here."""


def session() -> requests.Session:
    """A session of requests that takes no password from a netrc file, neither for the address asked nor after a redirect."""

    class WithoutNetrc(requests.Session):
        def rebuild_auth(
            self, prepared_request: requests.PreparedRequest, response: requests.Response
        ) -> None:
            sent, url = response.request.url or "", prepared_request.url or ""
            if self.should_strip_auth(sent, url):  # type: ignore[no-untyped-call]
                prepared_request.headers.pop("Authorization", None)

    made = WithoutNetrc()
    made.auth = _as_it_is
    return made


def _as_it_is(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """As the `auth` of a session: with none at all, requests looks into a netrc file."""
    return request


class Session:
    """One request, all of which takes `seconds` at most. A second one would be ended by the limit of the first.

    Its methods raise requests.RequestException, as those of requests do, when the time is over.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._over = threading.Event()
        self._timers: list[threading.Timer] = []
        self._session = session()
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, self._adapter())

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        for timer in self._timers:
            timer.cancel()
        self._session.close()

    def use_no_proxy(self) -> None:
        """What is on this very host is asked itself."""
        self._session.trust_env = False

    def request(self, method: str, url: str, **options: Any) -> requests.Response:
        """The answer up to its body. :meth:`read` reads that, or :meth:`ended` is asked after it was read."""
        with self._explained():
            return self._session.request(method, url, stream=True, **options)

    def read(self, response: requests.Response, limit: int) -> bytes:
        """The whole body.

        :raises TooLongError: it has more than `limit` bytes
        """
        body = bytearray()
        with self._explained():
            for block in response.iter_content(BLOCK):
                body += block
                if len(body) > limit:
                    response.close()
                    raise TooLongError(f"expected at most {limit} bytes, seen more")
        return bytes(body)

    def ended(self) -> None:
        """Raise when the time is over. An answer that is cut short does not show it: headers without an end, and a body
        without a length, end where the connection does.
        """
        if self._over.is_set():
            raise requests.exceptions.ReadTimeout(f"no end of the answer after {self._seconds:g} s") from None

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """That the time is over explains whatever else broke, or did not."""
        broke: requests.RequestException | None = None
        try:
            yield
        except requests.RequestException as error:
            broke = error
        self.ended()
        if broke is not None:
            raise broke

    def _adapter(self) -> Any:
        pools = {
            "http": self._ending(urllib3.HTTPConnectionPool),
            "https": self._ending(urllib3.HTTPSConnectionPool),
        }

        class Adapter(requests.adapters.HTTPAdapter):
            def init_poolmanager(self, *args: Any, **options: Any) -> None:
                super().init_poolmanager(*args, **options)  # type: ignore[no-untyped-call]
                self.poolmanager.pool_classes_by_scheme = pools

            def proxy_manager_for(self, *args: Any, **options: Any) -> Any:
                manager = super().proxy_manager_for(*args, **options)  # type: ignore[no-untyped-call]
                manager.pool_classes_by_scheme = pools
                return manager

        return Adapter()

    def _ending(self, pool: Any) -> Any:
        """The pool class, of connections that end by themselves."""
        watch = self._watch

        class Connection(pool.ConnectionCls):  # type: ignore[misc]
            def connect(self) -> None:
                super().connect()
                watch(self.sock)

        class Pool(pool):  # type: ignore[misc]
            ConnectionCls = Connection

        return Pool

    def _watch(self, sock: socket.socket) -> None:
        # Until the session is closed. A connection counts as closed from the headers on, where its end is that of the body.
        timer = threading.Timer(self._seconds, self._shut, [sock])
        timer.daemon = True
        self._timers.append(timer)
        timer.start()

    def _shut(self, sock: socket.socket) -> None:
        self._over.set()
        with suppress(OSError):  # the other side was faster
            sock.shutdown(socket.SHUT_RDWR)
