# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A module that goes on in the background of its host. plugins/plugin_utils/background.py follows it from the controller.

A module of this kind calls :func:`in_background` before anything else. If its action asks for a job, there are three processes:

    the front    the one that Ansible has started: waits a while, answers, and ends, so the connection is free
    the guard    ends the work at its time limit, when nobody polls any more, when its folder is gone, and when the host
                 no longer belongs to its run
    the work     the module itself, with nothing of the connection open

The arguments stay in memory: the work is a copy of the process that has read them. A front also brings the answer of a job that
exists already, so a repeated start starts nothing.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import shutil
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .._common import json_text, progress
from . import lock_file

ENVIRONMENT = "SPARKFLEET_JOB"
"""What the action asks for: a JSON object of folder, limit (seconds) and start (false: only the answer)."""
ANSWER = "sparkfleet_job"
"""Key of the front's own part of the result: state (running, ended, lost), lines."""
WATCH = 10.0
"""Seconds for which a front waits for the end of the work."""
LEASE = 180.0
"""Seconds without a poll after which nobody is listening. A loaded controller polls every 5 to 20 s."""
LOOK = 2.0
"""Seconds between two looks of the guard. It notices an interruption after this time at most."""
KILL_AFTER = 10.0
"""Seconds between SIGTERM and SIGKILL."""
TIMED_OUT = "Timeout exceeded"
"""The message of a result whose work was ended at its time limit. Ansible's async_wrapper has the same."""
NO_RESULT = (
    "expected the result of a background job in {}, seen none; the host was restarted, or something removed it or killed "
    "its guard: run the task again"
)
PR_SET_PDEATHSIG = 1
"""From linux/prctl.h."""


@dataclass(frozen=True)
class Job:
    """A job keeps everything on its host in `folder`, which is the user's alone (0700):

    out, err    what the module printed
    said        its lines for a person; its access time is that of the last poll
    ended       how it ended: a JSON object with code, and with msg when it was made to end
    lock        held while it runs, so that others can wait for its end; the kernel releases it whatever happens
    """

    folder: Path
    limit: float

    @property
    def said(self) -> Path:
        return self.folder / "said"

    def make(self) -> int | None:
        """A handle that holds the lock of a new job; None when the job is there already.

        :raises OSError: the folder cannot be made
        """
        self.folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            self.folder.mkdir(mode=0o700)
        except FileExistsError:
            return None
        self.said.touch(0o600)
        # Hold the lock before others can see it: to them, a lock that nobody holds means that the work has ended.
        handle = os.open(self.folder / "lock.new", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(handle, fcntl.LOCK_EX)
        (self.folder / "lock.new").rename(self.folder / "lock")
        return handle

    def over(self, seconds: float) -> bool:
        """Whether the work has ended. Waits up to `seconds` for that."""
        deadline, wait = time.monotonic() + seconds, 0.005
        while True:
            with (
                contextlib.suppress(BlockingIOError, FileNotFoundError),
                (self.folder / "lock").open() as file,
            ):
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                return True
            if not self.folder.exists():
                return True
            if time.monotonic() > deadline:
                return False
            time.sleep(wait)
            wait = min(wait * 1.5, 0.1)

    def lines(self) -> list[str]:
        try:
            return self.said.read_text(errors="replace").split("\n")[:-1]
        except OSError:
            return []

    def printed(self, name: str) -> bytes:
        try:
            return (self.folder / name).read_bytes()
        except OSError:
            return b""

    def end(self) -> dict[str, Any] | None:
        """How the work ended. None: nobody could write that down."""
        try:
            found = json_text.read_file(self.folder / "ended")
        except (OSError, ValueError):
            return None
        return found if isinstance(found, dict) else None


def in_background() -> None:
    """Return in the process that is to work: this one, unless the module's action asked for a job."""
    asked = os.environ.pop(ENVIRONMENT, "")
    if not asked:
        return
    order = json_text.read(asked, ENVIRONMENT)
    job = Job(Path(order["folder"]).expanduser(), float(order["limit"]))
    began = False
    if order["start"]:
        try:
            handle = job.make()
        except OSError as error:
            text = f"expected room for a background job in {job.folder.parent}, seen {error}; see that root can write there"
            _say({"failed": True, "msg": text, ANSWER: {"state": "ended", "lines": []}})
            raise SystemExit(1) from error
        if handle is not None:
            sys.stdout.flush()
            sys.stderr.flush()
            if os.fork() == 0:
                _guard(job, handle)
                return
            os.close(handle)
            began = True
    code = _answer(job)
    if began:
        # The files that Ansible unpacked belong to the work from now on.
        os._exit(code)
    raise SystemExit(code)


# -- the front


def _answer(job: Job) -> int:
    """Print the job's state, and at the end its result. Returns the exit code that goes with it."""
    with contextlib.suppress(OSError):
        os.utime(job.said, (time.time(), job.said.stat().st_mtime))
    if not job.over(WATCH):
        _say({"changed": False, ANSWER: {"state": "running", "lines": job.lines()}})
        return 0
    end, own = job.end(), {ANSWER: {"state": "ended", "lines": job.lines()}}
    out, err = job.printed("out"), job.printed("err")
    shutil.rmtree(job.folder, ignore_errors=True)
    if end is None or end["msg"]:
        text = end["msg"] if end else NO_RESULT.format(job.folder.parent)
        _say({"failed": True, "msg": text, **own})
        return 1
    _write(2, err)
    result = _result(out.decode(errors="surrogateescape"))
    if result is None:
        _write(1, out)
    else:
        _say({**result, **own})
    return int(end["code"])


def _result(printed: str) -> dict[str, Any] | None:
    """The object that a module printed on its own line; None when there is none (it was killed, or is damaged)."""
    for line in reversed(printed.split("\n")):
        if line.startswith("{"):
            with contextlib.suppress(ValueError):
                found = json.loads(line)
                return found if isinstance(found, dict) else None
    return None


def _say(result: dict[str, Any]) -> None:
    _write(1, b"\n" + json.dumps(result).encode() + b"\n")


def _write(number: int, data: bytes) -> None:
    while data:
        data = data[os.write(number, data) :]


# -- the guard, and what becomes the work


def _guard(job: Job, handle: int) -> None:
    """Let go of the connection, start the work and watch it to its end. Returns only in the work."""
    os.setsid()
    for number, name, flags in (
        (0, os.devnull, os.O_RDONLY),
        (1, "out", os.O_WRONLY),
        (2, "err", os.O_WRONLY),
    ):
        opened = os.open(job.folder / name, flags | os.O_CREAT, 0o600)
        os.dup2(opened, number)
        os.close(opened)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    guard = os.getpid()
    work = os.fork()
    if work == 0:
        os.close(handle)
        os.setpgid(0, 0)
        # If the guard is killed, the work must end with it: nobody else would limit it.
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != guard:
            os._exit(1)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        os.environ[progress.ENVIRONMENT] = str(job.said)
        return
    # Both processes do this: either may come first, and the group must exist before it can be ended.
    with contextlib.suppress(OSError):
        os.setpgid(work, work)
    code, why = _watch(job, work)
    if job.said.exists():
        with contextlib.suppress(OSError):
            temporary = job.folder / "ended.new"
            temporary.write_text(json.dumps({"code": code, "msg": why}))
            temporary.rename(job.folder / "ended")
    os.close(handle)
    # Keep the result until somebody fetches it, or until nobody asks for it any more.
    _follow(job)
    shutil.rmtree(job.folder, ignore_errors=True)
    # Not by os._exit: the way out removes what Ansible unpacked for a module that was killed.
    raise SystemExit(0)


def _watch(job: Job, work: int) -> tuple[int, str]:
    """Wait for the end of the work, and end it when it is due. Returns its exit code, and why it was ended."""
    deadline = time.monotonic() + job.limit
    lease, tenure = Lease(job.said), lock_file.Tenure()
    why, killed = "", 0.0
    while True:
        wait = max(0.0, min(LOOK, (killed or deadline) - time.monotonic()))
        signal.sigtimedwait({signal.SIGCHLD}, wait)
        done, status = os.waitpid(work, os.WNOHANG)
        if done:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code, why
        now = time.monotonic()
        if killed:
            if now >= killed:
                _end(work, signal.SIGKILL)
                killed = now + KILL_AFTER
            continue
        over, lost = lease.over(), tenure.lost()
        if now >= deadline or over or lost:
            why, killed = lost or TIMED_OUT, now + KILL_AFTER
            _end(work, signal.SIGTERM)
        elif lease.heard:
            tenure.renew(lease.heard)


def _end(work: int, number: int) -> None:
    """Signal the work and all that it started: the work has its own process group."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(work, number)


def _follow(job: Job) -> None:
    lease = Lease(job.said)
    while not lease.over():
        time.sleep(LOOK)


class Lease:
    """The lease of those who poll. It is over after LEASE seconds without a poll, and at once when the file is gone."""

    def __init__(self, said: Path) -> None:
        self._said = said
        self._seen, self._since = -1, time.monotonic()
        self.heard = 0.0
        """Time of a poll since the last look, in seconds since 1970; 0 if there was none."""

    def over(self) -> bool:
        try:
            polled = self._said.stat().st_atime_ns
        except OSError:
            return True
        self.heard = 0.0
        if polled != self._seen:
            self._seen, self._since, self.heard = polled, time.monotonic(), polled / 1e9
        elif time.monotonic() - self._since > LEASE:
            with contextlib.suppress(OSError):
                self._said.unlink()
            return True
        return False
