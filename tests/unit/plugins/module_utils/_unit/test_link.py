# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The connections of a unit over real sockets, at times that a test says: strangers, floods, silence, and a worker that comes anew."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator

import pytest
from ansible_collections.sparkfleet.vllm.plugins.module_utils._unit import link
from ansible_collections.sparkfleet.vllm.plugins.module_utils._unit.link import (
    HeadLinks,
    Heard,
    Lost,
    Refused,
    WorkerLinks,
)
from ansible_collections.sparkfleet.vllm.plugins.module_utils._unit.wire import Identity, greet

UNIT = Identity(b"k" * 32, "trio", 3)
SILENCE = 15.0
PATIENCE = 400
"""Looks of some milliseconds."""
HERE = "127.0.0.1"


class Net:
    """A head and whoever connects to it. Time passes only where a test says so."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self.stack = stack
        self.now = 100.0
        with socket.socket() as free:
            free.bind((HERE, 0))
            self.port = free.getsockname()[1]
        self.head = HeadLinks(UNIT, SILENCE, HERE, self.port)
        stack.callback(self.head.close)
        self.heard: dict[WorkerLinks, list[Heard | Lost | Refused]] = {}
        """What happened to each worker."""
        self.events: list[Heard | Lost | Refused] = []
        self.look()

    def look(self) -> None:
        self.events += self.head.poll(self.now, 0.002)
        for worker in self.heard:
            self.heard[worker] += worker.poll(self.now, 0.002)

    def until(self, seen: Callable[[], object]) -> None:
        for _each in range(PATIENCE):
            if seen():
                return
            self.look()
        raise AssertionError(f"not seen; events: {self.events}")

    def worker(self, rank: int, identity: Identity = UNIT) -> WorkerLinks:
        made = WorkerLinks(identity, SILENCE, HERE, self.port, rank)
        self.stack.callback(made.close)
        self.heard[made] = []
        return made

    def joined(self, rank: int) -> WorkerLinks:
        made = self.worker(rank)
        before = self.head.members.get(rank)
        self.until(lambda: made.members and self.head.members.get(rank) not in (None, before))
        return made

    def stranger(self, says: bytes = b"") -> socket.socket:
        made = self.stack.enter_context(socket.create_connection((HERE, self.port)))
        made.setblocking(False)
        made.sendall(says)
        return made

    def refusals(self) -> list[str]:
        return [each.why for each in self.events if isinstance(each, Refused)]


@pytest.fixture
def net() -> Iterator[Net]:
    with contextlib.ExitStack() as stack:
        yield Net(stack)


def got(stranger: socket.socket) -> bytes | None:
    """What came: nothing at all, or None as long as the connection is open."""
    try:
        return stranger.recv(4096)
    except BlockingIOError:
        return None
    except ConnectionResetError:
        return b""


def test_words_go_both_ways(net: Net):
    one, two = net.joined(1), net.joined(2)
    net.head.say(b"to all")
    one.say(b"of one")
    two.say(b"of two")
    net.until(lambda: len(net.events) == 2 and all(net.heard.values()))
    assert sorted(net.events, key=str) == [Heard(1, b"of one"), Heard(2, b"of two")]
    assert list(net.heard.values()) == [[Heard(0, b"to all")]] * 2


@pytest.mark.parametrize(
    ("says", "why"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", "does not speak as a member does"),
        (b"\n", "does not speak as a member does"),
        (b"hello 1 " + b"0" * 32 + b" " + b"0" * 64 + b"\n", "has another key, unit or size"),
        (b"x" * 300, "said a line that is too long"),
        (bytes(range(256)) * 300, "does not speak as a member does"),
    ],
    ids=["HTTP", "empty", "wrong mac", "long", "binary"],
)
def test_a_stranger_gets_no_byte_and_disturbs_nobody(net: Net, says: bytes, why: str):
    net.joined(1)
    stranger = net.stranger(says)
    net.until(net.refusals)
    assert net.refusals() == [why]
    assert got(stranger) == b""
    assert 1 in net.head.members


def test_one_that_says_nothing_or_a_byte_now_and_then_is_closed_after_some_seconds(net: Net):
    silent, slow = net.stranger(), net.stranger()
    for byte in b"hell":
        slow.send(bytes([byte]))
        net.look()
        net.now += link.GREET_WITHIN / 4
    assert (got(silent), got(slow)) == (None, None)
    net.now += 0.1
    net.until(lambda: len(net.refusals()) == 2)
    assert (got(silent), got(slow)) == (b"", b"")


def test_a_flood_of_strangers_keeps_no_worker_out(net: Net):
    held = [net.stranger() for _each in range(3 * link.STRANGERS)]
    worker = net.worker(1)
    net.until(lambda: 1 in net.head.members)
    for _each in range(3):
        held += [net.stranger() for _one in range(4)]
        net.look()
    assert len(net.head._pending) <= link.STRANGERS
    assert worker.members


def test_a_flood_does_not_push_out_one_that_has_shown_the_key(net: Net):
    member = net.stranger(next(greet(UNIT, 1)))
    net.until(lambda: got(member) is not None)
    flood = [net.stranger() for _each in range(2 * link.STRANGERS)]
    net.until(lambda: len(net.refusals()) > link.STRANGERS)
    assert set(net.refusals()) == {"made room for another"}
    assert got(member) is None
    assert got(flood[0]) == b""


def test_a_recorded_greeting_holds_no_rank(net: Net):
    net.joined(1)
    replayed = net.stranger(next(greet(UNIT, 1)))
    net.until(lambda: got(replayed) is not None)
    net.look()
    assert not [each for each in net.events if isinstance(each, Lost)]
    net.now += link.GREET_WITHIN + 1
    net.until(net.refusals)


def test_a_worker_that_comes_anew_takes_the_place_of_the_old_one(net: Net):
    old = net.joined(1)
    new = net.joined(1)
    net.until(lambda: net.events)
    assert net.events == [Lost(1, "came anew")]
    new.say(b"new")
    net.until(lambda: len(net.events) == 2)
    assert net.events[1] == Heard(1, b"new")
    assert net.heard[old][0] == Lost(0, "closed the link")


def test_one_with_another_key_tries_on_and_is_never_a_member(net: Net):
    worker = net.worker(1, Identity(b"x" * 32, "trio", 3))
    for _each in range(3):
        count = len(net.refusals())
        net.until(lambda count=count: len(net.refusals()) > count)  # type: ignore[misc]
        net.now += link.AGAIN
    assert set(net.refusals()) == {"has another key, unit or size"}
    assert (net.head.members, worker.members) == ({}, {})


def test_both_ends_notice_silence_and_the_worker_connects_again(net: Net):
    worker = net.joined(1)
    net.now += SILENCE - 1
    worker.say(b"here")
    net.head.say(b"here, too")
    net.until(lambda: net.events and net.heard[worker])
    net.now += SILENCE - 1
    net.look()
    assert (net.events, net.heard[worker]) == ([Heard(1, b"here")], [Heard(0, b"here, too")])
    net.now += 2
    net.look()
    assert net.events[1] == Lost(1, f"was silent for {SILENCE:.0f} s")
    # It read the end of the connection, or judged before that.
    assert net.heard[worker][1] in (Lost(0, f"was silent for {SILENCE:.0f} s"), Lost(0, "closed the link"))
    net.now += link.AGAIN
    net.until(lambda: 1 in net.head.members and worker.members)


def test_lines_that_wait_are_read_before_silence_is_judged(net: Net):
    """As after a pause of the reader: the other has spoken all the time."""
    worker = net.joined(1)
    worker.say(b"here")
    net.now += 10 * SILENCE
    net.until(lambda: net.events)
    assert net.events[0] == Heard(1, b"here")


@pytest.mark.parametrize(
    "line", [b"0" * 64 + b" {}\n", b"x" * 20_000, b"\n"], ids=["unsigned", "long", "empty"]
)
def test_a_line_that_is_not_of_the_member_ends_its_connection(net: Net, line: bytes):
    worker = net.joined(1)
    worker.members[0].socket.sendall(line)
    net.until(lambda: net.events)
    (lost,) = net.events
    assert isinstance(lost, Lost) and lost.why.startswith("said a line that is")


def test_a_member_that_reads_nothing_is_dropped_before_it_fills_the_memory(net: Net):
    net.joined(1)
    net.heard.clear()
    for _each in range(3000):
        net.head.say(b"x" * 8000)
        if not net.head.members:
            break
    net.look()
    assert net.events == [Lost(1, "takes no more lines")]


def test_a_port_that_is_not_free_is_tried_again(net: Net):
    other = HeadLinks(UNIT, SILENCE, HERE, net.port)
    net.stack.callback(other.close)
    (refused,) = other.poll(0.0, 0)
    assert isinstance(refused, Refused) and "cannot listen" in refused.why
    assert other.poll(0.5, 0) == []
    net.head.close()
    assert other.poll(2.0, 0) == []
    with socket.create_connection((HERE, net.port)):
        pass
