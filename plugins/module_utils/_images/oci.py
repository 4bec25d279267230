# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an image is made of, and where the distribution's registry keeps it. Pure.

Image manifests and indexes: https://github.com/opencontainers/image-spec (and Docker's own, version 2 schema 2, which
has the same shape). Attestations in an index: docs/attestations/attestation-storage.md of https://github.com/moby/buildkit.
Layout of the storage: registry/storage/paths.go of https://github.com/distribution/distribution,
the same from its version 2.0 on.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from .._common import json_text

ROOT = "docker/registry/v2"
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
"""The name of each part of an image. No other name becomes a path."""
ATTESTS = "vnd.docker.reference.digest"
"""Annotation of an attestation in an index: the manifest that it is about."""
MOST_ATTESTATIONS = 16
"""Most attestations of one platform. buildx makes one, with everything in it."""
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
"""What `uname -m` prints, in the words of an image index."""


class ImageError(ValueError):
    """An image that cannot be used as it is. The text says expected, seen and what to do."""


@dataclass(frozen=True)
class Blob:
    """Configuration or layer."""

    digest: str
    size: int


@dataclass(frozen=True)
class Image:
    """One platform of an image.

    `manifests` {digest: bytes} are those that its digest leads to: an index, if there is one, before the manifest of the
    platform. `blobs` are distinct, in the manifest's order. `attestations` are the digests of the index's manifests that say
    how this platform was built. From 29.1 on, an engine asks for them when it pulls.
    """

    manifests: Mapping[str, bytes]
    blobs: tuple[Blob, ...]
    attestations: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """Bytes, as they are transferred."""
        return sum(blob.size for blob in self.blobs) + sum(map(len, self.manifests.values()))

    @property
    def lacking(self) -> tuple[str, ...]:
        """The attestations that are not among `manifests`."""
        return tuple(digest for digest in self.attestations if digest not in self.manifests)

    def attested(self, manifests: Mapping[str, bytes]) -> Image:
        """The image with these of its attestations, {digest: bytes}, and all that they are made of.

        :raises ImageError: one of them is no manifest
        """
        blobs = {blob.digest: blob for blob in self.blobs}
        for digest, content in manifests.items():
            for blob in parts(digest, content):
                blobs.setdefault(blob.digest, blob)
        return replace(self, manifests={**self.manifests, **manifests}, blobs=tuple(blobs.values()))


def read_image(digest: str, architecture: str, manifest: Callable[[str], bytes]) -> Image:
    """What `digest` is made of on an architecture (amd64, arm64). Names its attestations, and does not ask for them.

    :param manifest: gives the bytes of a digest, verified
    :raises ImageError: no manifest, or none for this architecture
    """
    manifests = {digest: manifest(digest)}
    content = _parse(digest, manifests[digest])
    attestations: tuple[str, ...] = ()
    if "manifests" in content:
        chosen = choose(content["manifests"], architecture, digest)
        attestations = attesting(content["manifests"], chosen, digest)
        manifests[chosen] = manifest(chosen)
        digest = chosen
    return Image(manifests, tuple(parts(digest, manifests[digest])), attestations)


def parts(digest: str, manifest: bytes) -> list[Blob]:
    """Configuration and layers of a manifest, each once.

    :raises ImageError: it is none
    """
    content = _parse(digest, manifest)
    try:
        blobs = {blob.digest: blob for blob in map(_blob, (content["config"], *content["layers"]))}
    except (KeyError, TypeError):
        raise ImageError(
            f"{digest}: expected a manifest with config and layers, seen keys {', '.join(sorted(content))}; "
            "lock an image in the format of Docker (schema 2) or OCI"
        ) from None
    return list(blobs.values())


def checked(digest: Any) -> str:
    """A digest that may become a path.

    :raises ImageError: it is anything else. A manifest comes from outside, and a path joined with `/etc` is `/etc`
    """
    if isinstance(digest, str) and DIGEST.fullmatch(digest):
        return digest
    raise ImageError(
        f"expected sha256: and 64 hexadecimal digits as a digest in the image's manifest, seen {digest!r:.100}; "
        "do not use this image, and find out who published it"
    )


def _blob(entry: Any) -> Blob:
    digest, size = checked(entry["digest"]), entry["size"]
    if isinstance(size, bool) or not isinstance(size, int) or size < 0:
        raise ImageError(f"{digest}: expected its size in bytes in the image's manifest, seen {size!r:.100}")
    return Blob(digest, size)


def choose(manifests: Any, architecture: str, digest: str) -> str:
    """The digest of the platform's manifest among those of an index.

    :raises ImageError: there is none, or this is no index
    """
    try:
        platforms = [(entry.get("platform") or {}, entry) for entry in manifests]
        for platform, entry in platforms:
            if (platform.get("os"), platform.get("architecture")) == ("linux", architecture):
                return checked(entry["digest"])
        offered = {
            (str(platform.get("os")), str(platform.get("architecture"))) for platform, _entry in platforms
        }
    except (AttributeError, KeyError, TypeError):
        raise ImageError(
            f"{digest}: expected an index of manifests with digest and platform, seen {manifests!r:.100}; "
            "lock an image in the format of Docker (schema 2) or OCI"
        ) from None
    # An attestation has no platform.
    seen = ", ".join(sorted(f"{os}/{of}" for os, of in offered if os != "unknown"))
    raise ImageError(
        f"{digest}: expected linux/{architecture} in the image's index, seen {seen:.300}; "
        "lock an image that was built for these hosts"
    )


def attesting(manifests: Any, chosen: str, digest: str) -> tuple[str, ...]:
    """The digests of an index that attest its manifest `chosen`.

    :raises ImageError: more attestations than anybody makes of one platform, or no digest
    """
    try:
        found = [entry for entry in manifests if (entry.get("annotations") or {}).get(ATTESTS) == chosen]
        distinct = dict.fromkeys(checked(entry["digest"]) for entry in found)
    except (AttributeError, KeyError):
        raise ImageError(
            f"{digest}: expected an index of manifests with digest and annotations, seen {manifests!r:.100}; "
            "lock an image in the format of Docker (schema 2) or OCI"
        ) from None
    if len(distinct) > MOST_ATTESTATIONS:
        raise ImageError(
            f"{digest}: expected at most {MOST_ATTESTATIONS} attestations of {chosen} in the image's index, seen "
            f"{len(distinct)}; do not use this image, and find out who published it"
        )
    return tuple(distinct)


def blob_path(digest: str) -> str:
    """Path to the bytes of a blob or a manifest, below the storage's root.

    :raises ImageError: that is no digest. The same holds for the other paths
    """
    kind, _colon, value = checked(digest).partition(":")
    return posixpath.join(ROOT, "blobs", kind, value[:2], value, "data")


def layer_link(repository: str, digest: str) -> str:
    """The file that gives this blob to the repository. Its content is the digest."""
    return posixpath.join(ROOT, "repositories", repository, "_layers", *checked(digest).split(":"), "link")


def manifest_link(repository: str, digest: str) -> str:
    """The file that gives this manifest to the repository. Its content is the digest."""
    return posixpath.join(
        ROOT, "repositories", repository, "_manifests", "revisions", *checked(digest).split(":"), "link"
    )


def tag_link(repository: str, tag: str) -> str:
    """The file that gives the tag its manifest. Its content is the digest."""
    return posixpath.join(ROOT, "repositories", repository, "_manifests", "tags", tag, "current", "link")


def _parse(digest: str, text: bytes) -> dict[str, Any]:
    try:
        content = json_text.read(text, "the manifest")
    except json_text.JsonError:
        content = None
    if not isinstance(content, dict):
        raise ImageError(
            f"{digest}: expected a manifest, seen {text[:60]!r}; check that the address is a registry"
        )
    return content
