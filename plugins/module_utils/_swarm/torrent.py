# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A snapshot as a BitTorrent v2 torrent (BEP 52). Standard library only.

Only the description travels between hosts: the SHA-256 of every piece. Names, sizes and the final hashes come from each host's
own lock, so a false description costs time and no more: the flat sha256 of every file decides. The torrent is made of the lock,
the description and the salt of the run. So only those who know the salt know its info-hash.

The torrent names a file by its number, in the order of the paths: a BitTorrent client may change names that it does not like. It
gets the real names as renamed files.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any

from .._common.work import in_parallel
from .._models.compare import compare, scan
from .._models.compare import read_cache as read_stat_cache
from .._models.manifest import Manifest
from .._models.pieces import (
    HASH,
    Hashed,
    add_to_cache,
    hash_file,
    padding_of,
    piece_size,
    pieces_of,
    read_cache,
    root_of,
)
from .._models.snapshot import Snapshot, SnapshotError

FORMAT = "1:"
"""Prefix of a description. Another way to hash or to order would get another number."""

Hashes = Mapping[str, bytes]
"""{path: the hashes of its pieces, one after the other}; for a file within one piece, its root; for an empty one, nothing."""


class DescriptionError(ValueError):
    """The description is not of this snapshot; the text says what was expected and seen."""


# -- the torrent


def metainfo(manifest: Manifest, hashes: Hashes, salt: str) -> bytes:
    """The torrent file, bencoded: v2 only, private, without empty files, and with the salt in its info dictionary."""
    piece = piece_size(manifest.size)
    tree: dict[str, Any] = {}
    layers: dict[bytes, bytes] = {}
    for number, path in enumerate(order(manifest)):
        size, root = manifest.files[path].size, hashes[path]
        if size > piece:
            layer = root
            split = [layer[start : start + HASH] for start in range(0, len(layer), HASH)]
            root = root_of(split, padding_of(piece))
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
    """:raises DescriptionError: the text is of another snapshot, or of another version of this collection"""
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
    """The piece hashes of a promoted snapshot. Reads each file once, or not at all if its hashes are known.

    :param remember: False: write nothing
    :raises SnapshotError: a file is not what the lock says
    """
    manifest, cache = snapshot.manifest, snapshot.pieces_path
    piece = piece_size(manifest.size)
    known = read_cache(cache, piece)
    seen = compare(manifest.files, scan(snapshot.path), read_stat_cache(snapshot.cache_path))
    for path in seen.missing:
        raise _refusal(snapshot, path, "expected a file, seen none")
    for path, why in seen.damaged.items():
        raise _refusal(snapshot, path, why)
    hashes: dict[str, bytes] = {}
    unread: list[str] = []
    for path, file in manifest.files.items():
        length = pieces_of(file.size, piece) * HASH
        if path in seen.verified and len(known.get(file.sha256, b"")) == length:
            hashes[path] = known.get(file.sha256, b"")
        else:
            unread.append(path)

    def one(path: str) -> tuple[str, Hashed]:
        return path, hash_file(snapshot.path / path, piece)

    largest_first = sorted(unread, key=lambda path: -manifest.files[path].size)
    for path, hashed in in_parallel(one, largest_first, snapshot.workers):
        if hashed.sha256 != manifest.files[path].sha256:
            why = f"expected sha256 {manifest.files[path].sha256}, seen {hashed.sha256}"
            raise _refusal(snapshot, path, why)
        hashes[path] = hashed.pieces
    if unread and remember:
        add_to_cache(cache, piece, {manifest.files[path].sha256: hashes[path] for path in unread})
    return hashes


def _refusal(snapshot: Snapshot, path: str, why: str) -> SnapshotError:
    return SnapshotError(
        f"{snapshot.path / path}: {why}; it is not given to other hosts. Run hf_snapshot here, which mends it"
    )
