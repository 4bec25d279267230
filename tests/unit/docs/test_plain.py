# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Pages are plain English: none has a phrase that makes a reader stop and translate."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
PAGES = sorted(
    path
    for pattern in (
        "*.md",
        "docs/*.md",
        "molecule/lab/*.md",
        "molecule/lab/*.sh",
        "Makefile",
        "controller/*.yml",
        "playbooks/**/*.yml",
        "roles/*/README.md",
        "recipes/*.yml",
        "inventory/spark/**/*.yml",
        "roles/*/*/*.yml",
    )
    for path in ROOT.glob(pattern)
    if path.name != "CHANGELOG.md"
)

# The phrase, and what a page says instead.
ODD = {
    r"(?:is|are|was|were) told": "name who says it: the run reports, the message says",
    r"(?:is|are|be) (?:gone on with|taken up)|(?:goes|go) on with": "resumes, continues",
    r"brought back|brings back": "rolls back, restores, returns to",
    r"by then": "until that moment, or nothing",
    r"until none goes": "repeat until none is left",
    r"by hand of": "by",
    r"of yours": "your",
    r"(?:is|are) held against|holds? \w+ against": "is checked against, compared with",
    r"(?:ask|asks|asking) nobody|nobody (?:outside )?is asked": "contacts no upstream, queries nothing",
    r"is nobody's": "has no owner, no upstream",
    r"to and fro": "back and forth",
    r"hands? (?:it|them) on": "passes, sets, publishes",
    r"in its turn": "also, then",
    r"(?<![a-z]\s)who(?:ever)? (?:asks|calls|counts|gets|gives|publishes|reaches|runs|takes|wants)": "name the subject: a host that asks",
    r"(?:one|what one) sees": "you see",
}


# Between two words of a phrase a line may end, also one of a comment.
GAP = r"\s+(?:#\s+)?"


def odd(text: str) -> list[str]:
    """`line: phrase: what to write` for each such phrase."""
    found = []
    for phrase, instead in ODD.items():
        for match in re.finditer(r"\b(?:" + phrase.replace(" ", GAP) + r")\b", text, re.IGNORECASE):
            line = text[: match.start()].count("\n") + 1
            found.append(f"{line}: {match[0]!r}: {instead}")
    return found


def test_the_pages_are_found() -> None:
    names = {str(path.relative_to(ROOT)) for path in PAGES}
    assert {"README.md", "docs/operations.md", "roles/vllm_serve/meta/argument_specs.yml"} <= names
    assert {"playbooks/tasks/change.yml", "roles/prune/README.md", "molecule/lab/down.sh"} <= names


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_page_has_no_odd_phrase(path: Path) -> None:
    found = odd(path.read_text())
    assert not found, "\n".join(f"{path.relative_to(ROOT)}:{each}" for each in found)


def test_an_odd_phrase_is_found_with_its_line() -> None:
    text = "Plain.\nA host that lacks one is\ntold. What arrived by then is kept.\n    # so until none\n    # goes any more\n"
    assert [each.split(": ")[:2] for each in odd(text)] == [
        ["2", r"'is\ntold'"],
        ["3", "'by then'"],
        ["4", r"'until none\n    # goes'"],
    ]
