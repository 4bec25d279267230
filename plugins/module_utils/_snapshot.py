# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bring snapshots into the store, every byte verified. Standard library only: check mode needs no more.

    <store>/models/<org>--<name>/<commit>/              promoted: what serves. Never edited, only swapped
                                 .partial-<commit>/     on the way
                                     files/             verified files, and nothing else
                                     incoming/          bytes that no hash has vouched for yet
                                     swarm/             the same, as a swarm brings them: in any order, with holes
                                 .verified-<commit>.json  the stat cache
                                 .pieces-<commit>.json    piece hashes, for hosts that get it from this one
                                 .lock

A file is verified when its sha256 was computed from the disk once and its size, mtime, ctime and inode are still
those of that moment.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import hashlib
import json
import os
import shutil
import stat
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

from ansible_collections.sparkfleet.vllm.plugins.module_utils import _pieces
from ansible_collections.sparkfleet.vllm.plugins.module_utils._manifest import File, Manifest
from ansible_collections.sparkfleet.vllm.plugins.module_utils._store import snapshot_path

FILE_MODE, FOLDER_MODE = 0o644, 0o755
"""The container's user need not be the store's owner."""
CACHE_VERSION = 1
BLOCK = 4 * 1024 * 1024
DISK_BLOCK = 4096
FETCHES = 2
"""How often a file is fetched whose bytes have another hash than the lock's."""

T = TypeVar("T")
Signature = tuple[int, int, int, int]


class SnapshotError(Exception):
    """A snapshot cannot be made whole; the text says what was expected, seen, and what to do."""


class Stopped(Exception):
    """Another thread failed: stop here."""


class Fetcher(Protocol):
    """Where files come from."""

    resumes: bool
    """Whether bytes of `target` that are already there are kept."""
    blame: str
    """What to think and do of bytes with another hash than the lock's."""

    def fetch(self, manifest: Manifest, path: str, target: Path, received: Callable[[int], None]) -> None:
        """Bring `path` to `target`; call `received` with each number of bytes that came (or was thrown away)."""


class StagedFetcher(ABC):
    """A `Fetcher` that brings all files of a snapshot at once, in a folder of its own, and goes on using them."""

    resumes = False
    blame = "a peer, or the disk, gives other bytes than were locked: do not use them"

    @abstractmethod
    def fetch(self, manifest: Manifest, path: str, target: Path, received: Callable[[int], None]) -> None:
        """As `Fetcher.fetch`; `target` is another name of the file that `begin` brings."""

    @abstractmethod
    def begin(self, manifest: Manifest, paths: Sequence[str], folder: Path) -> None:
        """Start to bring `paths` to `folder`/<commit>/<path>, going on with what is there."""

    @abstractmethod
    def placed(self, manifest: Manifest, folder: Path) -> None:
        """The files are at `folder`/<commit>/<path> as well, and the names that `begin` was given are going."""


# -- what is there


def signature(status: os.stat_result) -> Signature:
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino


def scan(folder: Path) -> dict[str, os.stat_result]:
    """Everything below `folder` that is no directory, links not followed: {relative path: lstat}."""
    found: dict[str, os.stat_result] = {}
    pending = [""]
    while pending:
        prefix = pending.pop()
        try:
            entries = list(os.scandir(folder / prefix if prefix else folder))
        except FileNotFoundError:
            continue
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                pending.append(f"{prefix}{entry.name}/")
            else:
                found[prefix + entry.name] = entry.stat(follow_symlinks=False)
    return found


@dataclass(frozen=True)
class Comparison:
    """A folder against its manifest, by name, size and stat cache alone.

    `verified`, `unknown` (right size, no valid entry in the stat cache), `damaged` {path: why} and `missing` are
    the manifest's files; `unexpected` are the others.
    """

    verified: list[str]
    unknown: list[str]
    damaged: dict[str, str]
    missing: list[str]
    unexpected: list[str]


def compare(
    files: Mapping[str, File],
    found: Mapping[str, os.stat_result],
    cache: Mapping[str, list[Any]],
) -> Comparison:
    """:param cache: {path: [*signature, sha256]}"""
    result = Comparison([], [], {}, [], sorted(set(found) - set(files)))
    for path, file in files.items():
        status = found.get(path)
        if status is None:
            result.missing.append(path)
        elif not stat.S_ISREG(status.st_mode):
            result.damaged[path] = f"expected a regular file, seen {stat.filemode(status.st_mode)}"
        elif status.st_size != file.size:
            result.damaged[path] = f"expected {file.size} bytes, seen {status.st_size}"
        elif cache.get(path) == [*signature(status), file.sha256]:
            result.verified.append(path)
        else:
            result.unknown.append(path)
    return result


def sha256_of(path: Path, advance: Callable[[int], None] = lambda count: None) -> tuple[str, os.stat_result]:
    """Hash of a file and its status before the first byte was read: a later write shows against that."""
    digest = hashlib.sha256()
    buffer = memoryview(bytearray(BLOCK))
    with path.open("rb", buffering=0) as file:
        status = os.fstat(file.fileno())
        while count := file.readinto(buffer):
            digest.update(buffer[:count])
            advance(count)
    return digest.hexdigest(), status


def read_cache(path: Path) -> dict[str, list[Any]]:
    """The stat cache. One that cannot be read is no cache: everything is hashed again."""
    try:
        data = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    files = data.get("files") if isinstance(data, dict) and data.get("version") == CACHE_VERSION else None
    return files if isinstance(files, dict) else {}


def disk_bytes(status: os.stat_result) -> int:
    """What a file really holds: one that is written in any order has its full size long before its bytes."""
    return min(status.st_size, status.st_blocks * 512)


# -- progress


class Meter:
    """Bytes done of a total, as a line now and then: done/total, rate over the last seconds, time left."""

    WINDOW = 15.0

    def __init__(
        self,
        say: Callable[[str], None],
        title: str,
        total: int,
        every: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._say, self._title, self._total, self._every, self._clock = say, title, total, every, clock
        self._lock = threading.Lock()
        self._done = 0
        self._marks = [(clock(), 0)]
        self._last = clock()

    def skip(self, count: int) -> None:
        """Bytes that an earlier run has done: part of the total, not of the rate."""
        with self._lock:
            self._done += count
            self._marks = [(at, done + count) for at, done in self._marks]

    def advance(self, count: int) -> None:
        with self._lock:
            self._done += count
            now = self._clock()
            if now - self._last < self._every:
                return
            self._last = now
            self._marks.append((now, self._done))
            while len(self._marks) > 2 and now - self._marks[1][0] >= self.WINDOW:
                self._marks.pop(0)
            line = self._line(now)
        self._say(line)

    def _line(self, now: float) -> str:
        since, done = self._marks[0]
        rate = (self._done - done) / (now - since) if now > since else 0.0
        left = f", {duration((self._total - self._done) / rate)} left" if rate > 0 else ""
        return f"{self._title}: {volume(self._done)} of {volume(self._total)}, {rate / 1e6:.1f} MB/s{left}"


def volume(count: int) -> str:
    """Decimal units, as disks and the Hub count."""
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


# -- one snapshot


@dataclass
class Report:
    """What became of a snapshot, or in check mode would."""

    manifest: Manifest
    path: str
    state: str = "present"
    fetched: list[str] = field(default_factory=list)
    verified_bytes: int = 0
    damaged: dict[str, str] = field(default_factory=dict)
    unexpected: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    kept_bytes: int = 0
    before: dict[str, str] = field(default_factory=dict)
    modes: int = 0
    seconds: float = 0.0

    @property
    def changed(self) -> bool:
        return self.state != "present" or self.modes > 0

    @property
    def fetched_bytes(self) -> int:
        return sum(self.manifest.files[path].size for path in self.fetched)

    def look(self) -> dict[str, Any]:
        """What there is, in bytes: the manifest's, those that are missing or damaged, those that only a hash can tell
        of, and those that an interrupted run left."""
        unknown = sum(self.manifest.files[path].size for path in self.unknown)
        return {
            "repository": self.manifest.repository,
            "commit": self.manifest.commit,
            "whole": not self.fetched,
            "bytes": self.manifest.size,
            "missing_bytes": self.fetched_bytes - unknown,
            "unknown_bytes": unknown,
            "unchecked": bool(self.unknown or self.modes),
            "kept_bytes": self.kept_bytes,
            "verified_bytes": self.verified_bytes,
            "damaged": self._damaged(),
            "missing": [
                path for path in self.fetched if path not in self.damaged and path not in self.unknown
            ],
            "unknown": self.unknown,
            "unexpected": self.unexpected,
        }

    def _damaged(self) -> list[str]:
        return [f"{path}: {why}" for path, why in sorted(self.damaged.items())]

    def diff(self) -> dict[str, str]:
        def text(lines: Iterable[str]) -> str:
            return "".join(f"{line}\n" for line in lines)

        after = {path: file.sha256 for path, file in self.manifest.files.items()}
        return {
            "before_header": self.path,
            "after_header": self.path,
            "before": text(f"{path} {self.before[path]}" for path in sorted(self.before)),
            "after": text(f"{path} {after[path]}" for path in sorted(after)),
        }

    def result(self) -> dict[str, Any]:
        return {
            "repository": self.manifest.repository,
            "commit": self.manifest.commit,
            "path": self.path,
            "state": self.state,
            "files": len(self.manifest.files),
            "bytes": self.manifest.size,
            "fetched_files": len(self.fetched),
            "fetched_bytes": self.fetched_bytes,
            "verified_bytes": self.verified_bytes,
            "reused": len(self.manifest.files) - len(self.fetched),
            "damaged": self._damaged(),
            "unexpected": self.unexpected,
            "seconds": round(self.seconds, 3),
        }


class Snapshot:
    """One repository at one commit in the store."""

    def __init__(self, store: str, manifest: Manifest, workers: int, say: Callable[[str], None]) -> None:
        self.manifest, self.workers, self.say = manifest, workers, say
        self.path = Path(snapshot_path(store, manifest.repository, manifest.commit))
        self.folder = self.path.parent
        self.cache_path = self.folder / f".verified-{manifest.commit}.json"
        self.partial = self.folder / f".partial-{manifest.commit}"
        self.files, self.incoming = self.partial / "files", self.partial / "incoming"
        self.swarm = self.partial / "swarm"
        self.pieces_path = _pieces.cache_path(self.folder, manifest.commit)
        self.report = Report(manifest, str(self.path))
        self._pieces: dict[str, bytes] = {}
        """Piece hashes of what was fetched, by sha256."""
        self._sound: dict[str, os.stat_result] = {}
        """Promoted files that are as the manifest says, with their status when that was found."""

    # inspect

    def inspect(self, full: bool, hashing: bool = True) -> bool:
        """Look at what is promoted. Returns whether it is whole.

        :param full: hash every file, whatever the stat cache says
        :param hashing: False: do not read a file; one that the stat cache does not vouch for counts as missing
        """
        if self.path.is_symlink() or (self.path.exists() and not self.path.is_dir()):
            raise SnapshotError(
                f"{self.path}: expected a directory that this collection made, seen something else; move it away"
            )
        found = scan(self.path)
        seen = compare(self.manifest.files, found, {} if full else read_cache(self.cache_path))
        self._sound = {path: found[path] for path in seen.verified}
        damaged = dict(seen.damaged)
        if hashing:
            sound, wrong = self._verify(self.path, seen.unknown)
            self._sound.update(sound)
            damaged.update(wrong)
        report = self.report
        report.damaged, report.unexpected = damaged, seen.unexpected
        report.unknown = [] if hashing else seen.unknown
        report.before = {path: self.manifest.files[path].sha256 for path in self._sound} | damaged
        report.fetched = [path for path in self.manifest.files if path not in self._sound]
        if report.fetched:
            report.state = "repaired" if found else "fetched"
            report.kept_bytes = sum(disk_bytes(status) for status in scan(self.partial).values())
        report.modes = sum(stat.S_IMODE(status.st_mode) != FILE_MODE for status in self._sound.values())
        return not report.fetched

    def _verify(self, folder: Path, paths: Sequence[str]) -> tuple[dict[str, os.stat_result], dict[str, str]]:
        """Hash files in parallel: what is right, with its status, and what is not, with the reason."""
        total = sum(self.manifest.files[path].size for path in paths)
        meter = Meter(self.say, f"{self.manifest.repository}: verifying", total)

        def check(path: str) -> tuple[str, str, os.stat_result]:
            return path, *sha256_of(folder / path, meter.advance)

        right: dict[str, os.stat_result] = {}
        wrong: dict[str, str] = {}
        for path, seen, status in in_parallel(check, paths, self.workers):
            expected = self.manifest.files[path].sha256
            if seen == expected:
                right[path] = status
            else:
                wrong[path] = f"expected sha256 {expected}, seen {seen}"
        self.report.verified_bytes += total
        return right, wrong

    # prepare

    def prepare(self, resumes: bool, staged: bool = False) -> int:
        """Tidy what an interrupted run left and keep what is right of it. Returns the bytes still to come.

        :param resumes: bytes in `incoming` are gone on with
        :param staged: bytes in `swarm` are
        """
        for folder in (self.files, self.incoming):
            folder.mkdir(parents=True, exist_ok=True)
        found = scan(self.files)
        wanted = {path: self.manifest.files[path] for path in self.report.fetched}
        seen = compare(wanted, found, {})
        right, wrong = self._verify(self.files, seen.unknown)
        for path in [*seen.damaged, *wrong, *seen.unexpected]:
            (self.files / path).unlink()
        self.report.fetched = [path for path in self.report.fetched if path not in right]
        expected = {self._incoming(path).name for path in self.report.fetched} if resumes else set()
        here = 0
        for entry in os.scandir(self.incoming):
            if entry.name not in expected:
                remove(Path(entry.path))
            else:
                here += entry.stat(follow_symlinks=False).st_size
        if staged:
            here += self._staged_bytes()
        else:
            remove(self.swarm)
        return max(0, self.bytes_to_fetch() - here)

    def _staged_bytes(self) -> int:
        """What is on disk of the files to fetch; the holes of a file take no space."""
        found = scan(self.swarm / self.manifest.commit)
        return sum(found[path].st_blocks * 512 for path in self.report.fetched if path in found)

    def bytes_to_fetch(self) -> int:
        """On disk, where a file takes whole blocks."""
        sizes = (self.manifest.files[path].size for path in self.report.fetched)
        return sum(-(-size // DISK_BLOCK) * DISK_BLOCK for size in sizes)

    def _incoming(self, path: str) -> Path:
        """Named by what it is to become, so that bytes for another file or another lock are never gone on with."""
        name = hashlib.sha256(f"{path}\0{self.manifest.files[path].sha256}".encode()).hexdigest()
        return self.incoming / name

    # fetch

    def fetch(self, fetcher: Fetcher) -> None:
        """Fetch and verify what is missing; large files first, so that none of them is left alone at the end."""
        paths = sorted(self.report.fetched, key=lambda path: -self.manifest.files[path].size)
        if isinstance(fetcher, StagedFetcher):
            fetcher.begin(self.manifest, paths, self.swarm)
        meter = Meter(self.say, self.manifest.repository, self.report.fetched_bytes)
        stopped = threading.Event()
        piece = _pieces.piece_size(self.manifest.size)

        def received(count: int) -> None:
            if stopped.is_set():
                raise Stopped
            meter.advance(count)

        def hashed(target: Path) -> tuple[str, os.stat_result]:
            if isinstance(fetcher, StagedFetcher):  # it knows the pieces, and checked them
                return sha256_of(target)
            # This host will be asked to describe what it fetched; now the file is in memory.
            result = _pieces.hash_file(target, piece)
            self._pieces[result.sha256] = result.pieces
            return result.sha256, result.status

        def one(path: str) -> int:
            target = self._incoming(path)
            if target.exists():
                meter.skip(target.stat().st_size)
            for left in reversed(range(FETCHES)):
                fetcher.fetch(self.manifest, path, target, received)
                seen, status = hashed(target)
                if seen == self.manifest.files[path].sha256:
                    break
                received(-status.st_size)
                target.unlink()
                problem = (
                    f"{self.manifest.repository}/{path}: expected sha256 {self.manifest.files[path].sha256}, seen {seen} "
                    f"({status.st_size} bytes)"
                )
                if not left:
                    raise SnapshotError(
                        f"{problem}, fetched {FETCHES} times; {fetcher.blame}. Nothing was promoted"
                    )
                self.say(f"{problem}; fetching it again")
            sync(target)
            place = self.files / path
            place.parent.mkdir(parents=True, exist_ok=True)
            target.rename(place)
            return status.st_size

        self.say(
            f"{self.manifest.repository}: fetching {len(paths)} of {len(self.manifest.files)} files, "
            f"{volume(self.report.fetched_bytes)}"
        )
        self.report.verified_bytes += sum(in_parallel(one, paths, self.workers, stopped))

    # promote

    def promote(self, fetcher: Fetcher) -> None:
        """Put the whole snapshot in its place at once. What serves is replaced, never edited."""
        for path, status in self._sound.items():
            place = self.files / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.unlink(missing_ok=True)
            os.link(self.path / path, place)
            if not _same(place.lstat(), status):
                raise SnapshotError(f"{self.path / path}: it changed while it was used; run again")
        whole = scan(self.files)
        seen = compare(self.manifest.files, whole, {})
        if seen.missing or seen.damaged or seen.unexpected:
            raise SnapshotError(
                f"{self.files}: expected the {len(self.manifest.files)} files of the lock, seen "
                f"{len(seen.missing)} missing, {len(seen.damaged)} damaged, {len(seen.unexpected)} unexpected; run again"
            )
        self._make_readable(self.files, whole)
        for folder, _folders, _names in os.walk(self.files):
            sync(Path(folder))
        if self.path.exists():
            exchange(self.files, self.path)
        else:
            self.files.rename(self.path)
        sync(self.folder)
        if isinstance(fetcher, StagedFetcher):
            fetcher.placed(self.manifest, self.folder)
        remove(self.partial)
        # Removing the old names of a file changes its ctime; the rest of its signature must be what was verified.
        self._remember(
            {path: status for path, status in scan(self.path).items() if _same(status, whole[path])}
        )
        if self._pieces:
            _pieces.add_to_cache(self.pieces_path, _pieces.piece_size(self.manifest.size), self._pieces)

    def tidy(self) -> None:
        """Leave no empty folder behind of what did not come."""
        if self.partial.exists() and not scan(self.partial):
            remove(self.partial)

    def settle(self) -> None:
        """A whole snapshot: make it readable and let the stat cache say so."""
        if self.report.modes:
            self._make_readable(self.path, self._sound)
            after = scan(self.path)
            self._sound = {
                path: after[path] for path, status in self._sound.items() if _same(status, after[path])
            }
        self._remember(self._sound)
        # Nobody else can be using it: the lock is ours.
        remove(self.partial)

    def relinked(self) -> None:
        """Its files were given further names: their ctime moved, their bytes did not."""
        after = scan(self.path)
        self._sound = {
            path: after[path]
            for path, status in self._sound.items()
            if path in after and _same(status, after[path])
        }
        self._remember(self._sound)

    def remember_sound(self) -> None:
        """A snapshot that is not whole: let the stat cache vouch for what was found right, and for no more."""
        self._remember(self._sound)

    def _make_readable(self, folder: Path, files: Mapping[str, os.stat_result]) -> None:
        for path, status in files.items():
            if stat.S_IMODE(status.st_mode) != FILE_MODE:
                (folder / path).chmod(FILE_MODE)
        for inner, _folders, _names in os.walk(folder):
            if stat.S_IMODE(Path(inner).stat().st_mode) != FOLDER_MODE:
                Path(inner).chmod(FOLDER_MODE)

    def _remember(self, verified: Mapping[str, os.stat_result]) -> None:
        files = {
            path: [*signature(status), self.manifest.files[path].sha256]
            for path, status in sorted(verified.items())
            if path in self.manifest.files
        }
        if files == read_cache(self.cache_path):
            return
        draft = self.cache_path.with_name(f"{self.cache_path.name}.new")
        draft.write_text(json.dumps({"version": CACHE_VERSION, "files": files}, separators=(",", ":")))
        draft.chmod(FILE_MODE)
        sync(draft)
        draft.replace(self.cache_path)


def _same(one: os.stat_result, other: os.stat_result) -> bool:
    """The same bytes, as far as can be told without ctime."""
    return (one.st_size, one.st_mtime_ns, one.st_ino) == (other.st_size, other.st_mtime_ns, other.st_ino)


# -- all of them


@dataclass
class Options:
    store: str
    workers: int = 8
    full: bool = False
    reserve: int = 0
    lock_timeout: float = 3600.0
    say: Callable[[str], None] = lambda text: None


def look(manifests: Sequence[Manifest], options: Options) -> list[Report]:
    """What sizes and the stat cache say. Reads no file, writes nothing; with `full` nothing is vouched for."""
    snapshots = _snapshots(manifests, options)
    for snapshot in snapshots:
        snapshot.inspect(options.full, hashing=False)
    return [snapshot.report for snapshot in snapshots]


def check(manifests: Sequence[Manifest], options: Options, remember: bool = True) -> list[Report]:
    """Hash what the stat cache does not vouch for, and remember it. Fetches and promotes nothing.

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
    :raises SnapshotError: and what the fetcher raises; nothing is promoted that is not whole
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


def check_space(store: str, needed: int, reserve: int) -> None:
    """:raises SnapshotError: the file system of `store` has no room for `needed` bytes and then `reserve`"""
    if not needed:
        return
    place = Path(store)
    while not place.exists():
        place = place.parent
    status = os.statvfs(place)
    free = status.f_bavail * status.f_frsize
    if free < needed + reserve:
        raise SnapshotError(
            f"{store}: expected {volume(needed + reserve)} free ({volume(needed)} to fetch and a reserve of "
            f"{volume(reserve)}), seen {volume(free)}; free space there, or put the store on a larger disk. "
            "Nothing was fetched"
        )


@contextlib.contextmanager
def locked(folder: Path, timeout: float, say: Callable[[str], None]) -> Iterator[None]:
    """One run at a time in a folder, such as that of a repository. The kernel drops the lock when the process ends, however it ends."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / ".lock"
    with path.open("a+") as file:
        deadline = time.monotonic() + timeout
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                owner = path.read_text().strip() or "?"
                if time.monotonic() >= deadline:
                    raise SnapshotError(
                        f"{path}: expected to be the only run within {timeout:.0f} s, seen process {owner} still at "
                        "work there; wait for it, or end it: what it has done is kept"
                    ) from None
                say(f"waiting for process {owner}, which works in {folder}")
                time.sleep(min(0.5, timeout))
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


@contextlib.contextmanager
def all_locked(snapshots: Sequence[Snapshot], options: Options) -> Iterator[contextlib.ExitStack]:
    with contextlib.ExitStack() as locks:
        # In one order, so that two runs never wait for each other.
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


def in_parallel(
    function: Callable[[str], T], items: Sequence[str], workers: int, stopped: threading.Event | None = None
) -> list[T]:
    """`function` of every item, in threads. The first failure sets `stopped`, ends the rest and is raised."""
    pool = ThreadPoolExecutor(max(1, min(workers, len(items) or 1)))
    try:
        futures = [pool.submit(function, item) for item in items]
        done, _pending = wait(futures, return_when=FIRST_EXCEPTION)
        failed = [
            error for future in done if (error := future.exception()) and not isinstance(error, Stopped)
        ]
        if failed:
            raise failed[0]
        return [future.result() for future in futures]
    finally:
        if stopped is not None:
            stopped.set()
        pool.shutdown(wait=True, cancel_futures=True)


def sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove(path: Path) -> None:
    """A file or a whole folder, if it is there. Links are not followed."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def exchange(one: Path, other: Path) -> None:
    """Swap two directories so that each name always exists (renameat2, RENAME_EXCHANGE; Linux 3.15)."""
    at_fdcwd, rename_exchange = -100, 2
    libc = ctypes.CDLL(None, use_errno=True)
    paths = os.fsencode(one), os.fsencode(other)
    if hasattr(libc, "renameat2"):
        if libc.renameat2(at_fdcwd, paths[0], at_fdcwd, paths[1], rename_exchange) == 0:
            return
        number = ctypes.get_errno()
        if number not in (errno.ENOSYS, errno.EINVAL):  # a file system that cannot
            raise OSError(number, os.strerror(number), str(other))
    aside = one.with_name("replaced")
    other.rename(aside)
    one.rename(other)
