# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The name of an image in its parts. Asks nobody."""

from __future__ import annotations

import re
from dataclasses import dataclass

from .oci import DIGEST

DOCKER_HUB = "docker.io"
_HOST = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?)(?::[0-9]+)?")
_PATH = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")


@dataclass(frozen=True)
class Reference:
    """An image reference in its parts. ``name`` is the reference as written, without tag and digest."""

    name: str
    registry: str
    repository: str
    tag: str | None
    digest: str | None

    def pinned(self, digest: str) -> str:
        return f"{self.name}@{digest}"


def parse_reference(text: str) -> Reference:
    """``[registry/]path[:tag][@sha256:…]``, with Docker's rules for what is a registry.

    :raises ValueError: not a reference, or one with neither tag nor digest
    """
    name, _at, digest = text.partition("@")
    tag = None
    head, colon, tail = name.rpartition(":")
    if colon and "/" not in tail:
        name, tag = head, tail
    first, slash, rest = name.partition("/")
    if slash and (first == "localhost" or "." in first or ":" in first):
        registry, path = first, rest
    else:
        registry, path = DOCKER_HUB, name
    if registry in ("index.docker.io", "registry-1.docker.io"):
        registry = DOCKER_HUB
    repository = f"library/{path}" if registry == DOCKER_HUB and "/" not in path else path
    if not _HOST.fullmatch(registry) or not all(_PATH.fullmatch(part) for part in path.split("/")):
        raise ValueError(f"expected an image reference such as vllm/vllm-openai:tag, seen '{text}'")
    if tag is not None and not _TAG.fullmatch(tag):
        raise ValueError(f"expected a tag of letters, digits, '_', '.' and '-', seen '{tag}' in '{text}'")
    if "@" in text and not DIGEST.fullmatch(digest):
        raise ValueError(f"expected sha256: and 64 lower-case hex digits after '@', seen '{digest}'")
    if not tag and not digest:
        raise ValueError(f"expected a tag or a digest, seen '{text}'; 'latest' too has to be written")
    return Reference(name, registry, repository, tag, digest or None)


def complaint(text: str) -> str | None:
    """What is wrong with a reference; None for a sound one."""
    try:
        parse_reference(text)
    except ValueError as error:
        return str(error)
    return None
