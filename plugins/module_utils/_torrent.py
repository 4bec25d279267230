# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A snapshot as a BitTorrent v2 torrent (BEP 52). Standard library only.

What travels between hosts is the description: the SHA-256 of every piece, and nothing else. Names, sizes and what the
bytes must be in the end come from each host's own lock, so a description that lies can cost time and no more: the flat
sha256 of every file decides. The torrent is made of the lock, the description and the salt of the run. Its info-hash
is therefore known only to those who know the salt.

In the torrent a file is named by its number, in the order of the paths: a BitTorrent client may change names it does
not like, and the real ones are given to it as renamed files.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import os
import stat
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible_collections.sparkfleet.vllm.plugins.module_utils import _file
from ansible_collections.sparkfleet.vllm.plugins.module_utils._manifest import Manifest
from ansible_collections.sparkfleet.vllm.plugins.module_utils._snapshot import (
    FILE_MODE,
    Signature,
    Snapshot,
    SnapshotError,
    in_parallel,
    signature,
)

LEAF = 16 * 1024
"""Bytes under one leaf of the hash tree, fixed by BEP 52."""
HASH = 32
"""Bytes of a SHA-256."""
PIECES = 2048
"""How many pieces a snapshot should have: enough that receivers have different ones to give, few enough to name."""
SMALLEST, LARGEST = 256 * 1024, 8 * 1024 * 1024
READ = 1024 * 1024
CACHE_VERSION = 1
FORMAT = "1:"
"""Before a description. Another way to hash or to order would be another number."""

Hashes = Mapping[str, bytes]
"""{path: the hashes of its pieces, one after the other}; of a file within one piece its root; of an empty one nothing."""


class DescriptionError(ValueError):
    """A description that is not of this snapshot; the text says what was expected and seen."""


# -- hash trees


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


def _padding(piece: int) -> bytes:
    """Hash of a piece that consists of no leaf at all: what fills up the tree above the pieces."""
    hashed = bytes(HASH)
    for _ in range((piece // LEAF).bit_length() - 1):
        hashed = hashlib.sha256(hashed + hashed).digest()
    return hashed


def _piece_hash(leaves: Sequence[bytes], piece: int, only: bool) -> bytes:
    """:param only: the file's one piece, whose tree is only as high as it needs to be"""
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
    # A piece is a multiple of this, or this a multiple of a piece: a read never ends inside a leaf.
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


# -- the torrent


def metainfo(manifest: Manifest, hashes: Hashes, salt: str) -> bytes:
    """The torrent file, bencoded: v2 only, private, the salt in its info dictionary. Without the empty files."""
    piece = piece_size(manifest.size)
    tree: dict[str, Any] = {}
    layers: dict[bytes, bytes] = {}
    for number, path in enumerate(order(manifest)):
        size, root = manifest.files[path].size, hashes[path]
        if size > piece:
            layer = root
            split = [layer[start : start + HASH] for start in range(0, len(layer), HASH)]
            root = root_of(split, _padding(piece))
            layers[root] = layer
        if size:
            tree[f"{number:06}"] = {"": {"length": size, "pieces root": root}}
    return bencode(
        {
            "info": {
                "file tree": tree,
                "meta version": 2,
                "name": manifest.commit,
                "piece length": piece,
                "private": 1,
                "salt": salt,
            },
            "piece layers": layers,
        }
    )


def order(manifest: Manifest) -> list[str]:
    """The paths in the order of the torrent's files and of a description."""
    return sorted(manifest.files)


def bencode(value: Any) -> bytes:
    if isinstance(value, int):
        return b"i%de" % value
    if isinstance(value, str):
        value = value.encode()
    if isinstance(value, bytes):
        return b"%d:%s" % (len(value), value)
    pairs = sorted((key.encode() if isinstance(key, str) else key, item) for key, item in value.items())
    return b"d" + b"".join(bencode(key) + bencode(item) for key, item in pairs) + b"e"


# -- the description


def encode(manifest: Manifest, hashes: Hashes) -> str:
    return FORMAT + base64.b64encode(b"".join(hashes[path] for path in order(manifest))).decode()


def decode(manifest: Manifest, text: str) -> dict[str, bytes]:
    """:raises DescriptionError: it is of another snapshot, or of another version of this collection"""
    piece = piece_size(manifest.size)
    lengths = {path: pieces_of(manifest.files[path].size, piece) * HASH for path in order(manifest)}
    try:
        data = base64.b64decode(text[len(FORMAT) :], validate=True) if text.startswith(FORMAT) else None
    except (binascii.Error, ValueError):
        data = None
    if data is None or len(data) != sum(lengths.values()):
        raise DescriptionError(
            f"torrents: expected {sum(lengths.values()) // HASH} piece hashes of {manifest.repository} at "
            f"{manifest.commit}, seen {'something else' if data is None else f'{len(data) / HASH:g}'}; "
            "take what snapshot_torrent of the same version returns for the same lock"
        )
    hashes: dict[str, bytes] = {}
    start = 0
    for path, length in lengths.items():
        hashes[path] = data[start : start + length]
        start += length
    return hashes


def describe(snapshot: Snapshot, remember: bool = True) -> dict[str, bytes]:
    """The piece hashes of a promoted snapshot. Reads a file once, or not at all if the cache knows it.

    :param remember: False: write nothing
    :raises SnapshotError: a file is not what the lock says
    """
    manifest = snapshot.manifest
    piece = piece_size(manifest.size)
    cached = read_cache(snapshot, piece)
    hashes = {path: b"" for path, file in manifest.files.items() if not file.size}
    signatures: dict[str, Signature] = {}
    unread: list[str] = []
    for path, file in manifest.files.items():
        try:
            status = (snapshot.path / path).lstat()
        except OSError:
            raise _refusal(snapshot, path, "no such file") from None
        if not stat.S_ISREG(status.st_mode) or status.st_size != file.size:
            seen = f"{stat.filemode(status.st_mode)}, {status.st_size} bytes"
            raise _refusal(snapshot, path, seen)
        signatures[path] = signature(status)
        if path not in hashes:
            known = cached.get(path)
            if known and known[0] == signatures[path]:
                hashes[path] = known[1]
            else:
                unread.append(path)

    def one(path: str) -> tuple[str, Hashed]:
        return path, hash_file(snapshot.path / path, piece)

    for path, hashed in in_parallel(
        one, sorted(unread, key=lambda path: -manifest.files[path].size), snapshot.workers
    ):
        if hashed.sha256 != manifest.files[path].sha256:
            raise _refusal(snapshot, path, f"sha256 {hashed.sha256}")
        hashes[path], signatures[path] = hashed.pieces, signature(hashed.status)
    if unread and remember:
        write_cache(snapshot, piece, hashes, signatures)
    return hashes


def _refusal(snapshot: Snapshot, path: str, seen: str) -> SnapshotError:
    file = snapshot.manifest.files[path]
    return SnapshotError(
        f"{snapshot.path / path}: expected {file.size} bytes with sha256 {file.sha256}, seen {seen}; "
        "it is not given to other hosts. Run hf_snapshot here, which mends it"
    )


# -- the cache of piece hashes, beside the snapshot


def cache_path(snapshot: Snapshot) -> Path:
    return snapshot.folder / f".pieces-{snapshot.manifest.commit}.json"


def read_cache(snapshot: Snapshot, piece: int) -> dict[str, tuple[Signature, bytes]]:
    """{path: (signature of the file that was hashed, piece hashes)}. One that cannot be used is no cache."""
    try:
        data = json.loads(cache_path(snapshot).read_text())
        if data["version"] != CACHE_VERSION or data["piece"] != piece:
            return {}
        known: dict[str, tuple[Signature, bytes]] = {}
        for path, ((size, mtime, ctime, inode), sha256, pieces) in data["files"].items():
            file = snapshot.manifest.files.get(path)
            hashes = bytes.fromhex(pieces)
            if file and file.sha256 == sha256 and len(hashes) == pieces_of(size, piece) * HASH:
                known[path] = (size, mtime, ctime, inode), hashes
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return {}
    return known


def write_cache(snapshot: Snapshot, piece: int, hashes: Hashes, signatures: Mapping[str, Signature]) -> None:
    files = {
        path: [signatures[path], snapshot.manifest.files[path].sha256, pieces.hex()]
        for path, pieces in sorted(hashes.items())
    }
    data = {"version": CACHE_VERSION, "piece": piece, "files": files}
    _file.write(cache_path(snapshot), json.dumps(data, separators=(",", ":")).encode(), FILE_MODE)
