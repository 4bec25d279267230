# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The keeper: a process beside the run that gives signs of life for it, and tidies up once it has ended.

It is forked from the worker of a task, with the task's connection, and outlives it. It must not be noticed: it holds none of
the run's pipes open, says nothing, and ends within seconds after the run.
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
from ansible_collections.sparkfleet.vllm.plugins.plugin_utils._controller import lives

ANSWER = 20.0
"""Seconds that one command may take; then the connection counts as lost."""
RETRY = 5.0
"""Seconds to the next try after one that failed: a host that was restarted is back for a while, its lease is not."""
FAREWELL = 3
"""How often the last command is tried."""

DONE, LOST, FAILED = 0, 1, 2
"""What an errand ends with: done; there is nothing left to keep; try again."""

Errand = Callable[[], int]


class Watch:
    """Waits for the end of a process that is not ours. Made after :func:`detach`, which takes every open file away."""

    def __init__(self, pid: int, start: str) -> None:
        self._pid, self._start = pid, start
        self._handle: int | None = None
        # Not on every system; without it the process is looked at every now and then.
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

    :param reset: gets rid of a connection on which an errand failed
    """
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        return
    try:
        # Not the run's session, nor its process group, which are ended with it; nor a child that it would wait for.
        os.setsid()
        if os.fork() == 0:
            detach()
            keep(Watch(pid, start), renew, release, reset, every)
    finally:
        os._exit(0)


def detach() -> None:
    """Let go of all that the run has open, and of its signals.

    Every file becomes the null device instead of being closed: whoever still refers to it must not hit another one.
    """
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        # What ends the run reaches the keeper too, and must not keep it from tidying up. A handler, unlike SIG_IGN, is not
        # passed on to the commands it starts.
        signal.signal(number, lambda *_: None)
    null = os.open(os.devnull, os.O_RDWR)
    for name in os.listdir("/dev/fd"):  # noqa: PTH208  one list before any of them changes
        with contextlib.suppress(OSError):
            os.dup2(null, int(name))
    sys.stdin = sys.stdout = sys.stderr = open(os.devnull, "r+")  # noqa: PTH123, SIM115  for as long as it lives
    # Otherwise what it has to say goes to the run, under a lock that the run would wait for if the keeper were killed.
    if multiprocessing.parent_process() is not None:
        Display().set_queue(None)
    # Collecting garbage would copy pages that it shares with the run.
    gc.disable()


def keep(watch: Watch, renew: Errand, release: Errand, reset: Callable[[], None], every: float) -> None:
    """Renew until the run has ended, then release; or until there is nothing left to keep."""
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
    """What an errand ends with, in a process of its own: a connection may hang, and leaves nothing behind here."""
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
    # By both, since either may come first and the group must be there to be ended.
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
