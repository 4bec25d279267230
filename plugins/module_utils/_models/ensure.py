# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Snapshots of a store, several at once: looked at, checked, and made whole."""

from __future__ import annotations

import contextlib
import errno
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from .._common.progress import duration, volume
from .._common.store import check_space, locked
from .manifest import Manifest
from .snapshot import Fetcher, Report, Snapshot, SnapshotError, StagedFetcher


@dataclass
class Options:
    store: str
    workers: int = 8
    full: bool = False
    reserve: int = 0
    lock_timeout: float = 3600.0
    say: Callable[[str], None] = lambda text: None


def look(manifests: Sequence[Manifest], options: Options) -> list[Report]:
    """The reports by sizes and the stat cache. Reads no file, writes nothing. With `full`, the cache vouches for nothing."""
    snapshots = _snapshots(manifests, options)
    for snapshot in snapshots:
        snapshot.inspect(options.full, hashing=False)
    return [snapshot.report for snapshot in snapshots]


def check(manifests: Sequence[Manifest], options: Options, remember: bool = True) -> list[Report]:
    """Hash what the stat cache does not vouch for, and remember the result. Fetches and promotes nothing.

    :param remember: False: write nothing
    """
    snapshots = _snapshots(manifests, options)
    with all_locked([one for one in snapshots if remember and one.path.exists()], options):
        for snapshot in snapshots:
            with timed(snapshot.report):
                whole = snapshot.inspect(options.full)
                if remember and whole:
                    snapshot.settle()
                elif remember and snapshot.path.exists():
                    snapshot.remember_sound()
    return [snapshot.report for snapshot in snapshots]


def preview(manifests: Sequence[Manifest], options: Options) -> list[Report]:
    """What `ensure` would do. Writes nothing, asks nobody."""
    snapshots = _snapshots(manifests, options)
    needed = 0
    for snapshot in snapshots:
        with timed(snapshot.report):
            if not snapshot.inspect(options.full):
                needed += snapshot.bytes_to_fetch()
    check_space(options.store, needed, options.reserve)
    return [snapshot.report for snapshot in snapshots]


def ensure(manifests: Sequence[Manifest], options: Options, fetcher: Callable[[], Fetcher]) -> list[Report]:
    """Make every snapshot whole.

    :param fetcher: makes the fetcher; called only if something is missing
    :raises StoreError: SnapshotError among them, and what the fetcher raises; only whole snapshots are promoted
    """
    snapshots = _snapshots(manifests, options)
    with all_locked(snapshots, options) as locks:
        incomplete: list[tuple[Snapshot, Fetcher]] = []
        source: Fetcher | None = None
        needed = 0
        for snapshot in snapshots:
            with timed(snapshot.report):
                if snapshot.inspect(options.full):
                    snapshot.settle()
                    continue
                source = source or fetcher()
                needed += snapshot.prepare(source.resumes, isinstance(source, StagedFetcher))
                incomplete.append((snapshot, source))
        for snapshot, _source in incomplete:
            locks.callback(snapshot.tidy)
        check_space(options.store, needed, options.reserve)
        for snapshot, source in incomplete:
            with timed(snapshot.report), disk_errors(snapshot):
                snapshot.fetch(source)
                snapshot.promote(source)
            options.say(
                f"{snapshot.manifest.repository}: {len(snapshot.manifest.files)} files verified and in place, "
                f"{volume(snapshot.manifest.size)} in {duration(snapshot.report.seconds)}"
            )
    return [snapshot.report for snapshot in snapshots]


def _snapshots(manifests: Sequence[Manifest], options: Options) -> list[Snapshot]:
    return [Snapshot(options.store, manifest, options.workers, options.say) for manifest in manifests]


@contextlib.contextmanager
def all_locked(snapshots: Sequence[Snapshot], options: Options) -> Iterator[contextlib.ExitStack]:
    with contextlib.ExitStack() as locks:
        # Lock in sorted order, so that two runs never wait for each other.
        for folder in sorted({snapshot.folder for snapshot in snapshots}):
            locks.enter_context(locked(folder, options.lock_timeout, options.say))
        yield locks


@contextlib.contextmanager
def timed(report: Report) -> Iterator[None]:
    start = time.monotonic()
    try:
        yield
    finally:
        report.seconds += time.monotonic() - start


@contextlib.contextmanager
def disk_errors(snapshot: Snapshot) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO):
            raise
        raise SnapshotError(
            f"{snapshot.partial}: expected to write the snapshot, seen {error.strerror}; make room or check the disk. "
            "Nothing was promoted, and what was fetched is kept"
        ) from error
