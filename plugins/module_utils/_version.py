# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Releases of vLLM, and ranges of them such as C(>=0.25,<0.27).

A build between two releases counts as the release that it leads up to: of 0.26.1rc1.dev7 nobody can tell from its name
what is in it yet.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable

Release = tuple[int, int, int]

_RELEASE = re.compile(r"v?(\d+)\.(\d+)(?:\.(\d+))?(?![\d])")
_BOUND = re.compile(r"(<=|>=|==|<|>)\s*(\d+\.\d+(?:\.\d+)?)")
_OPERATORS: dict[str, Callable[[Release, Release], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
}


def release(version: str) -> Release | None:
    """The release that a version belongs to: ``0.20.2rc1.dev49+g9b4e839`` is (0, 20, 2). None: it is no version."""
    found = _RELEASE.match(version)
    return (int(found[1]), int(found[2]), int(found[3] or 0)) if found else None


def tagged(tag: str | None) -> str | None:
    """The version that a tag of a vLLM image names, as ``v0.26.0-cu130`` does; None for any other tag."""
    return tag[1:] if tag and tag.startswith("v") and release(tag) else None


def within(version: str, span: str) -> bool:
    """Whether a version lies in a range. What is no version lies in none, and nothing in what is no range."""
    seen = release(version)
    if seen is None or complaint(span):
        return False
    bounds = _BOUND.findall(span)
    return all(_OPERATORS[sign](seen, release(bound) or seen) for sign, bound in bounds)


def complaint(span: str) -> str | None:
    """What is wrong with a range, or None."""
    if all(_BOUND.fullmatch(part.strip()) for part in span.split(",")):
        return None
    return f"expected a range of releases, such as <0.21 or >=0.25,<0.27, seen '{span}'"
