# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's cache of patches, each under its sha256, and what a lock says of one. Asks nobody."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from .._common import files
from .._common.paths import patch_path


@dataclass(frozen=True)
class Fingerprint:
    """What a lock says of a file. People compare the md5 by eye; the sha256 is what is trusted."""

    size: int
    md5: str
    sha256: str


def fingerprint(content: bytes) -> Fingerprint:
    return Fingerprint(
        len(content),
        hashlib.md5(content, usedforsecurity=False).hexdigest(),
        hashlib.sha256(content).hexdigest(),
    )


def cached(cache: str, sha256: str, name: str) -> str | None:
    """Path of the cached file if its bytes match its name, else None."""
    path = Path(patch_path(cache, sha256, name))
    try:
        content = path.read_bytes()
    except OSError:
        return None
    return str(path) if hashlib.sha256(content).hexdigest() == sha256 else None


def keep(cache: str, name: str, content: bytes) -> str:
    """Put a file into the cache, whole or not at all. Gives its path."""
    path = Path(patch_path(cache, hashlib.sha256(content).hexdigest(), name))
    files.write(path, content)
    return str(path)
