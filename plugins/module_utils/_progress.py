# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a long-running module says while it runs. plugins/plugin_utils/_progress.py reads it on the controller.

The file is also a lease. Every poll of the controller touches its access time; a module that sees neither a
poll for LEASE seconds nor the file itself ends, so a controller that was interrupted leaves nothing running.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

ENVIRONMENT = "SPARKFLEET_PROGRESS"
LEASE = 180.0
"""Seconds without a poll after which nobody is listening. A loaded controller polls every 5 to 20 s."""


def scratch(otherwise: str) -> Path:
    """A folder for what is needed only while a module runs. A job has one, which goes with it however it ends; a module
    that is run by itself uses `otherwise`, its own.
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
        if self._path:
            self._append(self._path, "")

    @classmethod
    def from_environment(cls, lease: float = LEASE) -> Progress:
        """The file that the action plugin named, with its lease watched; silent when there is none."""
        progress = cls(os.environ.get(ENVIRONMENT))
        if progress._path:
            threading.Thread(target=progress._watch, args=(progress._path, lease), daemon=True).start()
        return progress

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
            # O_APPEND and one write: a reader never sees half a line of ours between two of another thread.
            # Without O_CREAT after the start: a file that was removed means "stop", not "start again".
            flags = os.O_WRONLY | os.O_APPEND | (0 if data else os.O_CREAT)
            descriptor = os.open(path, flags, 0o600)
            try:
                os.write(descriptor, data.encode("utf-8", "replace"))
            finally:
                os.close(descriptor)
        except OSError:
            pass  # Progress is a courtesy: a full disk must not fail the work it describes.

    def _watch(self, path: Path, lease: float) -> None:
        seen, since = -1, self._clock()
        while True:
            try:
                polled = path.stat().st_atime_ns
            except OSError:
                break
            if polled != seen:
                seen, since = polled, self._clock()
            elif self._clock() - since > lease:
                path.unlink(missing_ok=True)
                break
            time.sleep(min(2.0, lease / 4))
        # async_wrapper gave the module a process group of its own: this takes its children along.
        os.killpg(os.getpgrp(), signal.SIGTERM)
