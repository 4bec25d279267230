# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compares a folder with its manifest: what is there, by name and size, and what the stat cache vouches for."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .._common import json_text
from .manifest import File

CACHE_VERSION = 1
Signature = tuple[int, int, int, int]


def signature(status: os.stat_result) -> Signature:
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino


def scan(folder: Path) -> dict[str, os.stat_result]:
    """Everything below `folder` except directories, links not followed: {relative path: lstat}."""
    found: dict[str, os.stat_result] = {}
    pending = [""]
    while pending:
        prefix = pending.pop()
        try:
            entries = list(os.scandir(folder / prefix if prefix else folder))
        except FileNotFoundError:
            continue
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                pending.append(f"{prefix}{entry.name}/")
            else:
                found[prefix + entry.name] = entry.stat(follow_symlinks=False)
    return found


@dataclass(frozen=True)
class Comparison:
    """How a folder compares with its manifest, by name, size and stat cache alone.

    `verified`, `unknown` (right size, no valid entry in the stat cache), `damaged` {path: why} and `missing` are
    the manifest's files; `unexpected` are the others.
    """

    verified: list[str]
    unknown: list[str]
    damaged: dict[str, str]
    missing: list[str]
    unexpected: list[str]


def compare(
    files: Mapping[str, File],
    found: Mapping[str, os.stat_result],
    cache: Mapping[str, list[Any]],
) -> Comparison:
    """:param cache: {path: [*signature, sha256]}"""
    result = Comparison([], [], {}, [], sorted(set(found) - set(files)))
    for path, file in files.items():
        status = found.get(path)
        if status is None:
            result.missing.append(path)
        elif not stat.S_ISREG(status.st_mode):
            result.damaged[path] = f"expected a regular file, seen {stat.filemode(status.st_mode)}"
        elif status.st_size != file.size:
            result.damaged[path] = f"expected {file.size} bytes, seen {status.st_size}"
        elif cache.get(path) == [*signature(status), file.sha256]:
            result.verified.append(path)
        else:
            result.unknown.append(path)
    return result


def read_cache(path: Path) -> dict[str, list[Any]]:
    """The stat cache. One that cannot be read counts as empty: everything is hashed again."""
    try:
        data = json_text.read_file(path)
    except (OSError, json_text.JsonError):
        return {}
    files = data.get("files") if isinstance(data, dict) and data.get("version") == CACHE_VERSION else None
    return files if isinstance(files, dict) else {}


def disk_bytes(status: os.stat_result) -> int:
    """Bytes that a file takes on disk. A file that is written in any order has its full size long before its bytes."""
    return min(status.st_size, status.st_blocks * 512)
