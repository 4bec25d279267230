# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The pieces of files and their hashes, as BitTorrent v2 (BEP 52) makes them. Standard library only.

Hashes are kept beside the snapshot, by the SHA-256 of the file. The stat cache tells whether a file still has that.

    <store>/models/<org>--<name>/.pieces-<commit>.json
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .._common import files as common_files
from .._common import json_text

LEAF = 16 * 1024
"""Bytes under one leaf of the hash tree, fixed by BEP 52."""
HASH = 32
"""Bytes of a SHA-256."""
PIECES = 2048
"""How many pieces a snapshot should have: enough that receivers have different ones to give, few enough to name."""
SMALLEST, LARGEST = 64 * 1024, 8 * 1024 * 1024
READ = 1024 * 1024
CACHE_VERSION = 1


def piece_size(total: int) -> int:
    """Bytes of a piece: a power of two that follows from the size of the snapshot alone, so that all hosts agree."""
    size = SMALLEST
    while size < LARGEST and size * PIECES < total:
        size *= 2
    return size


def pieces_of(size: int, piece: int) -> int:
    return -(-size // piece)


def root_of(hashes: Sequence[bytes], padding: bytes) -> bytes:
    """Root of a binary tree over `hashes`, filled up with `padding` to a power of two."""
    level = list(hashes)
    while len(level) > 1:
        if len(level) % 2:
            level.append(padding)
        level = [hashlib.sha256(level[i] + level[i + 1]).digest() for i in range(0, len(level), 2)]
        padding = hashlib.sha256(padding + padding).digest()
    return level[0]


def padding_of(piece: int) -> bytes:
    """Hash of a piece without any leaf. It fills up the tree above the pieces."""
    hashed = bytes(HASH)
    for _again in range((piece // LEAF).bit_length() - 1):
        hashed = hashlib.sha256(hashed + hashed).digest()
    return hashed


def _piece_hash(leaves: Sequence[bytes], piece: int, only: bool) -> bytes:
    """:param only: the file has no other piece, so its tree is only as high as it needs to be"""
    missing = 0 if only else piece // LEAF - len(leaves)
    return root_of([*leaves, *[bytes(HASH)] * missing], bytes(HASH))


@dataclass(frozen=True)
class Hashed:
    """One file, read once: flat hash, piece hashes, and its status before the first byte was read."""

    sha256: str
    pieces: bytes
    status: os.stat_result


def hash_file(path: Path, piece: int, advance: Callable[[int], None] = lambda count: None) -> Hashed:
    """Flat SHA-256 and piece hashes in one pass. hashlib lets other threads run meanwhile."""
    flat, sha256 = hashlib.sha256(), hashlib.sha256
    pieces: list[bytes] = []
    leaves: list[bytes] = []
    # Of block and piece, one is a multiple of the other: a read never ends inside a leaf.
    block = min(piece, READ)
    buffer = memoryview(bytearray(block))
    with path.open("rb", buffering=0) as file:
        status = os.fstat(file.fileno())
        while count := _fill(file, buffer):
            flat.update(buffer[:count])
            leaves += [
                sha256(buffer[start : min(start + LEAF, count)]).digest() for start in range(0, count, LEAF)
            ]
            if len(leaves) * LEAF >= piece:
                pieces.append(_piece_hash(leaves, piece, only=status.st_size <= piece))
                leaves = []
            advance(count)
    if leaves:
        pieces.append(_piece_hash(leaves, piece, only=not pieces))
    return Hashed(flat.hexdigest(), b"".join(pieces), status)


def _fill(file: Any, buffer: memoryview) -> int:
    """Read until the buffer is full or the file ends."""
    done = 0
    while done < len(buffer) and (count := file.readinto(buffer[done:])):
        done += count
    return done


# -- the cache


def cache_path(folder: Path, commit: str) -> Path:
    """:param folder: of the repository in the store"""
    return folder / f".pieces-{commit}.json"


def read_cache(path: Path, piece: int) -> dict[str, bytes]:
    """{sha256 of a file: the hashes of its pieces}. A cache that cannot be used counts as empty."""
    try:
        data = json_text.read_file(path)
        if data["version"] != CACHE_VERSION or data["piece"] != piece:
            return {}
        return {sha256: bytes.fromhex(hashes) for sha256, hashes in data["files"].items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return {}


def add_to_cache(path: Path, piece: int, hashes: Mapping[str, bytes]) -> None:
    """:param hashes: {sha256 of a file: the hashes of its pieces}"""
    files = {**read_cache(path, piece), **hashes}
    data = {
        "version": CACHE_VERSION,
        "piece": piece,
        "files": {sha256: pieces.hex() for sha256, pieces in sorted(files.items())},
    }
    common_files.write(path, json.dumps(data, separators=(",", ":")).encode())
