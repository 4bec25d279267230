# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One container as the gate sees it: its state, its log, and files as its process sees them. Reads only,
and without an engine (docker_container.py has that)."""

from __future__ import annotations

import hashlib
import os
import re
import stat
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Protocol

_MAX_LINKS = 40
LONGEST_LINE = 16 * 1024
"""Characters of a log line that are read. Docker's own drivers cut a message there, and then join the pieces."""
LARGEST_FILE, LONGEST_READ = 64 << 20, 30.0
"""Limits for a file in the container, in bytes and in seconds. The files that are looked at are sources."""


@dataclass(frozen=True)
class State:
    """One look at a container. `id` and `started_at` together name one life of one server process."""

    id: str
    status: str
    """created, running, paused, restarting, removing, exited or dead"""
    started_at: str
    """RFC 3339, as the engine gives it"""
    pid: int = 0
    exit_code: int = 0
    oom_killed: bool = False
    error: str = ""
    restarts: int = 0
    image: str = ""
    """As it was asked for, by digest where that was pinned"""
    argv: tuple[str, ...] = ()
    mounts: Mapping[str, str] = field(default_factory=dict)
    """Path in the container -> source on the host"""
    rdma: str = ""
    """The RDMA devices that NCCL was given (NCCL_IB_HCA); empty where it shall use none"""

    @property
    def started(self) -> float:
        """Unix time of the start."""
        return parse_time(self.started_at)


@dataclass(frozen=True)
class FileSeen:
    """A file's content and age, or why there is none. `changed` is its ctime: copying cannot set it back."""

    md5: str | None = None
    sha256: str | None = None
    changed: float | None = None
    error: str | None = None


@dataclass(frozen=True)
class LogLine:
    time: str
    """RFC 3339 with nanoseconds: sorts as text"""
    text: str


class Container(Protocol):
    """What the gate asks of a container. docker_container.py implements it, and so do the tests."""

    def inspect(self) -> State | None:
        """The state now; None when there is no such container."""

    def log(self, since: float, until: float | None = None, tail: int | None = None) -> Sequence[LogLine]:
        """Log lines of the container between two Unix times, secrets masked."""

    def file(self, state: State, path: str) -> FileSeen:
        """A file as the running process sees it, mounts and all."""

    def host_file(self, path: str) -> FileSeen:
        """A file of the host."""


def parse_time(text: str) -> float:
    """Unix time of an RFC 3339 time with up to nine digits of a second.

    >>> parse_time("1970-01-01T00:00:01.250000000Z")
    1.25
    """
    match = re.match(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d+)?(Z|[+-]\d\d:\d\d)$", text)
    if not match:
        raise ValueError(f"not an RFC 3339 time: {text!r}")
    zone = "+00:00" if match[3] == "Z" else match[3]
    whole = datetime.fromisoformat(match[1] + zone).astimezone(timezone.utc).timestamp()
    return whole + float(match[2] or 0)


def stale_mounts(pid: int, mounts: Mapping[str, str], proc: Path = Path("/proc")) -> list[str]:
    """Mount points where the process has another file or directory than the one at the source now.

    A start of the container looks the source up again.

    :param mounts: mount point in the container -> source on the host
    """
    stale = []
    for target, source in mounts.items():
        try:
            inside = resolve_in_root(proc / str(pid) / "root", target).stat()
            outside = Path(source).stat()
        except OSError:
            continue
        if (inside.st_dev, inside.st_ino) != (outside.st_dev, outside.st_ino):
            stale.append(target)
    return stale


def resolve_in_root(root: Path, path: str) -> Path:
    """The file that `path` means to a process whose root directory is `root`.

    Opening root/path would follow an absolute link out of the root, into the host's files.

    :raises OSError: a link or directory on the way cannot be read, or links form a loop
    """
    pending = [part for part in path.split("/") if part]
    reached: list[str] = []
    links = 0
    while pending:
        part = pending.pop(0)
        if part == ".":
            continue
        if part == "..":
            reached = reached[:-1]
            continue
        step = root.joinpath(*reached, part)
        if step.is_symlink():
            links += 1
            if links > _MAX_LINKS:
                raise OSError(f"too many links in {path}")
            target = str(step.readlink())
            pending[:0] = [piece for piece in target.split("/") if piece]
            if target.startswith("/"):
                reached = []
        else:
            reached.append(part)
    return root.joinpath(*reached)


def digest(blocks: Iterable[bytes], changed: float | None = None) -> FileSeen:
    """The hashes of the blocks, with a limit: the container may hold an endless file."""
    md5, sha256 = hashlib.md5(usedforsecurity=False), hashlib.sha256()
    for block in bounded(blocks):
        md5.update(block)
        sha256.update(block)
    return FileSeen(md5.hexdigest(), sha256.hexdigest(), changed)


def bounded(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """:raises OSError: more than :data:`LARGEST_FILE` bytes or :data:`LONGEST_READ` seconds"""
    read, deadline = 0, time.monotonic() + LONGEST_READ
    for block in blocks:
        read += len(block)
        if read > LARGEST_FILE:
            raise OSError(f"more than {LARGEST_FILE >> 20} MiB, which no file that is looked at has")
        if time.monotonic() > deadline:
            raise OSError(f"no end within {LONGEST_READ:g} s")
        yield block


def read_file(path: Path) -> FileSeen:
    """The hashes of a plain file only: a pipe would keep the reader waiting, and a device has no end."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return FileSeen(error="not a plain file")
        # Look at the opened file again: the container may have changed it meanwhile.
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY), "rb") as stream:
            status = os.fstat(stream.fileno())
            if not stat.S_ISREG(status.st_mode):
                return FileSeen(error="not a plain file")
            return digest(iter(partial(stream.read, 1 << 20), b""), status.st_ctime)
    except FileNotFoundError:
        return FileSeen(error="no such file")
    except OSError as error:
        return FileSeen(error=error.strerror or str(error))


class NoContainer:
    """Stands in for the container of a server on another host: always there, and tells nothing."""

    def inspect(self) -> State:
        return State(id="", status="running", started_at="1970-01-01T00:00:00Z")

    def log(self, since: float, until: float | None = None, tail: int | None = None) -> Sequence[LogLine]:
        return []

    def file(self, state: State, path: str) -> FileSeen:
        return FileSeen(error="no container to look into")

    def host_file(self, path: str) -> FileSeen:
        return read_file(Path(path))
