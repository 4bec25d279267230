# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The images in the storage of the fleet's registry, and how one is removed: first the link by which hosts ask for it.

A blob belongs to every image that names it, and is removed with the last of them. Layout: `module_utils/_images/oci.py`.
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .._common import json_text
from .._common.files import remove
from .._images import oci
from .references import Thing
from .usage import Usage, measure

PARTIAL = ".partial"
LEFT = "registry partial"


@dataclass(frozen=True)
class Image:
    """One image of a repository: an index with those of its manifests that are there, or a manifest."""

    repository: str
    digest: str
    manifests: frozenset[str]
    blobs: frozenset[str]
    """Digests of configuration and layers."""

    @property
    def all(self) -> frozenset[str]:
        return self.manifests | self.blobs


class Unreadable(ValueError):
    """A manifest of the storage cannot be read, so nobody knows which images its blobs belong to."""


def images(root: Path) -> list[Image]:
    """:raises Unreadable: a manifest cannot be read, or part of the storage lies elsewhere"""
    for folder, inner, _files in os.walk(root):
        for name in inner:
            if Path(folder, name).is_symlink():
                raise Unreadable(f"{Path(folder, name)} is a link")
    found: list[Image] = []
    for repository, digests in sorted(_revisions(root).items()):
        contents = {digest: _manifest(root, digest) for digest in digests}
        parts = {digest: _parts(digest, contents) for digest in digests}
        led_to = {part for digest in digests for part in parts[digest] - {digest}}
        for digest in sorted(digests - led_to):
            blobs = frozenset(blob for part in parts[digest] for blob in _blobs(contents[part]))
            found.append(Image(repository, digest, frozenset(parts[digest]), blobs))
    return found


def _parts(digest: str, contents: Mapping[str, dict[str, Any]]) -> set[str]:
    """A manifest, and those that it leads to if they are there. A digest cannot lead back to itself."""
    inner = (entry["digest"] for entry in contents[digest].get("manifests", ()))
    return {digest}.union(*(_parts(part, contents) for part in inner if part in contents))


def _revisions(root: Path) -> dict[str, set[str]]:
    """{repository: digests of its manifests}"""
    top = root / oci.ROOT / "repositories"
    found: dict[str, set[str]] = {}
    for folder, inner, _files in os.walk(top):
        if "_manifests" in inner:
            revisions = Path(folder, "_manifests", "revisions")
            links = revisions.glob("*/*/link")
            digests = {f"{link.parent.parent.name}:{link.parent.name}" for link in links}
            if other := sorted(digest for digest in digests if not oci.DIGEST.fullmatch(digest)):
                raise Unreadable(f"{revisions} names {other[0]}, which is no digest")
            if digests:
                found[str(Path(folder).relative_to(top))] = digests
        inner[:] = [name for name in inner if not name.startswith("_")]
    return found


def _manifest(root: Path, digest: str) -> dict[str, Any]:
    """The content of a manifest, with every digest in it checked: each becomes a path that may be removed.

    :raises Unreadable: it is not there, its bytes do not match its name, or it names something by another thing than a digest
    """
    path = root / oci.blob_path(digest)
    try:
        text = path.read_bytes()
        if f"sha256:{hashlib.sha256(text).hexdigest()}" != digest:
            raise ValueError("its bytes are not what its name says")
        content = json_text.read(text, "the manifest")
        entries = [*content.get("manifests", ()), *_described(content)]
        if not entries:
            raise ValueError("neither manifests nor layers")
        for entry in entries:
            oci.checked(entry["digest"])
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise Unreadable(f"{path} cannot be read ({error})") from error
    return dict(content)


def _described(content: dict[str, Any]) -> list[dict[str, Any]]:
    return [content["config"], *content["layers"]] if "config" in content else []


def _blobs(content: dict[str, Any]) -> Iterator[str]:
    for entry in _described(content):
        yield entry["digest"]


def _blob(root: Path, digest: str) -> Path:
    return (root / oci.blob_path(digest)).parent


# -- as things of the store


def things(root: Path) -> list[Thing]:
    """The images, and as one thing all that belongs to none: what an interrupted run fetched or began to remove."""
    try:
        stored = images(root)
    except Unreadable as error:
        return [Thing("unknown", root.name, str(root), usage=measure(root), why=str(error), guard=str(root))]
    uses = Counter(digest for image in stored for digest in image.all)
    found: list[Thing] = []
    for image in stored:
        usage = Usage()
        for digest in image.all:
            one = measure(_blob(root, digest))
            # A blob of several images comes free with the last of them.
            one.inodes = {
                inode: [size, seen, links * uses[digest]] for inode, (size, seen, links) in one.inodes.items()
            }
            usage.add(one)
        place = (root / oci.manifest_link(image.repository, image.digest)).parent
        names = [digest.partition(":")[2] for digest in sorted(image.manifests)]
        found.append(
            Thing(
                "registry",
                f"{image.repository}@{image.digest}",
                str(place),
                image.digest.partition(":")[2],
                usage,
                members=names,
                guard=str(root),
            )
        )
    left = Usage()
    for path in _left(root, stored):
        left.add(measure(path))
    if left.inodes:
        found.append(Thing(LEFT, "of no whole image", str(root), usage=left, guard=str(root)))
    return found


def _left(root: Path, stored: Sequence[Image]) -> list[Path]:
    """Blobs of no image, and unfinished downloads."""
    wanted = {_blob(root, digest) for image in stored for digest in image.all}
    blobs = (root / oci.ROOT / "blobs").glob("*/*/*")
    on_the_way = [root / PARTIAL] if (root / PARTIAL).is_dir() else []
    return [*on_the_way, *(path for path in blobs if path not in wanted)]


def delete(thing: Thing) -> None:
    """Remove an image, or what belongs to none.

    :raises OSError: something of it is left; nobody is offered half
    """
    root = Path(thing.guard)
    stored = images(root)

    def remove_inside(path: Path) -> None:
        """Remove a path, but nothing outside the storage, whatever was computed above."""
        if root not in path.parents or ".." in path.parts:
            raise PermissionError(errno.EPERM, f"expected a path below {root}; it was left", str(path))
        remove(path)

    if thing.kind == LEFT:
        for path in _left(root, stored):
            remove_inside(path)
        return
    (image,) = (image for image in stored if f"{image.repository}@{image.digest}" == thing.name)
    rest = [other for other in stored if other is not image]
    same = [other for other in rest if other.repository == image.repository]
    # Remove the digest that hosts ask for first: without it the image is not there.
    for digest in sorted(image.manifests - _all(same), key=lambda digest: digest != image.digest):
        remove_inside((root / oci.manifest_link(image.repository, digest)).parent)
    for tag in _tags(root, image.repository):
        if (tag / "current" / "link").read_text() in image.manifests - _all(same):
            remove_inside(tag)
    for digest in image.blobs - _all(same):
        remove_inside((root / oci.layer_link(image.repository, digest)).parent)
    for digest in image.all - _all(rest):
        remove_inside(_blob(root, digest))
    if not same:
        for part in ("_manifests", "_layers", "_uploads"):
            remove_inside(root / oci.ROOT / "repositories" / image.repository / part)


def _tags(root: Path, repository: str) -> list[Path]:
    """Tags of images that were built here. An image that was fetched has none."""
    return [link.parent.parent for link in root.glob(oci.tag_link(repository, "*"))]


def _all(several: Iterable[Image]) -> frozenset[str]:
    return frozenset(digest for image in several for digest in image.all)
