# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a snapshot must consist of: {path: {size, sha256}} of a repository at a commit. Pure, no I/O."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

COMMIT = re.compile(r"[0-9a-f]{40}")
SHA256 = re.compile(r"[0-9a-f]{64}")
# What the Hub allows. In a folder name "--" stands for the slash, so neither part may hold it.
REPOSITORY = re.compile(r"(?!.*(--|\.\.))[\w](?:[\w.-]{0,94}[\w])?/[\w](?:[\w.-]{0,94}[\w])?", re.ASCII)
PATH_LIMIT, NAME_LIMIT = 1024, 255


class ManifestError(ValueError):
    """A manifest that must not be used. `problems` holds every reason, not only the first."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


@dataclass(frozen=True)
class File:
    """What one file must be: `size` in bytes, `sha256` in lower-case hex."""

    size: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """All files of `repository` at `commit`."""

    repository: str
    commit: str
    files: Mapping[str, File]

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files.values())


def parse(repository: Any, commit: Any, files: Any) -> Manifest:
    """Check and type one manifest.

    :raises ManifestError: with every problem found
    """
    problems = [*repository_problems(repository), *commit_problems(repository, commit)]
    entries: dict[str, File] = {}
    if not isinstance(files, Mapping) or not files:
        seen = "none" if files in (None, {}) else repr(files)[:80]
        problems.append(
            f"{repository}: expected files as {{path: {{size, sha256}}}}, seen {seen}; take them from the recipe's lock"
        )
    else:
        for path, entry in files.items():
            found = [*path_problems(path), *_entry_problems(path, entry)]
            problems += [f"{repository}: {problem}" for problem in found]
            if not found:
                entries[path] = File(int(entry["size"]), entry["sha256"])
        problems += [f"{repository}: {problem}" for problem in _clashes(entries)]
    if problems:
        raise ManifestError(problems)
    return Manifest(repository, commit, entries)


def repository_problems(repository: Any) -> Iterator[str]:
    if not isinstance(repository, str) or not REPOSITORY.fullmatch(repository):
        yield f"repository: expected org/name as the Hub spells it, seen {repository!r}; correct the name"


def commit_problems(repository: Any, commit: Any) -> Iterator[str]:
    if not isinstance(commit, str) or not COMMIT.fullmatch(commit):
        yield (
            f"{repository}: expected a commit of 40 hex digits, seen {commit!r}; "
            "a branch or a tag can move: lock it to its commit first"
        )


def path_problems(path: Any) -> Iterator[str]:
    """Why `path` cannot name a file inside a snapshot: it must stay in it and mean the same everywhere."""
    if not isinstance(path, str) or not path:
        yield f"expected a file name, seen {path!r}; correct the lock"
        return
    parts = path.split("/")
    reason = ""
    if path.startswith("/"):
        reason = "it is absolute"
    elif ".." in parts:
        reason = "it leaves the snapshot"
    elif "" in parts or "." in parts:
        reason = "it has an empty or a '.' part"
    elif "\\" in path or any(ord(character) < 32 or ord(character) == 127 for character in path):
        reason = "it has a backslash or a control character"
    elif any("\ud800" <= character <= "\udfff" for character in path):
        reason = "it is no Unicode text"
    elif len(path.encode()) > PATH_LIMIT or any(len(part.encode()) > NAME_LIMIT for part in parts):
        reason = f"it is longer than {PATH_LIMIT} bytes, or a part of it than {NAME_LIMIT}"
    if reason:
        yield f"expected a relative path inside the snapshot, seen {path!r}: {reason}; do not use this manifest"


def _entry_problems(path: Any, entry: Any) -> Iterator[str]:
    if not isinstance(entry, Mapping):
        yield f"{path}: expected {{size, sha256}}, seen {entry!r}; correct the lock"
        return
    size, sha256 = entry.get("size"), entry.get("sha256")
    if isinstance(size, bool) or not isinstance(size, int) or size < 0:
        yield f"{path}: expected size in bytes, seen {size!r}; correct the lock"
    if not isinstance(sha256, str) or not SHA256.fullmatch(sha256):
        yield f"{path}: expected sha256 as 64 lower-case hex digits, seen {sha256!r}; correct the lock"
    if unknown := sorted(str(key) for key in set(entry) - {"size", "sha256"}):
        yield f"{path}: expected only size and sha256, seen also {', '.join(unknown)}; correct the lock"


def _clashes(files: Mapping[str, File]) -> Iterator[str]:
    """Names that are a file and also the folder of another."""
    folders: dict[str, str] = {}
    for path in files:
        parts = path.split("/")
        for depth in range(1, len(parts)):
            folders.setdefault("/".join(parts[:depth]), path)
    for path in sorted(set(files) & set(folders)):
        yield f"{path}: expected a file, seen also a folder of that name ({folders[path]}); do not use this manifest"
