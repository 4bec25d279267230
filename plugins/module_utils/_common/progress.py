# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Progress lines of a long-running module. plugins/plugin_utils/background.py reads them on the controller.

The file belongs to the module's job (plugins/module_utils/_run/detached.py), which ends the module when the file is gone.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

ENVIRONMENT = "SPARKFLEET_PROGRESS"


def scratch(otherwise: str) -> Path:
    """A folder for files that are needed only while a module runs. A job has one, which is removed with the job, however it ends.
    A module that runs by itself uses `otherwise`.
    """
    path = os.environ.get(ENVIRONMENT)
    return Path(path).expanduser().parent if path else Path(otherwise)


class Progress:
    """Lines for a person, one `say` each. Without a path (a module run by hand) it is silent."""

    def __init__(self, path: str | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = Path(path).expanduser() if path else None
        self._clock = clock
        self._lock = threading.Lock()
        self._last_text = ""
        self._last_time = float("-inf")

    @classmethod
    def from_environment(cls) -> Progress:
        """The file of the job; silent when there is none."""
        return cls(os.environ.get(ENVIRONMENT))

    def say(self, text: str, every: float = 0.0) -> None:
        """Add a line, unless it repeats the last one or comes less than `every` seconds after it."""
        text = " ".join(text.split())
        with self._lock:
            now = self._clock()
            if not self._path or not text or text == self._last_text or now - self._last_time < every:
                return
            self._last_text, self._last_time = text, now
            self._append(self._path, text + "\n")

    @staticmethod
    def _append(path: Path, data: str) -> None:
        try:
            # O_APPEND and one write: lines of several threads never mix.
            # Without O_CREAT: a removed file means "stop", and must not come back.
            descriptor = os.open(path, os.O_WRONLY | os.O_APPEND)
            try:
                os.write(descriptor, data.encode("utf-8", "replace"))
            finally:
                os.close(descriptor)
        except OSError:
            pass  # Progress is a courtesy: a full disk must not fail the work it describes.


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
