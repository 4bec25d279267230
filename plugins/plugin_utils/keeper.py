# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The keeper: a process beside the run that gives signs of life for it, and tidies up once the run has ended.

It is forked from the worker of a task, with the task's connection, and outlives it. Nobody must notice it: it holds none of
the run's pipes open, prints nothing, and ends within seconds after the run.
"""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import os
import select
import signal
import sys
import time
from collections.abc import Callable

from ansible.utils.display import Display

from .this_run import lives

ANSWER = 20.0
"""Seconds that one command may take; then the connection counts as lost."""
RETRY = 5.0
"""Seconds until the next try after a failed one. A host that was restarted is back after a while, but its lease does not wait."""
FAREWELL = 3
"""How often the last command is tried."""

DONE, LOST, FAILED = 0, 1, 2
"""Results of an errand: done; nothing left to keep; try again."""

Errand = Callable[[], int]


class Watch:
    """Waits for the end of a process that is not a child. Make it after :func:`detach`, which takes every open file away."""

    def __init__(self, pid: int, start: str) -> None:
        self._pid, self._start = pid, start
        self._handle: int | None = None
        # Not every system has this. Without it, the process is checked every now and then.
        with contextlib.suppress(AttributeError, OSError):
            self._handle = os.pidfd_open(pid)

    def over(self, seconds: float) -> bool:
        """True as soon as the process has ended, False after `seconds`."""
        if lives(self._pid, self._start) is False:
            return True
        if self._handle is not None:
            poll = select.poll()
            poll.register(self._handle, select.POLLIN)
            return bool(poll.poll(seconds * 1000))
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            time.sleep(min(0.5, seconds))
            if lives(self._pid, self._start) is False:
                return True
        return False


def hold(
    pid: int, start: str, renew: Errand, release: Errand, reset: Callable[[], None], every: float
) -> None:
    """Leave a keeper behind: `renew` every so many seconds while the process lives, and `release` after it.

    :param reset: drops the connection on which an errand failed
    """
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        return
    try:
        # Leave the run's session and process group, which end with it. Nor is the keeper a child that the run would wait for.
        os.setsid()
        if os.fork() == 0:
            detach()
            keep(Watch(pid, start), renew, release, reset, every)
    finally:
        os._exit(0)


def detach() -> None:
    """Let go of everything that the run has open, and of its signals.

    Every file becomes the null device instead of being closed: code that still refers to it must not hit another file.
    """
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        # A signal that ends the run reaches the keeper too, and must not stop it from tidying up. Unlike SIG_IGN, a handler does
        # not pass to the commands that the keeper starts.
        signal.signal(number, lambda *_: None)
    null = os.open(os.devnull, os.O_RDWR)
    for name in os.listdir("/dev/fd"):  # noqa: PTH208  one list before any of them changes
        with contextlib.suppress(OSError):
            os.dup2(null, int(name))
    sys.stdin = sys.stdout = sys.stderr = open(os.devnull, "r+")  # noqa: PTH123, SIM115  for as long as it lives
    # Otherwise the keeper's messages go to the run, under a lock that the run would wait for if the keeper were killed.
    if multiprocessing.parent_process() is not None:
        Display().set_queue(None)
    # Garbage collection would copy pages that the keeper shares with the run.
    gc.disable()


def keep(watch: Watch, renew: Errand, release: Errand, reset: Callable[[], None], every: float) -> None:
    """Renew until the run has ended, then release. Stop earlier if there is nothing left to keep."""
    wait, answer = every, DONE
    while not watch.over(wait):
        answer = _attempt(renew, reset if answer == FAILED else None, watch)
        if answer == LOST:
            return
        wait = every if answer == DONE else min(every, RETRY)
    for _again in range(FAREWELL):
        answer = _attempt(release, reset if answer == FAILED else None, None)
        if answer != FAILED:
            return


def _attempt(errand: Errand, reset: Callable[[], None] | None, watch: Watch | None) -> int:
    """Run an errand in a child process and give its result: a connection may hang, and must leave nothing behind here."""
    child = os.fork()
    if child == 0:
        try:
            os.setpgid(0, 0)
            if reset:
                with contextlib.suppress(Exception):
                    reset()
            os._exit(errand())
        finally:
            os._exit(FAILED)
    # Both processes do this: either may come first, and the group must exist before it can be ended.
    with contextlib.suppress(OSError):
        os.setpgid(child, child)
    deadline = time.monotonic() + ANSWER
    while time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status) if os.WIFEXITED(status) else FAILED
        if watch is None:
            time.sleep(0.02)
        elif watch.over(0.1):
            break
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return FAILED
