# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The words of the members: what is written is read, and what is not of this version is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from ansible_collections.sparkfleet.vllm.plugins.module_utils._unit import words
from ansible_collections.sparkfleet.vllm.plugins.module_utils._unit.words import FromHead, FromWorker, Told

GENERATION = "0123456789abcdef"
MEMBERS = {str(rank): Told("running", GENERATION, 0.5) for rank in range(16)}
HEAD = FromHead(GENERATION, "running", GENERATION, 2, "rank 1 closed the link", MEMBERS)
WORKER = FromWorker("ending", GENERATION, GENERATION, asked=True, why="asked to stop")


def test_what_is_said_is_heard():
    assert words.read_head(words.encoded(HEAD)) == HEAD
    assert words.read_worker(words.encoded(WORKER)) == WORKER


def test_the_longest_word_fits_a_line():
    longest = FromHead(GENERATION, "starting", GENERATION, 10**6, "w" * words.LONGEST_WHY, MEMBERS)
    assert len(words.encoded(longest)) < words.LIMIT / 2


@pytest.mark.parametrize(
    "change",
    [
        {"phase": "asleep"},
        {"run": "0123"},
        {"generation": "../../../etc/pass"},
        {"restarts": "2"},
        {"members": {"0": {"phase": "running", "generation": "", "age": "x"}}},
        {"members": {"-1": {"phase": "running", "generation": "", "age": 1}}},
        {"members": {str(rank): {"phase": "running", "generation": "", "age": 1} for rank in range(17)}},
        {"members": None},
    ],
    ids=str,
)
def test_what_no_head_says_is_refused(change: dict[str, Any]):
    said = json.loads(words.encoded(HEAD)) | change
    with pytest.raises(words.WordError):
        words.read_head(json.dumps(said).encode())


@pytest.mark.parametrize("change", [{"asked": 1}, {"ended": "x"}, {"why": None}], ids=str)
def test_what_no_worker_says_is_refused(change: dict[str, Any]):
    said = json.loads(words.encoded(WORKER)) | change
    with pytest.raises(words.WordError):
        words.read_worker(json.dumps(said).encode())


def test_a_reason_is_one_printable_line():
    assert words.reason("a\x1b[31m\nb\u202e") == "a [31m b "
    assert len(words.reason("x" * 999)) == words.LONGEST_WHY
