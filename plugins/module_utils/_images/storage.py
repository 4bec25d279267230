# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The storage of a registry that only serves: an image is put there once, from outside, every byte verified.

The registry's own pull-through mode is not used. Version 2.8, which distributions ship, reads each blob twice from
upstream when it is first asked for, drops it after seven days, and does not start while upstream is down.
"""

from __future__ import annotations

import errno
import hashlib
import math
import os
import shutil
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeVar

from .._common import files, upstream
from .._common.files import sha256_of, sync
from .._common.progress import Meter, volume
from .._common.store import locked
from .._common.work import Stopped, in_parallel
from . import oci
from .reference import Reference

_T = TypeVar("_T")

FETCHES = 2
"""How often a blob that arrives whole and wrong is fetched from one source."""
WORKERS = 3
"""As many as an engine fetches at the same time."""
LONGEST_WAIT = 30.0


class Source(Protocol):
    """Has manifests and blobs of the repository. Each method raises UpstreamError."""

    home: str

    def manifest(self, digest: str) -> bytes:
        """Its bytes, verified."""

    def blob(self, digest: str, offset: int) -> AbstractContextManager[tuple[int, Iterator[bytes]]]:
        """Where the bytes begin, and the bytes."""


def tagged(root: str, reference: Reference) -> str:
    """The digest that a tag stands for in a storage; empty when it has none."""
    if not reference.tag:
        return ""
    try:
        digest = (Path(root) / oci.tag_link(reference.repository, reference.tag)).read_text()
    except OSError:
        return ""
    return digest if oci.DIGEST.fullmatch(digest) else ""


def _without(lost: Collection[str], manifests: Mapping[str, bytes]) -> dict[str, bytes]:
    """The manifests that need none of the lost blobs."""
    return {
        digest: content
        for digest, content in manifests.items()
        if not any(blob.digest in lost for blob in oci.parts(digest, content))
    }


class ImageStoreError(Exception):
    """The text says expected, seen and what to do."""


@dataclass
class Report:
    """What became of the image, or in check mode would."""

    state: str = "present"
    bytes: int = 0
    fetched: list[str] = field(default_factory=list)
    fetched_bytes: int = 0
    damaged: list[str] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)
    lacking: list[str] = field(default_factory=list)
    """Attestations that no source has in full, with the sources' words. The image serves without; engines from 29.1 on ask for them."""

    @property
    def changed(self) -> bool:
        return self.state != "present"


class ImageStore:
    """One image in one storage. `root` is what the registry's configuration calls rootdirectory."""

    def __init__(
        self,
        root: str,
        reference: Reference,
        digest: str,
        architecture: str,
        reserve: int = 0,
        retries: int = 5,
        say: Callable[[str], None] = lambda text: None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.root, self.reference, self.digest = Path(root), reference, digest
        self.architecture, self.reserve, self.retries = architecture, reserve, retries
        self.say, self._sleep = say, sleep
        self.partial = self.root / ".partial"
        self.report = Report()
        self._silent: set[str] = set()

    # look

    def whole(self) -> bool:
        """Whether all of the image is there, by name and size. Reads nothing but manifests."""
        image = self._stored()
        return image is not None and not image.lacking and not self._missing(image)

    def _stored(self) -> oci.Image | None:
        """The image as the storage describes it; None when a manifest of it is missing or does not match its digest."""
        try:
            image = oci.read_image(self.digest, self.architecture, self._stored_manifest)
            here = {}
            for digest in image.attestations:
                with suppress(OSError):
                    here[digest] = self._stored_manifest(digest)
            return image.attested(here)
        except (OSError, oci.ImageError):
            return None

    def _stored_manifest(self, digest: str) -> bytes:
        if not self._linked(oci.manifest_link(self.reference.repository, digest), digest):
            raise FileNotFoundError(digest)
        return self._manifest_bytes(digest)

    def _manifest_bytes(self, digest: str) -> bytes:
        content = (self.root / oci.blob_path(digest)).read_bytes()
        if "sha256:" + hashlib.sha256(content).hexdigest() != digest:
            raise FileNotFoundError(digest)
        return content

    def _missing(self, image: oci.Image) -> list[oci.Blob]:
        return [blob for blob in image.blobs if not self._here(blob)]

    def _here(self, blob: oci.Blob) -> bool:
        path = self.root / oci.blob_path(blob.digest)
        linked = self._linked(oci.layer_link(self.reference.repository, blob.digest), blob.digest)
        return linked and path.is_file() and path.stat().st_size == blob.size

    def _linked(self, link: str, digest: str) -> bool:
        try:
            return (self.root / link).read_text() == digest
        except OSError:
            return False

    def preview(self) -> Report:
        """What `ensure` would do. Asks nobody and writes nothing, so a size is known only where a manifest is there."""
        image = self._stored()
        if image is None:
            self.report.state, self.report.fetched = "fetched", [self.digest]
            return self.report
        self._describe(image, self._missing(image))
        if image.lacking:
            self.report.state = "fetched"
            self.report.fetched += image.lacking
        return self.report

    def _describe(self, image: oci.Image, blobs: Sequence[oci.Blob]) -> None:
        report = self.report
        report.bytes = image.size
        report.fetched = [blob.digest for blob in blobs]
        report.fetched_bytes = sum(blob.size for blob in blobs)
        report.state = "repaired" if report.damaged else "fetched" if blobs else "present"

    def tag(self, tag: str) -> None:
        """Point the tag at the image.

        :raises ImageStoreError: the image is not whole; a tag never names half of one
        """
        if not self.whole():
            raise ImageStoreError(
                f"{self.root}: expected {self.digest} whole before it is called {tag}, seen parts of it missing; bring it first"
            )
        self._write(oci.tag_link(self.reference.repository, tag), self.digest.encode())

    # ensure

    def ensure(self, sources: Sequence[Source], verify: bool = True) -> Report:
        """Bring what is missing. The image gets its manifest after its last byte was verified, so nobody is offered half.

        :param sources: asked in this order, each for what the ones before it did not give
        :param verify: hash the blobs that are there already; a wrong one is fetched again
        :raises ImageStoreError, UpstreamError, ImageError: nothing wrong was put into its place
        """
        # Wait however long it takes: the other run brings what this one wants.
        with locked(self.root, math.inf, self.say):
            platform = oci.read_image(
                self.digest, self.architecture, lambda digest: self._manifest(digest, sources)
            )
            attestations = self._attestations(platform, sources)
            image = platform.attested(attestations)
            missing = self._missing(image)
            if verify:
                missing += self._wrong([blob for blob in image.blobs if blob not in missing])
            self._describe(image, missing)
            self._room(missing)
            if missing:
                needed = {blob.digest for blob in platform.blobs}
                lost = self._fetch(missing, sources, needed)
                self.report.lacking += lost.values()
                image = platform.attested(_without(lost, attestations))
                self._describe(image, [blob for blob in missing if blob.digest not in lost])
            # Write the links of manifests last, and that of the digest everybody asks for at the very end.
            for digest, content in reversed(list(image.manifests.items())):
                self._write(oci.blob_path(digest), content)
                if self._write(oci.manifest_link(self.reference.repository, digest), digest.encode()):
                    self.report.state = "fetched" if self.report.state == "present" else self.report.state
            if self.partial.exists():
                shutil.rmtree(self.partial)
        return self.report

    def _manifest(self, digest: str, sources: Sequence[Source]) -> bytes:
        try:
            return self._manifest_bytes(digest)
        except OSError:
            return self._of_any(sources, lambda source: source.manifest(digest))

    def _attestations(self, platform: oci.Image, sources: Sequence[Source]) -> dict[str, bytes]:
        """The manifests of the attestations that a source has. The image serves without the others."""
        found = {}
        for digest in platform.attestations:
            try:
                content = self._manifest(digest, sources)
                oci.parts(digest, content)
            except (upstream.UpstreamError, ImageStoreError, oci.ImageError) as error:
                self.report.lacking.append(str(error))
            else:
                found[digest] = content
        return found

    def _wrong(self, blobs: Sequence[oci.Blob]) -> list[oci.Blob]:
        """The blobs whose bytes do not match their digest. They are removed at once: a registry does not check."""
        if not blobs:
            return []
        meter = Meter(self.say, "image: verifying what the registry has", sum(blob.size for blob in blobs))
        sizes = {blob.digest: blob for blob in blobs}

        def check(digest: str) -> list[oci.Blob]:
            path = self.root / oci.blob_path(digest)
            seen, _status = sha256_of(path, meter.advance)
            if f"sha256:{seen}" == digest:
                return []
            path.unlink()
            self.report.damaged.append(f"{digest}: seen sha256:{seen}")
            return [sizes[digest]]

        return [blob for found in in_parallel(check, list(sizes), WORKERS) for blob in found]

    def _room(self, blobs: Sequence[oci.Blob]) -> None:
        have = sum(path.stat().st_size for path in map(self._partial, blobs) if path.exists())
        needed = max(0, sum(blob.size for blob in blobs) - have) + self.reserve
        free = shutil.disk_usage(self.root).free
        if blobs and needed > free:
            raise ImageStoreError(
                f"{self.root}: expected {volume(needed)} free for the image ({volume(self.reserve)} of it in reserve), "
                f"seen {volume(free)}; make room, or put the storage on another disk. Nothing was fetched"
            )

    def _fetch(
        self, blobs: Sequence[oci.Blob], sources: Sequence[Source], needed: Collection[str]
    ) -> dict[str, str]:
        """Bring blobs. Returns those that no source gives and that are not `needed`, {digest: what the sources said}."""
        lost: dict[str, str] = {}
        self.partial.mkdir(exist_ok=True)
        self.say(f"image: fetching {len(blobs)} blobs, {volume(self.report.fetched_bytes)}")
        meter, stopped = Meter(self.say, "image", self.report.fetched_bytes), threading.Event()
        known = {blob.digest: blob for blob in blobs}

        def received(count: int) -> None:
            if stopped.is_set():
                raise Stopped
            meter.advance(count)

        def one(digest: str) -> None:
            blob, target = known[digest], self._partial(known[digest])
            if target.exists():
                meter.skip(target.stat().st_size)
            try:
                self._of_any(sources, lambda source: self._bring(source, blob, target, received))
            except (upstream.UpstreamError, ImageStoreError) as error:
                if digest in needed:
                    raise
                lost[digest] = str(error)
                return
            sync(target)
            place = self.root / oci.blob_path(digest)
            place.parent.mkdir(parents=True, exist_ok=True)
            target.rename(place)
            self._write(oci.layer_link(self.reference.repository, digest), digest.encode())

        # Start with the large ones, so that none of them is left alone at the end.
        try:
            in_parallel(one, sorted(known, key=lambda digest: -known[digest].size), WORKERS, stopped)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            raise ImageStoreError(
                f"{self.root}: expected room for the image, seen a full disk; make room and run again, what was fetched is kept"
            ) from None
        return lost

    def _partial(self, blob: oci.Blob) -> Path:
        return self.partial / oci.checked(blob.digest).partition(":")[2]

    def _of_any(self, sources: Sequence[Source], ask: Callable[[Source], _T]) -> _T:
        """The answer of the first source that has one. A source that does not answer is from then on asked last.

        Waiting for it at every blob of an image would take a minute each.
        """
        if not sources:
            raise ImageStoreError(
                f"{self.root}: expected all of {self.reference.name}@{self.digest}, seen it missing or wrong in part, and nobody "
                "outside has it, since it is built here; build it again: ansible-playbook sparkfleet.vllm.build"
            )
        problems: list[upstream.UpstreamError] = []
        for source in sorted(sources, key=lambda source: source.home in self._silent):
            try:
                answer = ask(source)
            except upstream.UpstreamError as error:
                if isinstance(error, upstream.Unreachable):
                    self._silent.add(source.home)
                problems.append(error)
                continue
            if source.home not in self.report.sources:
                self.report.sources.append(source.home)
            return answer
        raise type(problems[-1])("; ".join(map(str, problems)))

    def _bring(self, source: Source, blob: oci.Blob, target: Path, received: Callable[[int], None]) -> None:
        """Bring the bytes of one blob, after those that are there. Raises UpstreamError when this source does not give it."""
        failures, wrong = 0, 0
        while True:
            before = target.stat().st_size if target.exists() else 0
            try:
                seen = self._append(source, blob, target, received)
            except upstream.Unreachable as error:
                have = target.stat().st_size if target.exists() else 0
                failures = 1 if have > before else failures + 1
                if failures > self.retries:
                    raise
                wait = min(LONGEST_WAIT, 2.0 ** (failures - 1))
                self.say(f"{error}; asking again in {wait:.0f} s")
                self._sleep(wait)
                continue
            if seen == blob.digest:
                return
            received(-target.stat().st_size)
            target.unlink()
            wrong += 1
            if wrong == FETCHES:
                raise upstream.Unusable(
                    f"{source.home}: expected {blob.digest}, seen {seen}, fetched {FETCHES} times; it, or something between, "
                    "gives other bytes than were locked: do not use them"
                )

    def _append(self, source: Source, blob: oci.Blob, target: Path, received: Callable[[int], None]) -> str:
        """Append the missing bytes. Returns the digest of the whole; raises Unreachable when it is not whole."""
        have = 0
        if target.exists():
            if target.stat().st_size > blob.size:
                received(-target.stat().st_size)
                target.unlink()
            else:
                have = target.stat().st_size
        if have < blob.size or not target.exists():
            with (
                source.blob(blob.digest, have) as (begin, blocks),
                target.open("r+b" if have else "wb") as file,
            ):
                if begin < have:
                    received(-have)
                    file.truncate(0)
                file.seek(0, os.SEEK_END)
                for block in blocks:
                    file.write(block)
                    received(len(block))
                    if file.tell() > blob.size:
                        break
        # Read the file back: what counts is what is on the disk, earlier runs' bytes included.
        seen, status = sha256_of(target)
        if status.st_size < blob.size:
            raise upstream.Unreachable(
                f"{source.home}: expected {blob.size} bytes of {blob.digest}, seen {status.st_size}"
            )
        return f"sha256:{seen}"

    def _write(self, path: str, content: bytes) -> bool:
        """Write a file. True when it was not there with this content."""
        place = self.root / path
        try:
            if place.read_bytes() == content:
                return False
        except OSError:
            pass
        files.write(place, content)
        return True
