# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Python requirements and versions: whether what is installed is what is wanted. Pure."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping

with contextlib.suppress(
    ImportError
):  # whoever runs this has it with ansible-core; ansible-test imports without
    from packaging.requirements import InvalidRequirement, Requirement
    from packaging.utils import canonicalize_name
    from packaging.version import InvalidVersion, Version


class RequirementError(ValueError):
    """A text that is no Python requirement, or one that a list of distributions and versions cannot answer."""


class VersionError(ValueError):
    """A text that is no version, where one is needed."""


def missing_requirements(requirements: Iterable[str], installed: Mapping[str, str]) -> list[str]:
    """Requirements that the installed distributions (name -> version) do not meet."""
    return [r for r in requirements if not satisfied(r, installed)]


def satisfied(requirement: str, installed: Mapping[str, str]) -> bool:
    """True if a requirement, such as name, name==1.*, or name>=1.2,<2, is met by the installed (name -> version)."""
    wanted = parse_requirement(requirement)
    versions = {canonicalize_name(name): version for name, version in installed.items()}
    version = versions.get(canonicalize_name(wanted.name))
    try:
        return version is not None and wanted.specifier.contains(version, prereleases=True)
    except InvalidVersion:
        return False


def parse_requirement(text: str) -> Requirement:
    """A name with the versions that will do.

    :raises RequirementError: not a requirement, or one with an address, extras or conditions, which a list of versions cannot show
    """
    try:
        requirement = Requirement(text)
    except InvalidRequirement:
        requirement = None
    if not requirement or requirement.url or requirement.extras or requirement.marker:
        raise RequirementError(
            f"{text!r}: expected a name, and versions after it as in name==1.*, or name>=1.2,<2"
        )
    return requirement


def version_of(text: str, what: str) -> Version:
    """:raises VersionError: the text is no version"""
    try:
        return Version(text)
    except InvalidVersion:
        raise VersionError(f"{what}: expected a version, such as 580.95, seen {text!r}") from None


def older(version: str, minimum: str) -> bool:
    """Whether a version is before another one. A text that is no version counts as older."""
    try:
        return Version(version) < Version(minimum)
    except InvalidVersion:
        return True
