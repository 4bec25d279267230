# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A folder of the store: one run at a time in it, and room on its disk."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from .files import unwritable
from .progress import volume


class StoreError(Exception):
    """A folder of the store cannot be used; the text says what was expected, seen, and what to do."""


def check_space(store: str, needed: int, reserve: int) -> None:
    """:raises StoreError: the file system of `store` has no room for `needed` bytes plus `reserve`"""
    if not needed:
        return
    place = Path(store)
    while not place.exists():
        place = place.parent
    status = os.statvfs(place)
    free = status.f_bavail * status.f_frsize
    if free < needed + reserve:
        raise StoreError(
            f"{store}: expected {volume(needed + reserve)} free ({volume(needed)} to fetch and a reserve of "
            f"{volume(reserve)}), seen {volume(free)}; free space there, or put the store on a larger disk. "
            "Nothing was fetched"
        )


@contextlib.contextmanager
def locked(folder: Path, timeout: float, say: Callable[[str], None]) -> Iterator[None]:
    """One run at a time in a folder, such as that of a repository. The kernel drops the lock when the process ends, however it ends."""
    path = folder / ".lock"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = path.open("a+")
    except OSError as error:
        raise StoreError(unwritable(path, error)) from error
    with handle as file:
        deadline = time.monotonic() + timeout
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                owner = path.read_text().strip() or "?"
                if time.monotonic() >= deadline:
                    raise StoreError(
                        f"{path}: expected to be the only run within {timeout:.0f} s, seen process {owner} still at "
                        "work there; wait for it, or end it: what it has done is kept"
                    ) from None
                say(f"waiting for process {owner}, which works in {folder}")
                time.sleep(min(0.5, timeout))
        file.truncate(0)
        # On a full disk the lock has no name in it, and holds all the same.
        with contextlib.suppress(OSError):
            os.write(file.fileno(), str(os.getpid()).encode())
        yield
