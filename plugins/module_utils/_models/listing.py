# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The Hub's list of a revision's files: what of it can be locked, and what an endpoint leaves out. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

COMMIT = re.compile(r"[0-9a-f]{40}")
SHA256 = re.compile(r"[0-9a-f]{64}")
MOST_FILES = 50_000
"""The Hub cuts off a revision's list of files here."""


class ListingError(ValueError):
    """The list has another shape: the text says what was expected and seen."""


@dataclass(frozen=True)
class Entry:
    """A file. `sha256` is known of one in large-file storage, git's `oid` of any other."""

    path: str
    size: int
    sha256: str
    oid: str


def parse(data: Any) -> tuple[str, list[Entry | str]]:
    """The commit, and its files in the order of the list. A file without size or checksum is a name alone.

    :raises ListingError: it is no list of a revision
    """
    commit, files = (data.get("sha"), data.get("siblings")) if isinstance(data, dict) else (None, None)
    if not isinstance(commit, str) or not COMMIT.fullmatch(commit):
        raise ListingError(f"expected a commit of 40 hexadecimal digits, seen {commit!r:.60}")
    if not isinstance(files, list) or not 0 < len(files) < MOST_FILES:
        seen = len(files) if isinstance(files, list) else "none"
        raise ListingError(f"expected to list 1 to {MOST_FILES - 1} files, seen {seen}")
    return commit, [_entry(file) for file in files]


def _entry(file: Any) -> Entry | str:
    path = file.get("rfilename") if isinstance(file, Mapping) else None
    if not isinstance(path, str):
        raise ListingError(f"expected a file with its rfilename, seen {file!r:.60}")
    large = file.get("lfs")
    known = large if isinstance(large, Mapping) else file
    size, sha256, oid = known.get("size"), known.get("sha256"), file.get("blobId")
    if not isinstance(size, int) or isinstance(size, bool) or size < 0:
        return path
    if known is large:
        return Entry(path, size, sha256, "") if isinstance(sha256, str) and SHA256.fullmatch(sha256) else path
    return Entry(path, size, "", oid) if isinstance(oid, str) and COMMIT.fullmatch(oid) else path
