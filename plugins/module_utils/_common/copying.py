# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A file under a second path, by the cheapest means that the file system has."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Callable
from pathlib import Path

FICLONE = 0x40049409
"""ioctl of Linux: share all blocks until one side writes (Btrfs, XFS)."""
BLOCK = 4 * 1024 * 1024
_CANNOT = {errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOTTY, errno.EPERM, errno.EMLINK, errno.ENOSYS}


def bring(source: Path, target: Path, received: Callable[[int], None] = lambda count: None) -> str:
    """Make `target`, which must not exist yet, hold the bytes of `source`: ``clone``, ``link`` or ``copy``.

    Links only when nobody but this user may write to the source: source and target share their bytes from then on.

    :param received: called with each number of bytes
    :raises OSError: of the source or the target; no target is left behind
    """
    status = source.lstat()
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, f"no regular file but {stat.filemode(status.st_mode)}", str(source))
    target.unlink(missing_ok=True)
    try:
        with source.open("rb", buffering=0) as there, target.open("xb", buffering=0) as here:
            if _clone(there.fileno(), here.fileno()):
                received(status.st_size)
                return "clone"
        if status.st_uid == os.geteuid() and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            target.unlink()
            if _link(source, target):
                received(status.st_size)
                return "link"
        with source.open("rb", buffering=0) as there, target.open("wb", buffering=0) as here:
            buffer = memoryview(bytearray(BLOCK))
            while count := there.readinto(buffer):
                _write(here.fileno(), buffer[:count], target)
                received(count)
    except BaseException:
        target.unlink(missing_ok=True)
        raise
    return "copy"


def _clone(there: int, here: int) -> bool:
    try:
        fcntl.ioctl(here, FICLONE, there)
    except OSError as error:
        if error.errno not in _CANNOT:
            raise
        return False
    return True


def _link(source: Path, target: Path) -> bool:
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in _CANNOT:
            raise
        return False
    return True


def _write(descriptor: int, data: memoryview, target: Path) -> None:
    """Write all of it. An error names the target: a write knows only its descriptor."""
    while data:
        try:
            data = data[os.write(descriptor, data) :]
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(target)) from error
