# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The fixed prompts: never the same twice, and always in whole rounds."""

from __future__ import annotations

import pytest
from ansible_collections.sparkfleet.vllm.plugins.module_utils._vllm.prompts import (
    KINDS,
    SUBJECTS,
    prompt,
    prompt_of,
)


def test_prompts_never_repeat_and_come_in_rounds() -> None:
    assert len({prompt(number) for number in range(400)}) == 400
    assert [prompt(number) for number in range(len(KINDS))] == [prompt_of(kind, 0) for kind in KINDS]


@pytest.mark.parametrize("kind", KINDS)
def test_the_prompts_of_a_kind_differ_by_their_subject_before_they_differ_by_a_mark(kind: str) -> None:
    count = len(SUBJECTS[kind][1])
    texts = [prompt_of(kind, number) for number in range(count + 1)]
    assert len(set(texts)) == count + 1
    assert texts[count] == f"{texts[0]} (2)"
    assert not any("{" in text or "|" in text for text in texts)


def test_the_kinds_are_what_their_names_say() -> None:
    assert KINDS == ("code", "prose", "structured", "chinese")
    assert all("中文" in prompt_of("chinese", number) for number in range(20))
    assert all("JSON" in prompt_of("structured", number) for number in range(20))
