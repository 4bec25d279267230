# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The files of a gateway: written beside their place, and put there all at once."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from .._common import files

PUBLIC, SECRET, FOLDER = 0o640, 0o600, 0o750
"""Modes. HAProxy reads all of them as root; its group may look at what is not secret."""
LARGEST = 16 * 1024 * 1024
"""Bytes of a file that is compared. None of ours has that many."""


@dataclass(frozen=True)
class File:
    content: bytes
    mode: int
    group: int

    @property
    def secret(self) -> bool:
        return self.mode == SECRET


def wanted(public: Mapping[str, str], secret: Mapping[str, str], group: int) -> dict[str, File]:
    found = {name: File(text.encode(), PUBLIC, group) for name, text in public.items()}
    return found | {name: File(text.encode(), SECRET, os.getegid()) for name, text in secret.items()}


def look(folder: Path) -> dict[str, File]:
    """What is there; nothing for no folder.

    :raises OSError: it cannot be read
    """
    if not folder.is_dir():
        return {}
    found = {}
    for path in sorted(folder.iterdir()):
        status = path.lstat()
        readable = stat.S_ISREG(status.st_mode) and status.st_size <= LARGEST
        content = path.read_bytes() if readable else b""
        found[path.name] = File(content, stat.S_IMODE(status.st_mode), status.st_gid)
    return found


def write(folder: Path, wanted: Mapping[str, File], group: int) -> None:
    """Make the folder anew, with these files.

    :raises OSError: it cannot be made
    """
    files.remove(folder)
    folder.mkdir(parents=True, mode=FOLDER)
    _give(folder, group)
    for name, file in wanted.items():
        files.write(folder / name, file.content, file.mode)
        _give(folder / name, file.group)
    files.sync(folder)


def _give(path: Path, group: int) -> None:
    if group not in (-1, os.getegid()):
        os.chown(path, -1, group)


def put(staged: Path, folder: Path) -> None:
    """Give the staged folder its place. Whatever was there then lies at `staged`.

    :raises OSError: it cannot be moved
    """
    if folder.exists():
        files.exchange(staged, folder)
    else:
        staged.rename(folder)
    files.sync(folder.parent)
