# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Releases of vLLM, and ranges of them such as C(>=0.25,<0.27), as PEP 440 has them.

A build between two releases counts as the later one: its name, such as 0.26.1rc1.dev7, does not tell how much of that release it has.
"""

from __future__ import annotations

import re

try:
    from packaging.specifiers import InvalidSpecifier, SpecifierSet
    from packaging.version import InvalidVersion, Version
except ImportError:  # a host's environment has it through huggingface_hub, a controller through ansible-core
    HAS_PACKAGING = False
else:
    HAS_PACKAGING = True

# Without ~=, which many take for less than it means: ~=0.25 allows every later 0.x.
_OPERATORS = {"<", "<=", ">", ">=", "==", "!="}
# A build of a clone without tags is called 0.1.dev1+g…, whatever it holds. Nobody serves a vLLM of that age.
_FIRST_TAGGED = (0, 2)


def release(version: str) -> str | None:
    """The release that a version belongs to: ``0.20.2rc1.dev49+g9b4e839`` is 0.20.2. None if the version does not tell."""
    try:
        seen = Version(version)
    except InvalidVersion:
        return None
    untagged = seen.release < _FIRST_TAGGED and (seen.is_devrelease or seen.local)
    return None if untagged else seen.base_version


def tagged(tag: str | None) -> str | None:
    """The version that a tag of a vLLM image names, as ``v0.26.0-cu130`` does; None for any other tag."""
    version = re.split("[-_]", tag or "")[0]
    names_one = version.startswith("v") and "." in version and release(version)
    return version[1:] if names_one else None


def within(version: str, span: str) -> bool:
    """Whether a version lies in a range. A version that does not tell its release lies in none, and an invalid range holds nothing."""
    seen = release(version)
    return seen is not None and not complaint(span) and SpecifierSet(span).contains(seen)


def complaint(span: str) -> str | None:
    """What is wrong with a range, or None."""
    try:
        bounds = [bound for part in span.split(",") for bound in SpecifierSet(part) or [None]]
    except InvalidSpecifier:
        bounds = [None]
    if all(bound and bound.operator in _OPERATORS for bound in bounds):
        return None
    return f"expected a range of releases, such as <0.21 or >=0.25,<0.27, seen '{span}'"
