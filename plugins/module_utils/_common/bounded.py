# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""HTTP answers that end, whatever the other side does: limited in bytes, and in seconds for the whole answer.

requests limits only each wait for bytes. A server that sends one header line every few seconds would keep it waiting for ever.
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
    """A session of requests that takes no password from a netrc file, neither for the first address nor after a redirect."""

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
    """An `auth` that changes nothing. A session without any looks into a netrc file."""
    return request


class Session:
    """One request that takes at most `seconds` in all. Do not make a second one: the limit of the first would end it.

    When the time is over, the methods raise requests.RequestException, as those of requests do.
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
        """Ask without a proxy, for addresses of this very host."""
        self._session.trust_env = False

    def request(self, method: str, url: str, **options: Any) -> requests.Response:
        """The answer without its body. Then call :meth:`read`, or read the body and call :meth:`ended`."""
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
        """Raise when the time is over. A cut-off answer may not show it: headers without an end, and a body without a
        length, simply end with the connection.
        """
        if self._over.is_set():
            raise requests.exceptions.ReadTimeout(f"no end of the answer after {self._seconds:g} s") from None

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """When the time is over, blame that for whatever else broke, even if nothing did."""
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
        """A pool class whose connections are ended by the time limit."""
        watch = self._watch

        class Connection(pool.ConnectionCls):  # type: ignore[misc]
            def connect(self) -> None:
                super().connect()
                watch(self.sock)

        class Pool(pool):  # type: ignore[misc]
            ConnectionCls = Connection

        return Pool

    def _watch(self, sock: socket.socket) -> None:
        # The timer runs until the session is closed: a connection whose end is the end of the body counts as closed after the headers.
        timer = threading.Timer(self._seconds, self._shut, [sock])
        timer.daemon = True
        self._timers.append(timer)
        timer.start()

    def _shut(self, sock: socket.socket) -> None:
        self._over.set()
        with suppress(OSError):  # the other side was faster
            sock.shutdown(socket.SHUT_RDWR)
