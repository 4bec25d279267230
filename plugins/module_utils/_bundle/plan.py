# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compares a bundle with what it should hold, and plans what to do. Writes nothing. Standard library only."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from .._common.files import sha256_of
from .._common.paths import snapshot_path
from .._common.progress import Meter, volume
from .._common.work import in_parallel
from .._models.compare import compare, read_cache, scan
from .._models.manifest import File, Manifest
from . import layout
from .layout import Bundle, BundleError

INCOMING, CACHE = ".incoming", ".verified.json"
COLLECTED = (layout.WHEELS, layout.PACKAGES)
"""Sections whose files are known only after a packager has downloaded them."""
T = TypeVar("T")


@dataclass(frozen=True)
class Wanted:
    """What a bundle should hold. `texts` {path in the bundle: bytes}; `image` by digest; `machine`, `python` of this host."""

    recipe: str
    image: str
    machine: str
    python: str
    texts: Mapping[str, bytes]
    manifests: Sequence[Manifest]
    requirements: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()

    def bundle(self, files: Mapping[str, File], created: str) -> Bundle:
        return Bundle(
            self.recipe,
            created,
            self.machine,
            self.python,
            self.image,
            self.requirements,
            self.packages,
            files,
        )

    def collected(self, section: str) -> tuple[str, ...]:
        return self.requirements if section == layout.WHEELS else self.packages


@dataclass(frozen=True)
class Options:
    folder: Path
    store: str
    reserve: int = 0
    workers: int = 4
    lock_timeout: float = 3600.0
    archive: bool = False
    without_image: bool = False
    """Look before the image is fetched."""
    say: Callable[[str], None] = lambda text: None


@dataclass
class Plan:
    """What is there and what is to do.

    `files` are all files that are known beforehand. `verified` are those of them that are there, with their status;
    `sources` {path: bytes, or the file to copy} are the others. `collect` are the sections that a packager must download.
    `stale` are files of an earlier bundle here that this one does not hold.
    """

    before: Bundle | None
    files: dict[str, File]
    verified: dict[str, os.stat_result]
    sources: dict[str, bytes | Path]
    collect: list[str]
    stale: list[str]
    same: bool
    """Whether bundle.json needs no change."""

    @property
    def changed(self) -> bool:
        return bool(self.sources or self.collect or self.stale) or not self.same

    @property
    def needed(self) -> int:
        return sum(self.files[path].size for path in self.sources)

    def lines(self) -> list[str]:
        """What is to do, one line per section."""
        sizes: dict[str, list[int]] = {}
        for path in self.sources:
            sizes.setdefault(layout.section(path), []).append(self.files[path].size)
        return [
            *(f"{name}: {len(found)} to write, {volume(sum(found))}" for name, found in sizes.items()),
            *(f"{layout.section(f'{folder}/')}: to be downloaded" for folder in self.collect),
            *(f"{path}: no longer part of it" for path in self.stale),
        ]


def plan(wanted: Wanted, options: Options) -> Plan:
    """Compare the bundle with what is wanted. Hashes the files that the stat cache does not vouch for; writes nothing.

    :raises BundleError: files of the image are missing, or are not what was fetched
    """
    try:
        before = layout.read(options.folder)
    except BundleError:
        before = None
    found, cache = scan(options.folder), read_cache(options.folder / CACHE)
    files, sources = _known(wanted, options.store)
    image = _image(wanted, options)
    kept = {section: _kept(section, wanted, before) for section in COLLECTED}
    files |= image | kept[layout.WHEELS] | kept[layout.PACKAGES]

    seen = compare(files, found, cache)
    # Files of the image that the cache does not know were verified a moment ago, when they were fetched.
    fresh = [path for path in seen.unknown if path in image and path not in cache]
    verified = {path: found[path] for path in [*seen.verified, *fresh]}
    verified |= _hashed(options, files, [path for path in seen.unknown if path not in verified])
    if lost := [path for path in image if path not in verified]:
        raise BundleError(
            f"{options.folder}: expected {wanted.image} as it was fetched, seen {len(lost)} of {len(image)} files "
            f"missing or with other bytes ({', '.join(lost[:3])}); remove {options.folder / layout.REGISTRY} and run again"
        )
    collect = []
    for section in COLLECTED:
        if not wanted.collected(section) or (
            kept[section] and all(path in verified for path in kept[section])
        ):
            continue
        collect.append(section)
        files = {path: file for path, file in files.items() if path not in kept[section]}
    return Plan(
        before,
        files,
        verified,
        {path: source for path, source in sources.items() if path not in verified},
        collect,
        # A collected section is replaced as a whole.
        sorted(
            path
            for path in (before.files if before else {})
            if path not in files and path.partition("/")[0] not in collect
        ),
        before is not None and not collect and wanted.bundle(files, before.created) == before,
    )


def _known(wanted: Wanted, store: str) -> tuple[dict[str, File], dict[str, bytes | Path]]:
    """The files that recipe and lock name, and the content or file that each is made from."""
    files: dict[str, File] = {}
    sources: dict[str, bytes | Path] = {}
    for path, content in wanted.texts.items():
        files[path], sources[path] = File(len(content), hashlib.sha256(content).hexdigest()), content
    for manifest in wanted.manifests:
        inside = snapshot_path("", manifest.repository, manifest.commit)
        there = Path(snapshot_path(store, manifest.repository, manifest.commit))
        for name, file in manifest.files.items():
            files[f"{inside}/{name}"], sources[f"{inside}/{name}"] = file, there / name
    return files, sources


def _image(wanted: Wanted, options: Options) -> dict[str, File]:
    """All files of the image. Empty while it has not been fetched and need not be there."""
    storage = options.folder / layout.REGISTRY
    if options.without_image and not storage.exists():
        return {}
    found = layout.image_files(storage, wanted.image, wanted.machine)
    return {f"{layout.REGISTRY}/{path}": file for path, file in found.items()}


def _kept(section: str, wanted: Wanted, before: Bundle | None) -> dict[str, File]:
    """Files of a section that an earlier run collected for the same request."""
    if before is None or (before.machine, before.python) != (wanted.machine, wanted.python):
        return {}
    asked = before.requirements if section == layout.WHEELS else before.packages
    return under(section, before.files) if asked == wanted.collected(section) else {}


def _hashed(options: Options, files: Mapping[str, File], paths: Sequence[str]) -> dict[str, os.stat_result]:
    """Those of `paths` whose hash is right, with their status."""
    meter = Meter(options.say, f"{options.folder}: verifying", sum(files[path].size for path in paths))

    def check(path: str) -> tuple[str, str, os.stat_result]:
        return path, *sha256_of(options.folder / path, meter.advance)

    return {
        path: status
        for path, seen, status in in_parallel(check, paths, options.workers)
        if seen == files[path].sha256
    }


def under(folder: str, paths: Mapping[str, T]) -> dict[str, T]:
    return {path: value for path, value in paths.items() if path.startswith(f"{folder}/")}
