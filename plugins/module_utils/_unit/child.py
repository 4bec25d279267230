# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The server as a process: started in a group of its own, ended with all that it left, and reaped, as process 1 of a container must.

vLLM's engine and workers outlive the process that started them, with all their GPU memory. So what descends from this process counts,
not what the server knows of.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

_SET_CHILD_SUBREAPER = 36
"""linux/prctl.h"""
_PPID = 1
"""In /proc/<pid>/stat, counted from the state that follows the name."""


def adopt_orphans() -> None:
    """Also where this is not process 1: what descends from it stays below it."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


class Child:
    def __init__(self, argv: Sequence[str]) -> None:
        self._argv = list(argv)
        self._process: subprocess.Popen[bytes] | None = None
        self._status: str | None = ""
        """How it ended; none while it runs."""
        self._asked_at: float | None = None

    def start(self) -> None:
        """:raises OSError: there is no such program, or no room for it"""
        self._asked_at = None
        self._process = subprocess.Popen(self._argv, start_new_session=True)
        self._status = None

    def reap(self) -> str | None:
        """Take leave of all that have ended. How the server ended, once, in words."""
        said = None
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return said
            if not pid:
                return said
            if self._process and self._status is None and pid == self._process.pid:
                self._process.returncode = status
                self._status = said = _words(status)

    def end(self, now: float, grace: float) -> bool:
        """Bring it nearer to its end; call it again and again. Whether nothing is left.

        The server alone is asked by TERM: it lets answers end, and asks its workers. Once it is gone, or the time is over, all is killed.
        """
        left = descendants(os.getpid())
        if not left:
            return True
        if self._asked_at is None:
            self._asked_at = now
            if self._process and self._status is None:
                _signal(self._process.pid, signal.SIGTERM)
        if self._status is not None or now - self._asked_at > grace:
            for pid in left:
                _signal(pid, signal.SIGKILL)
        return False


def _words(status: int) -> str:
    if os.WIFSIGNALED(status):
        return f"was killed by signal {os.WTERMSIG(status)}"
    return f"ended with status {os.WEXITSTATUS(status)}"


def _signal(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


def descendants(ancestor: int) -> list[int]:
    """Processes below one, zombies included: those are reaped, and then gone."""
    parents = {int(each.name): _parent(each) for each in Path("/proc").iterdir() if each.name.isdecimal()}
    found, pending = [], [ancestor]
    while pending:
        above = pending.pop()
        below = [pid for pid, parent in parents.items() if parent == above]
        found += below
        pending += below
    return found


def _parent(process: Path) -> int:
    try:
        # The name is in brackets, and may hold some itself.
        return int((process / "stat").read_bytes().rpartition(b")")[2].split()[_PPID])
    except (OSError, IndexError, ValueError):
        return -1
