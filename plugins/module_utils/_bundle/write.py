# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes a bundle: brings each missing part. Standard library only.

A run continues an interrupted one file by file. bundle.json is removed before anything changes and written last.
"""

from __future__ import annotations

import hashlib
import json
import os
import tarfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from .._common import files as common_files
from .._common.copying import bring
from .._common.files import remove, sha256_of, sync
from .._common.paths import snapshot_path
from .._common.progress import Meter, volume
from .._common.store import check_space, locked
from .._common.work import in_parallel
from .._models.compare import CACHE_VERSION, scan, signature
from .._models.manifest import File
from .._models.snapshot import FILE_MODE, Snapshot
from . import layout
from .layout import Bundle, BundleError
from .plan import CACHE, INCOMING, Options, Plan, Wanted, plan, under

Collect = Callable[[str, Path], Mapping[str, Path]]
"""Brings a section into an empty directory: {path below the section: file}. Raises BundleError."""


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
    :raises BundleError: or StoreError; verified files stay, and there is no bundle.json
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
    """Write what recipe and lock name. Returns the bytes that were linked (or cloned), and copied."""
    counts = {"link": 0, "clone": 0, "copy": 0}
    texts = {path: made for path, made in todo.sources.items() if isinstance(made, bytes)}
    stored = {path: made for path, made in todo.sources.items() if isinstance(made, Path)}
    for manifest in wanted.manifests:
        inside = snapshot_path("", manifest.repository, manifest.commit)
        paths = sorted(under(inside, stored), key=lambda path: -todo.files[path].size)
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
    """Bring one verified file of the store into the bundle. Only a copy is hashed again: a link or clone has the same bytes."""
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
    """Remove the folders that hold nothing any more."""
    for inner, _folders, _names in os.walk(folder, topdown=False):
        path = Path(inner)
        if path not in (folder, folder / INCOMING) and not any(path.iterdir()):
            path.rmdir()


def _remember(folder: Path, todo: Plan) -> None:
    """Write the stat cache, without files whose bytes could have changed since they were verified."""

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
    """Whether this bundle has an archive, at least as new as its bundle.json."""
    path, contents = archive_path(folder), folder / layout.CONTENTS
    return path.exists() and contents.exists() and path.stat().st_mtime_ns >= contents.stat().st_mtime_ns


def _archive(options: Options, result: Written) -> None:
    """Write the bundle as one file beside it, without the other contents of its directory."""
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
