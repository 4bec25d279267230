# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The greeting and the lines after it: who is known, and what nobody else can say, repeat, reorder or send back."""

from __future__ import annotations

from dataclasses import replace

import pytest
from ansible_collections.sparkfleet.vllm.plugins.module_utils._unit.wire import (
    GREETING_LIMIT,
    Identity,
    Known,
    WireError,
    greet,
    read_key,
    welcome,
)

PAIR = Identity(b"k" * 32, "pair", 3)


def line(text: bytes) -> bytes:
    assert text.endswith(b"\n") and len(text) <= GREETING_LIMIT
    return text[:-1]


def meet(head: Identity = PAIR, worker: Identity = PAIR, rank: int = 1) -> tuple[Known, Known, list[bytes]]:
    """Both as they know the other, and the lines that went."""
    ours, theirs = welcome(head), greet(worker, rank)
    assert next(ours) == b""
    hello = line(next(theirs))
    challenge = line(ours.send(hello))
    with pytest.raises(StopIteration) as there:
        theirs.send(challenge)
    answer = line(there.value.value.last)
    with pytest.raises(StopIteration) as here:
        ours.send(answer)
    return here.value.value, there.value.value, [hello, challenge, answer]


def test_two_members_know_each_other_and_hear_each_other():
    head, worker, _lines = meet(rank=2)
    assert (head.rank, worker.rank) == (2, 0)
    for word in (b"one", b"two {}", b""):
        assert worker.session.open(line(head.session.seal(word))) == word
        assert head.session.open(line(worker.session.seal(word))) == word


@pytest.mark.parametrize(
    "other",
    [replace(PAIR, key=b"x" * 32), replace(PAIR, unit="pairs"), replace(PAIR, nodes=4)],
    ids=["key", "unit", "size"],
)
def test_a_member_of_another_unit_gets_no_answer(other: Identity):
    with pytest.raises(WireError, match="another key, unit or size"):
        meet(worker=other)


@pytest.mark.parametrize("rank", [0, 3, 99])
def test_a_rank_that_no_worker_has_gets_no_answer(rank: int):
    with pytest.raises(WireError, match=f"says rank {rank}"):
        meet(rank=rank)


def test_a_worker_answers_no_head_that_lacks_the_key():
    theirs = greet(PAIR, 1)
    next(theirs)
    with pytest.raises(WireError):
        theirs.send(b"challenge " + b"0" * 32 + b" " + b"0" * 64)


def test_what_a_worker_said_once_is_worth_nothing_a_second_time():
    _head, _worker, (hello, _challenge, answer) = meet()
    ours = welcome(PAIR)
    next(ours)
    ours.send(hello)
    with pytest.raises(WireError):
        ours.send(answer)


def test_what_a_head_said_once_is_worth_nothing_a_second_time():
    _head, _worker, (_hello, challenge, _answer) = meet()
    theirs = greet(PAIR, 1)
    next(theirs)
    with pytest.raises(WireError):
        theirs.send(challenge)


def test_a_hello_of_one_rank_is_none_of_another():
    ours = welcome(PAIR)
    next(ours)
    with pytest.raises(WireError):
        ours.send(line(next(greet(PAIR, 1))).replace(b"hello 1", b"hello 2"))


@pytest.mark.parametrize("what", ["again", "back", "left out", "altered", "from another connection"])
def test_a_line_counts_once_in_its_place_and_in_its_direction(what: str):
    head, worker, _lines = meet()
    one, two = (line(head.session.seal(word)) for word in (b"one", b"two"))
    _other_head, other_worker, _lines = meet()
    if what == "again":
        worker.session.open(one)
    hears, given = {
        "again": (worker, one),
        "back": (head, one),
        "left out": (worker, two),
        "altered": (worker, one.replace(b" one", b" ONE")),
        "from another connection": (other_worker, one),
    }[what]
    with pytest.raises(WireError):
        hears.session.open(given)


def test_no_text_of_an_identity_shows_the_key():
    assert "k" * 4 not in repr(PAIR)


@pytest.mark.parametrize("text", ["", "ab" * 31, "AB" * 32, "zz" * 32, "ab" * 33])
def test_a_key_has_64_digits(text: str):
    assert read_key("ab" * 32 + "\n") == b"\xab" * 32
    with pytest.raises(WireError):
        read_key(text)
