# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The connections between the members of a unit: a star, the head listens. Nothing here waits, and nothing grows.

Who is not known within seconds is closed, and the oldest of them when there are many. Who is known and silent is closed, too: a
connection whose other end is gone without a word looks like that.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import selectors
import socket
from collections.abc import Generator
from dataclasses import dataclass

from .wire import GREETING_LIMIT, Identity, Known, Session, WireError, greet, welcome
from .words import LIMIT

STRANGERS = 16
"""Connections of others that are not known yet."""
GREET_WITHIN = 5.0
"""Seconds until the other is known."""
AGAIN = 1.0
"""Seconds between two attempts to listen, or to connect."""
_BUFFER = 16 * LIMIT
"""Bytes that may wait to be sent."""
_LINE = LIMIT + 128
"""Bytes of a word with its mac."""
_BLOCK = 64 * 1024
_BACKLOG = 64
_AT_ONCE = 4
"""Connections that are accepted between two looks at the others, so that a flood leaves a member time to say who it is."""


@dataclass(frozen=True)
class Heard:
    rank: int
    word: bytes


@dataclass(frozen=True)
class Lost:
    rank: int
    why: str


@dataclass(frozen=True)
class Refused:
    """A connection ended before the other was known."""

    address: str
    why: str


class _Closed(Exception):
    """The connection is of no use any more. Its text goes on from `rank 1 …`."""


class Connection:
    """One socket: greeting first, then words."""

    def __init__(
        self, link: socket.socket, address: str, greeting: Generator[bytes, bytes, Known], now: float
    ) -> None:
        link.setblocking(False)
        with contextlib.suppress(OSError):
            link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket, self.address = link, address
        self.heard = now
        """When; for one who is not known, when it came."""
        self.rank = -1
        self.proven = False
        """Whether it has said something that took the key, if perhaps another time."""
        self._session: Session | None = None
        self._greeting = greeting
        self._in, self._out = b"", next(greeting)

    @property
    def known(self) -> bool:
        return self._session is not None

    @property
    def waits(self) -> bool:
        """Whether something is to be sent."""
        return bool(self._out)

    def say(self, word: bytes) -> None:
        """:raises _Closed: it takes nothing any more"""
        if self._session:
            self._out += self._session.seal(word)
        if len(self._out) > _BUFFER:
            raise _Closed("takes no more lines")

    def flush(self) -> None:
        """:raises OSError: the connection is lost"""
        if self._out:
            with contextlib.suppress(BlockingIOError):
                self._out = self._out[self.socket.send(self._out) :]

    def receive(self, now: float) -> list[bytes]:
        """The words that came.

        :raises _Closed, WireError, OSError: there will be no more
        """
        try:
            block = self.socket.recv(_BLOCK)
        except BlockingIOError:
            return []
        if not block:
            raise _Closed("closed the link")
        *lines, self._in = (self._in + block).split(b"\n")
        found = []
        for line in lines:
            self._bound(line)
            word = self._take(line)
            if word is not None:
                self.heard = now
                found.append(word)
        self._bound(self._in)
        return found

    def _bound(self, line: bytes) -> None:
        if len(line) > (_LINE if self.known else GREETING_LIMIT):
            raise WireError("said a line that is too long")

    def _take(self, line: bytes) -> bytes | None:
        if self._session:
            return self._session.open(line)
        try:
            self._out += self._greeting.send(line)
            self.proven = True
        except StopIteration as end:
            known: Known = end.value
            self.rank, self._session = known.rank, known.session
            self._out += known.last
        return None


class Links:
    """All connections of one member."""

    def __init__(self, identity: Identity, silence: float) -> None:
        self.identity, self.silence = identity, silence
        self.members: dict[int, Connection] = {}
        self.selector = selectors.DefaultSelector()
        self._pending: list[Connection] = []
        self._events: list[Heard | Lost | Refused] = []

    def poll(self, now: float, timeout: float) -> list[Heard | Lost | Refused]:
        """What happened, after at most so many seconds. Silence is judged after all that lies there is read."""
        self._open(now)
        for connection in self._all():
            self._watch(connection)
        for key, mask in self.selector.select(timeout):
            if isinstance(key.data, Connection):
                self._serve(key.data, mask, now)
            else:
                key.data(now)
        for connection in self._all():
            limit = self.silence if connection.known else GREET_WITHIN
            if now - connection.heard > limit:
                self._drop(connection, f"was silent for {limit:.0f} s")
        events, self._events = self._events, []
        return events

    def wake_by(self, link: socket.socket) -> None:
        """What comes there ends a wait."""

        def empty(_now: float) -> None:
            with contextlib.suppress(BlockingIOError):
                link.recv(_BLOCK)

        self.selector.register(link, selectors.EVENT_READ, empty)

    def say(self, word: bytes) -> None:
        """To all that are known."""
        for connection in list(self.members.values()):
            try:
                connection.say(word)
                connection.flush()
            except (_Closed, OSError) as error:
                self._drop(connection, _text(error))

    def close(self) -> None:
        for connection in self._all():
            connection.socket.close()
        self.selector.close()

    def _open(self, now: float) -> None:
        """Try what there is to try."""

    def _all(self) -> list[Connection]:
        return [*self._pending, *self.members.values()]

    def _add(self, connection: Connection) -> None:
        self._pending.append(connection)
        self.selector.register(connection.socket, selectors.EVENT_READ, connection)

    def _watch(self, connection: Connection) -> None:
        writes = selectors.EVENT_WRITE if connection.waits else 0
        self.selector.modify(connection.socket, selectors.EVENT_READ | writes, connection)

    def _serve(self, connection: Connection, mask: int, now: float) -> None:
        if connection not in self._all():
            return  # dropped since the look
        known = connection.known
        try:
            connection.flush()
            words = connection.receive(now) if mask & selectors.EVENT_READ else []
            connection.flush()
        except (_Closed, WireError, OSError) as error:
            self._drop(connection, _text(error))
            return
        if connection.known and not known:
            former = self.members.get(connection.rank)
            if former:
                self._drop(former, "came anew")
            self._pending.remove(connection)
            self.members[connection.rank] = connection
        self._events += [Heard(connection.rank, word) for word in words]

    def _drop(self, connection: Connection, why: str) -> None:
        with contextlib.suppress(KeyError, ValueError):
            self.selector.unregister(connection.socket)
        connection.socket.close()
        if connection in self._pending:
            self._pending.remove(connection)
            self._events.append(Refused(connection.address, why))
        elif self.members.get(connection.rank) is connection:
            del self.members[connection.rank]
            self._events.append(Lost(connection.rank, why))


class HeadLinks(Links):
    def __init__(self, identity: Identity, silence: float, address: str, port: int) -> None:
        super().__init__(identity, silence)
        self._where = (address, port)
        self._listener: socket.socket | None = None
        self._next = 0.0

    def close(self) -> None:
        super().close()
        if self._listener:
            self._listener.close()

    def _open(self, now: float) -> None:
        if self._listener or now < self._next:
            return
        self._next = now + AGAIN
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(self._where)
            listener.listen(_BACKLOG)
        except OSError as error:  # an interface that is not up yet, a former head that has not gone
            listener.close()
            self._events.append(
                Refused("own address", f"cannot listen at port {self._where[1]}: {_text(error)}")
            )
            return
        listener.setblocking(False)
        self.selector.register(listener, selectors.EVENT_READ, functools.partial(self._accept, listener))
        self._listener = listener

    def _accept(self, listener: socket.socket, now: float) -> None:
        for _each in range(_AT_ONCE):
            try:
                link, (address, _port) = listener.accept()
            except OSError:
                return
            if len(self._pending) >= STRANGERS:
                first = min(self._pending, key=lambda each: (each.proven, each.heard))
                self._drop(first, "made room for another")
            self._add(Connection(link, address, welcome(self.identity), now))


class WorkerLinks(Links):
    def __init__(self, identity: Identity, silence: float, address: str, port: int, rank: int) -> None:
        super().__init__(identity, silence)
        self._where, self._rank = (address, port), rank
        self._next = 0.0

    def _open(self, now: float) -> None:
        if self._all() or now < self._next:
            return
        self._next = now + AGAIN
        link = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        link.setblocking(False)
        number = link.connect_ex(self._where)
        if number not in (0, errno.EINPROGRESS):
            link.close()
            self._events.append(Refused(self._where[0], os.strerror(number)))
            return
        self._add(Connection(link, self._where[0], greet(self.identity, self._rank), now))


def _text(error: Exception) -> str:
    if isinstance(error, OSError):
        return f"was lost ({error.strerror or error})"
    return str(error)
