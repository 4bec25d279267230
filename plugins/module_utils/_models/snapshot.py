# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One snapshot in the store, every byte verified. Standard library only: check mode needs no more.

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

import hashlib
import json
import os
import stat
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from .._common.files import exchange, remove, sha256_of, sync
from .._common.paths import snapshot_path
from .._common.progress import Meter, volume
from .._common.store import StoreError
from .._common.work import Stopped, in_parallel
from . import pieces
from .compare import CACHE_VERSION, compare, disk_bytes, read_cache, scan, signature
from .manifest import Manifest

FILE_MODE, FOLDER_MODE = 0o644, 0o755
"""The container's user need not be the store's owner."""
DISK_BLOCK = 4096
FETCHES = 2
"""How often a file is fetched while its hash is not the lock's."""


class SnapshotError(StoreError):
    """A snapshot cannot be made whole; the text says what was expected, seen, and what to do."""


class Fetcher(Protocol):
    """Where files come from."""

    resumes: bool
    """Whether bytes of `target` that are already there are kept."""
    blame: str
    """What to think and do when a hash is not the lock's."""

    def fetch(self, manifest: Manifest, path: str, target: Path, received: Callable[[int], None]) -> None:
        """Bring `path` to `target`; call `received` with each number of bytes that came (or was thrown away)."""


class StagedFetcher(ABC):
    """A `Fetcher` that brings all files of a snapshot at once, into its own folder, and goes on using them."""

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
        """Say that the files are now also at `folder`/<commit>/<path>. The names that `begin` got are removed next."""


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
    def unchecked(self) -> bool:
        return bool(self.unknown or self.modes)

    @property
    def fetched_bytes(self) -> int:
        return sum(self.manifest.files[path].size for path in self.fetched)

    def look(self) -> dict[str, Any]:
        """What there is, in bytes: all of the manifest, the files that are missing or damaged, those that only a hash can judge,
        and those that an interrupted run left."""
        unknown = sum(self.manifest.files[path].size for path in self.unknown)
        return {
            "repository": self.manifest.repository,
            "commit": self.manifest.commit,
            "whole": not self.fetched,
            "bytes": self.manifest.size,
            "missing_bytes": self.fetched_bytes - unknown,
            "unknown_bytes": unknown,
            "unchecked": self.unchecked,
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

    def strays(self) -> str:
        """A warning about files that do not belong to a whole snapshot; empty without any."""
        if not self.unexpected or self.state != "present":
            return ""
        return (
            f"{self.path}: files that the lock does not know, and that what serves may read: "
            f"{', '.join(self.unexpected[:10])}; remove them"
        )

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
        self.pieces_path = pieces.cache_path(self.folder, manifest.commit)
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
        """Hash files in parallel: the right ones with their status, the others with the reason."""
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
        """Tidy what an interrupted run left, and keep what is right. Returns the bytes still to come.

        :param resumes: a download goes on after the bytes in `incoming`
        :param staged: a download goes on with the bytes in `swarm`
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
        """Bytes on disk of the files to fetch. The holes of a file take no space."""
        found = scan(self.swarm / self.manifest.commit)
        return sum(found[path].st_blocks * 512 for path in self.report.fetched if path in found)

    def bytes_to_fetch(self) -> int:
        """Bytes to fetch as they count on disk, where a file takes whole blocks."""
        sizes = (self.manifest.files[path].size for path in self.report.fetched)
        return sum(-(-size // DISK_BLOCK) * DISK_BLOCK for size in sizes)

    def _incoming(self, path: str) -> Path:
        """Path of a download. Its name says what it is to become, so that no download continues another file or another lock."""
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
        piece = pieces.piece_size(self.manifest.size)

        def received(count: int) -> None:
            if stopped.is_set():
                raise Stopped
            meter.advance(count)

        def hashed(target: Path) -> tuple[str, os.stat_result]:
            if isinstance(fetcher, StagedFetcher):  # the swarm knows the pieces, and has checked them
                return sha256_of(target)
            # Other hosts will ask this one to describe what it fetched, and now the file is in memory.
            result = pieces.hash_file(target, piece)
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
            pieces.add_to_cache(self.pieces_path, pieces.piece_size(self.manifest.size), self._pieces)

    def tidy(self) -> None:
        """Remove the empty folder of a snapshot that did not come."""
        if self.partial.exists() and not scan(self.partial):
            remove(self.partial)

    def settle(self) -> None:
        """Make a whole snapshot readable, and let the stat cache vouch for it."""
        if self.report.modes:
            self._make_readable(self.path, self._sound)
            after = scan(self.path)
            self._sound = {
                path: after[path] for path, status in self._sound.items() if _same(status, after[path])
            }
        self._remember(self._sound)
        # This run holds the lock, so nobody else can be using it.
        remove(self.partial)

    def relinked(self) -> None:
        """Update the stat cache after the files got further names: their ctime moved, their bytes did not."""
        after = scan(self.path)
        self._sound = {
            path: after[path]
            for path, status in self._sound.items()
            if path in after and _same(status, after[path])
        }
        self._remember(self._sound)

    def remember_sound(self) -> None:
        """Let the stat cache vouch for the sound files of a snapshot that is not whole, and for no others."""
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
    """Whether two files have the same bytes, as far as can be told without ctime."""
    return (one.st_size, one.st_mtime_ns, one.st_ino) == (other.st_size, other.st_mtime_ns, other.st_ino)
