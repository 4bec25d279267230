# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Manifests and blobs of one repository, read from a registry's storage in a directory here."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path

from .._common import upstream
from . import oci

BLOCK = 4 * 1024 * 1024


class FolderSource:
    """As `remote.Source`; `home` is the root of the storage (rootdirectory of a registry's configuration)."""

    def __init__(self, home: str) -> None:
        self.home = home.rstrip("/")

    def manifest(self, digest: str) -> bytes:
        """:raises UpstreamError: it is not there, or other bytes are"""
        path = self._path(digest)
        try:
            content = path.read_bytes()
        except OSError as error:
            raise self._missing(path, digest, error) from error
        seen = "sha256:" + hashlib.sha256(content).hexdigest()
        if seen != digest:
            raise upstream.Unusable(
                f"{path}: expected the manifest {digest}, seen {seen}: it is damaged; copy it again"
            )
        return content

    @contextmanager
    def blob(self, digest: str, offset: int) -> Iterator[tuple[int, Iterator[bytes]]]:
        """(where the bytes begin, the bytes).

        :raises UpstreamError: it is not there
        """
        path = self._path(digest)
        try:
            file = path.open("rb", buffering=0)
        except OSError as error:
            raise self._missing(path, digest, error) from error
        with file:
            file.seek(offset)
            yield offset, self._blocks(file, path, digest)

    def _blocks(self, file: FileIO, path: Path, digest: str) -> Iterator[bytes]:
        while True:
            try:
                block = file.read(BLOCK)
            except OSError as error:
                raise self._missing(path, digest, error) from error
            if not block:
                return
            yield block

    def _path(self, digest: str) -> Path:
        return Path(self.home) / oci.blob_path(digest)

    def _missing(self, path: Path, digest: str, error: OSError) -> upstream.NotFound:
        return upstream.NotFound(
            f"{path}: expected {digest}, seen {error.strerror}; copy the directory again, or name another source"
        )
