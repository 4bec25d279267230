# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Disk usage, as the room that deleting things frees: a file with two names counts once, and is freed with the second."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Usage:
    """Disk usage by inode: {(device, inode): [bytes, links seen, links there are]}. A folder has one link."""

    inodes: dict[tuple[int, int], list[int]] = field(default_factory=dict)
    newest: float = 0.0
    """Latest modification, Unix time."""

    @property
    def size(self) -> int:
        """Bytes, a hard-linked file counted once."""
        return sum(size for size, _seen, _links in self.inodes.values())

    def add(self, other: Usage) -> None:
        for inode, (size, seen, links) in other.inodes.items():
            mine = self.inodes.setdefault(inode, [size, 0, links])
            mine[1] += seen
        self.newest = max(self.newest, other.newest)


def measure(path: Path) -> Usage:
    """Disk usage of a file or folder and all below it."""
    usage = Usage()
    pending = [path]
    while pending:
        place = pending.pop()
        try:
            status = place.lstat()
            folder = place.is_dir() and not place.is_symlink()
            if folder:
                pending += [Path(entry.path) for entry in os.scandir(place)]
        except FileNotFoundError:  # the engine and the registry write while this reads
            continue
        except OSError as error:
            # Whatever runs in a container can make folders that no path is long enough for. They are not counted.
            if error.errno not in (errno.ENAMETOOLONG, errno.ELOOP):
                raise
            continue
        # For a folder, the link count is that of its subfolders; it has one name.
        one = {(status.st_dev, status.st_ino): [status.st_blocks * 512, 1, 1 if folder else status.st_nlink]}
        usage.add(Usage(one, status.st_mtime))
    return usage
