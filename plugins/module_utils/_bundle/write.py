# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Write a bundle: what of it is missing, and how each part comes in. Standard library only.

A run that was cut short is taken up file by file. bundle.json is removed before anything changes and written last.
"""

from __future__ import annotations

import hashlib
import json
import os
import tarfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from .._common import files as common_files
from .._common.copying import bring
from .._common.files import remove, sha256_of, sync
from .._common.paths import snapshot_path
from .._common.progress import Meter, volume
from .._common.store import check_space, locked
from .._common.work import in_parallel
from .._models.compare import CACHE_VERSION, compare, read_cache, scan, signature
from .._models.manifest import File, Manifest
from .._models.snapshot import FILE_MODE, Snapshot
from . import layout
from .layout import Bundle, BundleError

INCOMING, CACHE = ".incoming", ".verified.json"

COLLECTED = (layout.WHEELS, layout.PACKAGES)
"""Sections whose files nobody knows before a packager has brought them."""

Collect = Callable[[str, Path], Mapping[str, Path]]
"""Brings a section into an empty directory: {path below the section: file}. Raises BundleError."""
T = TypeVar("T")


@dataclass(frozen=True)
class Wanted:
    """What a bundle is to hold. `texts` {path in the bundle: bytes}; `image` by digest; `machine`, `python` of this host."""

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

    `files` are all that are known beforehand, `verified` those of them that are there, with their status; `sources`
    {path: bytes or file it is made from} are the others; `collect` the sections a packager has to bring; `stale` what
    an earlier bundle here held and this one does not.
    """

    before: Bundle | None
    files: dict[str, File]
    verified: dict[str, os.stat_result]
    sources: dict[str, bytes | Path]
    collect: list[str]
    stale: list[str]
    same: bool
    """Whether bundle.json says already what it is to say."""

    @property
    def changed(self) -> bool:
        return bool(self.sources or self.collect or self.stale) or not self.same

    @property
    def needed(self) -> int:
        return sum(self.files[path].size for path in self.sources)

    def lines(self) -> list[str]:
        """What is to do, a line a section."""
        sizes: dict[str, list[int]] = {}
        for path in self.sources:
            sizes.setdefault(layout.section(path), []).append(self.files[path].size)
        return [
            *(f"{name}: {len(found)} to write, {volume(sum(found))}" for name, found in sizes.items()),
            *(f"{layout.section(f'{folder}/')}: to be downloaded" for folder in self.collect),
            *(f"{path}: no longer part of it" for path in self.stale),
        ]


# -- look


def plan(wanted: Wanted, options: Options) -> Plan:
    """What is missing. Hashes what no stat cache vouches for, writes nothing.

    :raises BundleError: a blob of the image is not what it was fetched as
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
    # What of the image the cache does not know was verified a moment ago, before it was put in its place.
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
        # What is collected anew is replaced as a whole.
        sorted(
            path
            for path in (before.files if before else {})
            if path not in files and path.partition("/")[0] not in collect
        ),
        before is not None and not collect and wanted.bundle(files, before.created) == before,
    )


def _known(wanted: Wanted, store: str) -> tuple[dict[str, File], dict[str, bytes | Path]]:
    """The files that recipe and lock name, and what each is made from."""
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
    """The files of the image, all there is to know of them; none while it has not been fetched and need not be there."""
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
    return _under(section, before.files) if asked == wanted.collected(section) else {}


def _hashed(options: Options, files: Mapping[str, File], paths: Sequence[str]) -> dict[str, os.stat_result]:
    """Those of `paths` whose bytes are right, with their status."""
    meter = Meter(options.say, f"{options.folder}: verifying", sum(files[path].size for path in paths))

    def check(path: str) -> tuple[str, str, os.stat_result]:
        return path, *sha256_of(options.folder / path, meter.advance)

    return {
        path: status
        for path, seen, status in in_parallel(check, paths, options.workers)
        if seen == files[path].sha256
    }


def _under(folder: str, paths: Mapping[str, T]) -> dict[str, T]:
    return {path: value for path, value in paths.items() if path.startswith(f"{folder}/")}


# -- write


@dataclass
class Written:
    """`linked` and `copied` are bytes of models."""

    bundle: Bundle
    changed: bool
    linked: int = 0
    copied: int = 0


def write(wanted: Wanted, options: Options, collect: Collect, now: str) -> Written:
    """Make the bundle whole.

    :param now: the time in UTC that a new bundle.json carries
    :raises BundleError: and StoreError; what was verified is kept, and there is no bundle.json
    """
    with locked(options.folder, options.lock_timeout, options.say):
        todo = plan(wanted, options)
        archive = options.archive and (todo.changed or not archived(options.folder))
        whole = sum(file.size for file in todo.files.values()) if archive else 0
        check_space(str(options.folder), todo.needed + whole, options.reserve)
        if todo.before and not todo.changed:
            result = Written(todo.before, False)
        else:
            result = _write(wanted, options, todo, collect, now)
        if archive:
            _archive(options, result)
        return result


def _write(wanted: Wanted, options: Options, todo: Plan, collect: Collect, now: str) -> Written:
    incoming = options.folder / INCOMING
    remove(incoming)
    incoming.mkdir()
    (options.folder / layout.CONTENTS).unlink(missing_ok=True)
    linked, copied = _bring(wanted, options, todo)
    for section in todo.collect:
        _collect(options.folder, section, collect, todo)
    for path in todo.stale:
        (options.folder / path).unlink(missing_ok=True)
    _remove_empty(options.folder)
    _remember(options.folder, todo)
    remove(incoming)
    for folder, _folders, _names in os.walk(options.folder):
        sync(Path(folder))
    bundle = wanted.bundle(todo.files, now)
    common_files.write(options.folder / layout.CONTENTS, bundle.render().encode())
    options.say(f"{options.folder}: {len(bundle.files)} files, {volume(bundle.size)}, all verified")
    return Written(bundle, True, linked, copied)


def _bring(wanted: Wanted, options: Options, todo: Plan) -> tuple[int, int]:
    """Put what recipe and lock name into its place; bytes that were linked (or cloned), and copied."""
    counts = {"link": 0, "clone": 0, "copy": 0}
    texts = {path: made for path, made in todo.sources.items() if isinstance(made, bytes)}
    stored = {path: made for path, made in todo.sources.items() if isinstance(made, Path)}
    for manifest in wanted.manifests:
        inside = snapshot_path("", manifest.repository, manifest.commit)
        paths = sorted(_under(inside, stored), key=lambda path: -todo.files[path].size)
        if not paths:
            continue
        source = Snapshot(options.store, manifest, options.workers, options.say)
        with locked(source.folder, options.lock_timeout, options.say):
            if not source.inspect(full=False):
                raise BundleError(
                    f"{source.path}: expected a whole snapshot, seen {len(source.report.fetched)} of "
                    f"{len(manifest.files)} files missing or damaged; run model_sync on this host first"
                )
            meter = Meter(
                options.say, f"{manifest.repository}: copying", sum(todo.files[path].size for path in paths)
            )

            def one(path: str, meter: Meter = meter) -> tuple[str, str, os.stat_result]:
                return path, *_place(options.folder, path, todo.files[path], stored[path], meter.advance)

            for path, how, status in in_parallel(one, paths, options.workers):
                todo.verified[path] = status
                counts[how] += status.st_size
            source.relinked()
    for path, content in texts.items():
        common_files.write(options.folder / path, content)
        todo.verified[path] = (options.folder / path).lstat()
    return counts["link"] + counts["clone"], counts["copy"]


def _place(
    folder: Path, path: str, file: File, source: Path, received: Callable[[int], None]
) -> tuple[str, os.stat_result]:
    """One verified file of the store into the bundle. Its own bytes need no second look, a copy does."""
    draft = folder / INCOMING / hashlib.sha256(path.encode()).hexdigest()
    how = bring(source, draft, received)
    if how == "copy":
        seen, _status = sha256_of(draft)
        if seen != file.sha256:
            raise BundleError(
                f"{folder / path}: expected sha256 {file.sha256}, seen {seen} after it was copied from {source}; "
                "check the disk of the bundle"
            )
        draft.chmod(FILE_MODE)
    sync(draft)
    place = folder / path
    place.parent.mkdir(parents=True, exist_ok=True)
    draft.replace(place)
    return how, place.lstat()


def _collect(folder: Path, section: str, collect: Collect, todo: Plan) -> None:
    work = folder / INCOMING / section
    work.mkdir()
    brought = collect(section, work)
    if not brought:
        raise BundleError(f"{folder / section}: expected files, seen none downloaded; run again with -v")
    remove(folder / section)
    for name, file in sorted(brought.items()):
        place = folder / section / name
        place.parent.mkdir(parents=True, exist_ok=True)
        file.chmod(FILE_MODE)
        sync(file)
        file.replace(place)
        sha256, status = sha256_of(place)
        path = f"{section}/{name}"
        todo.files[path], todo.verified[path] = File(status.st_size, sha256), status


def _remove_empty(folder: Path) -> None:
    """Folders that nothing is left in."""
    for inner, _folders, _names in os.walk(folder, topdown=False):
        path = Path(inner)
        if path not in (folder, folder / INCOMING) and not any(path.iterdir()):
            path.rmdir()


def _remember(folder: Path, todo: Plan) -> None:
    """The stat cache. A file whose bytes could have changed since it was verified is left out."""

    def same(one: os.stat_result, other: os.stat_result) -> bool:
        return (one.st_size, one.st_mtime_ns, one.st_ino) == (other.st_size, other.st_mtime_ns, other.st_ino)

    now = scan(folder)
    files = {
        path: [*signature(now[path]), todo.files[path].sha256]
        for path, status in sorted(todo.verified.items())
        if path in todo.files and path in now and same(status, now[path])
    }
    text = json.dumps({"version": CACHE_VERSION, "files": files}, separators=(",", ":"))
    common_files.write(folder / CACHE, text.encode())


# -- archive


def archive_path(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.tar")


def archived(folder: Path) -> bool:
    """Whether there is an archive of this bundle: one that is as new as bundle.json."""
    path, contents = archive_path(folder), folder / layout.CONTENTS
    return path.exists() and contents.exists() and path.stat().st_mtime_ns >= contents.stat().st_mtime_ns


def _archive(options: Options, result: Written) -> None:
    """The bundle as one file beside it, and nothing else of its directory."""
    path = archive_path(options.folder)
    draft = path.with_name(f"{path.name}.partial")
    meter = Meter(options.say, f"{path}: writing", result.bundle.size)
    with tarfile.open(draft, "w", format=tarfile.PAX_FORMAT) as archive:
        for name in [*sorted(result.bundle.files), layout.CONTENTS]:
            archive.add(options.folder / name, f"{options.folder.name}/{name}")
            meter.advance((options.folder / name).stat().st_size)
    sync(draft)
    draft.replace(path)
    result.changed = True
