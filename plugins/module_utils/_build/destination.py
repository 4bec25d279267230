# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where an image that is built here goes, and whether it is there: the storage of the fleet's registry, or another registry.

An image is there if its tag leads to a configuration whose label holds the fingerprint of the wanted source.
"""

from __future__ import annotations

from collections.abc import Callable

from .._common import json_text, shape, upstream
from .._images import oci, registry
from .._images import storage as image_storage
from .._images.folder import FolderSource
from .._images.reference import Reference
from .._images.remote import Source
from .buildkit import LABEL


class Storage:
    """The storage of the fleet's registry, a directory of this host."""

    def __init__(self, root: str, reference: Reference, architecture: str) -> None:
        self.home, self.reference, self._architecture = root, reference, architecture

    def find(self, fingerprint: str) -> str:
        digest = image_storage.tagged(self.home, self.reference)
        if not digest or not self._store(digest).whole():
            return ""
        return digest if _label(FolderSource(self.home), digest, self._architecture) == fingerprint else ""

    def take(self, storage: str, digest: str, say: Callable[[str], None]) -> None:
        """Copy the image from the storage of another registry on this host, with every byte verified, then tag it.

        :raises ImageStoreError, UpstreamError, ImageError: the image has no tag here
        """
        store = self._store(digest, say)
        store.ensure([FolderSource(storage)])
        store.tag(self.reference.tag or "")

    def _store(self, digest: str, say: Callable[[str], None] = lambda text: None) -> image_storage.ImageStore:
        return image_storage.ImageStore(self.home, self.reference, digest, self._architecture, say=say)


class Registry:
    """A registry that takes pushes. `name` is what the engine calls the image there."""

    def __init__(
        self,
        address: str,
        reference: Reference,
        architecture: str,
        credentials: registry.Credentials | None,
    ) -> None:
        host = address.partition("://")[2].rstrip("/") or address.rstrip("/")
        self.home = address.rstrip("/") if "://" in address else registry.endpoint(host)
        self.reference, self._architecture, self._credentials = reference, architecture, credentials
        self.name = f"{host}/{reference.repository}:{reference.tag}"

    def find(self, fingerprint: str) -> str:
        """:raises UpstreamError: the registry does not answer, or refuses us. Better now than after the build"""
        try:
            digest = registry.tag_digest(self.home, self.reference, self._credentials)
            source = Source(self.home, self.reference, self._credentials)
            return digest if _label(source, digest, self._architecture) == fingerprint else ""
        except upstream.NotFound:
            return ""


def _label(source: image_storage.Source, digest: str, architecture: str) -> str:
    """The image's fingerprint. Empty without a label, without an image of this platform, or if the configuration cannot be read."""
    try:
        configuration = oci.read_image(digest, architecture, source.manifest).blobs[0]
        with source.blob(configuration.digest, 0) as (_begin, blocks):
            content = json_text.read(b"".join(blocks), configuration.digest)
    except ValueError:
        return ""
    labelled = not shape.wrong(content, {"config": {"Labels": {LABEL: str}}})
    return str(content["config"]["Labels"][LABEL]) if labelled else ""
