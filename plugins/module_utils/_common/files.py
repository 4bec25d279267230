# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files that are whole or not there, and their hashes."""

from __future__ import annotations

import ctypes
import errno
import hashlib
import os
import shutil
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path

BLOCK = 4 * 1024 * 1024


def write(path: Path, content: bytes, mode: int = 0o644) -> None:
    """Replace a file atomically; a reader sees the old bytes or the new ones. Makes its directory.

    :raises OSError: the directory cannot be made or written
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, draft = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        Path(draft).replace(path)
    except BaseException:
        Path(draft).unlink(missing_ok=True)
        raise


def unwritable(path: Path | str, error: OSError) -> str:
    """The message about a failed :func:`write`."""
    return f"expected to write {path}, seen: {error.strerror or error}; make room there, or mend the disk, and run again"


def alterable(path: Path) -> str:
    """Who besides root and this user may alter the file, in words; empty for nobody. For a link, its target counts.

    :raises OSError: it cannot be looked at
    """
    status = path.stat()
    said = [] if status.st_uid in (0, os.geteuid()) else [f"owned by uid {status.st_uid}"]
    if status.st_mode & stat.S_IWOTH:
        said.append(f"writable by everybody (mode {stat.S_IMODE(status.st_mode):04o})")
    return " and ".join(said)


def stamp(path: str | Path) -> str:
    """Which file this is: inode and modification time. A bind mount keeps the file that it was made with."""
    status = Path(path).stat()
    return f"{status.st_ino:x}-{status.st_mtime_ns:x}"


def sha256_of(path: Path, advance: Callable[[int], None] = lambda count: None) -> tuple[str, os.stat_result]:
    """Hash of a file, and its status from before the first byte was read, so that a later write shows."""
    digest = hashlib.sha256()
    buffer = memoryview(bytearray(BLOCK))
    with path.open("rb", buffering=0) as file:
        status = os.fstat(file.fileno())
        while count := file.readinto(buffer):
            digest.update(buffer[:count])
            advance(count)
    return digest.hexdigest(), status


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
