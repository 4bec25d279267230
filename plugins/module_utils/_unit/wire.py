# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How the members of a unit know each other, and that a line is of the other and of now. Pure: lines in, lines out.

    worker  hello <rank> <nonce> <mac>        the mac says: I have the key. Whoever says less gets no answer
    head    challenge <nonce> <mac>           over both nonces: I have it, too, and this is no recording
    worker  answer <mac>                      over both nonces
    both    <mac> <word>                      with a key of this connection and direction; the mac counts the lines

All macs are HMAC-SHA256 over the protocol, role, unit, size, rank and nonces. Nothing is encrypted: phases are no secret.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Generator
from dataclasses import dataclass

PROTOCOL = "sparkfleet-unit-1"
GREETING_LIMIT = 256
"""Bytes of a line before the other is known."""
_KEY = re.compile(r"[0-9a-f]{64}")
_HELLO = re.compile(rb"hello ([0-9]{1,2}) ([0-9a-f]{32}) ([0-9a-f]{64})")
_CHALLENGE = re.compile(rb"challenge ([0-9a-f]{32}) ([0-9a-f]{64})")
_ANSWER = re.compile(rb"answer ([0-9a-f]{64})")
_SEALED = re.compile(rb"([0-9a-f]{64}) (.*)")


class WireError(ValueError):
    """A line is not of a member, or not of this moment."""


@dataclass(frozen=True, repr=False)
class Identity:
    """What all members of a unit have, and nobody else."""

    key: bytes
    unit: str
    nodes: int

    def mac(self, role: str, *parts: str | int) -> str:
        return _mac(self.key, role, self.unit, self.nodes, *parts)


def read_key(text: str) -> bytes:
    """The key as its file has it.

    :raises WireError: it is none
    """
    if not _KEY.fullmatch(text.strip()):
        raise WireError("no 64 hexadecimal digits")
    return bytes.fromhex(text)


def _mac(key: bytes, *parts: str | int) -> str:
    # No part contains a line break, so the text says where each ends.
    return hmac.new(key, "\n".join(map(str, (PROTOCOL, *parts))).encode(), hashlib.sha256).hexdigest()


class Session:
    """One connection, after both are known."""

    def __init__(self, sends: bytes, hears: bytes) -> None:
        self._sends, self._hears = sends, hears
        self._sent = self._heard = 0

    def seal(self, word: bytes) -> bytes:
        text = b"%s %s\n" % (self._of(self._sends, self._sent, word), word)
        self._sent += 1
        return text

    def open(self, line: bytes) -> bytes:
        """:raises WireError: it is not the next line of the other"""
        found = _SEALED.fullmatch(line)
        if not found or not hmac.compare_digest(found[1], self._of(self._hears, self._heard, found[2])):
            raise WireError("said a line that is not of this connection")
        self._heard += 1
        return found[2]

    @staticmethod
    def _of(key: bytes, number: int, word: bytes) -> bytes:
        return hmac.new(key, b"%d %s" % (number, word), hashlib.sha256).hexdigest().encode()


@dataclass(frozen=True)
class Known:
    """The other is known."""

    rank: int
    session: Session
    last: bytes = b""
    """What is still to be sent."""


def welcome(identity: Identity) -> Generator[bytes, bytes, Known]:
    """The head's part, up to a worker that is known: gives what is to be sent, takes the next line.

    :raises WireError: it is none
    """
    said, theirs, proof = _parts(_HELLO.fullmatch((yield b"")))
    rank = int(said)
    if not 0 < rank < identity.nodes:
        raise WireError(f"says rank {rank}")
    _check(proof, identity.mac("hello", rank, theirs))
    ours = secrets.token_hex(16)
    proof = identity.mac("head", rank, theirs, ours)
    (answer,) = _parts(_ANSWER.fullmatch((yield f"challenge {ours} {proof}\n".encode())))
    _check(answer, identity.mac("worker", rank, theirs, ours))
    to_head, to_worker = _keys(identity, rank, theirs, ours)
    return Known(rank, Session(sends=to_worker, hears=to_head))


def greet(identity: Identity, rank: int) -> Generator[bytes, bytes, Known]:
    """The worker's part, up to a head that is known.

    :raises WireError: it is none
    """
    ours = secrets.token_hex(16)
    line = yield f"hello {rank} {ours} {identity.mac('hello', rank, ours)}\n".encode()
    theirs, proof = _parts(_CHALLENGE.fullmatch(line))
    _check(proof, identity.mac("head", rank, ours, theirs))
    answer = f"answer {identity.mac('worker', rank, ours, theirs)}\n".encode()
    to_head, to_worker = _keys(identity, rank, ours, theirs)
    return Known(0, Session(sends=to_head, hears=to_worker), answer)


def _keys(identity: Identity, rank: int, of_worker: str, of_head: str) -> tuple[bytes, bytes]:
    return (
        bytes.fromhex(identity.mac("to head", rank, of_worker, of_head)),
        bytes.fromhex(identity.mac("to worker", rank, of_worker, of_head)),
    )


def _parts(found: re.Match[bytes] | None) -> tuple[str, ...]:
    if not found:
        raise WireError("does not speak as a member does")
    return tuple(part.decode() for part in found.groups())


def _check(seen: str, expected: str) -> None:
    if not hmac.compare_digest(seen, expected):
        raise WireError("has another key, unit or size")
