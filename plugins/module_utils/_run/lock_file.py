# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lock of a run on its host: taken, given back, and held by everything that works under it.

    <state>/run.json   names the run that holds the lock; its time of last change is the last sign of life
            run.lock   flocked for milliseconds by whoever reads or changes run.json
            run.work   flocked, shared, by each module of the run for as long as its process lives

Two runs never work at the same time, however slow or cut off one of them is:

1. A module begins only if run.json names its run, and holds run.work from the same moment on (both under run.lock).
2. A run that takes over writes run.json first, so no module of the other run begins any more.
3. It has the lock only when nobody holds run.work: then everything that had begun has ended. The kernel decides that, not a clock.

A module in the background (module_utils/_run/detached.py) is ended within seconds when run.json no longer names its run.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._common import files, json_text
from . import run_lock

if TYPE_CHECKING:  # the watchdog has the lock, too, and no Ansible
    from ansible.module_utils.basic import AnsibleModule

ENVIRONMENT = "SPARKFLEET_RUN"
"""The lock that a module works under: a JSON object of run (its id) and directory. Unset: under none."""
PATIENCE = 10.0
"""Seconds to wait for others at the lock. A sign of life takes milliseconds."""
ENDS_WITHIN = 20.0
"""Seconds in which the work of a former run must end: a guard looks every 2 s, and kills after 10 more."""


@dataclass(frozen=True)
class LockFile:
    directory: Path

    @property
    def path(self) -> Path:
        return self.directory / run_lock.FILE

    @contextlib.contextmanager
    def guarded(self) -> Iterator[None]:
        """Nobody else reads or changes the lock while the block runs.

        :raises OSError: the file cannot be opened, or stays held (BlockingIOError)
        """
        handle = _open(self.directory / run_lock.GUARD)
        try:
            if not _flock(handle, fcntl.LOCK_EX, PATIENCE):
                raise BlockingIOError(f"{self.directory / run_lock.GUARD} is held by somebody else")
            yield
        finally:
            os.close(handle)

    def look(self) -> run_lock.Seen:
        """The lock of the host.

        :raises OSError: it is there and cannot be read
        """
        try:
            with self.path.open("rb") as file:
                age = time.time() - os.fstat(file.fileno()).st_mtime
                content = file.read()
        except FileNotFoundError:
            return run_lock.Seen()
        try:
            return run_lock.Seen(run_lock.parse(content.decode()), age=age)
        except ValueError as error:
            return run_lock.Seen(damage=str(error), age=age)

    def take(self, run: dict[str, Any], lease: int, dead: str) -> tuple[run_lock.Seen, str]:
        """Take the lock if that is allowed. Returns the lock that was there, and the verdict about it.

        :raises OSError: the directory cannot be made, read or written
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        with self.guarded():
            seen = self.look()
            verdict = run_lock.decide(seen, run, dead)
            if verdict == run_lock.OURS or (verdict == run_lock.HELD and seen.age < 0):
                # Ahead of the clock, which was set back. Now the lease of a dead run can end; a live run signs anyway.
                os.utime(self.path)
            elif verdict != run_lock.HELD:
                since = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
                text = json.dumps(run_lock.record(run, lease, since), indent=2, sort_keys=True) + "\n"
                files.write(self.path, text.encode())
        if verdict in (run_lock.OURS, run_lock.HELD) or self._alone():
            return seen, verdict
        self.release(run)
        return seen, run_lock.BUSY

    def _alone(self) -> bool:
        """Whether all work of a former run has ended. Waits for that."""
        handle = _open(self.directory / run_lock.WORK)
        try:
            return _flock(handle, fcntl.LOCK_EX, ENDS_WITHIN)
        finally:
            os.close(handle)

    def release(self, run: dict[str, Any]) -> None:
        """Remove the lock if it is that of `run`.

        :raises OSError: the directory cannot be read or written
        """
        if not self.directory.is_dir():
            return
        with self.guarded():
            if run_lock.decide(self.look(), run) == run_lock.OURS:
                self.path.unlink()

    def enter(self, run: str, stay: bool = True) -> run_lock.Seen | None:
        """Give a sign of life of the run, and work under its lock until this process ends. If the lock is not that run's, returns
        what is there instead.

        :param stay: False: sign only, and hold nothing

        :raises OSError: the lock cannot be read
        """
        with self.guarded():
            seen = self.look()
            if not run_lock.names(seen, run):
                return seen
            os.utime(self.path)
            if not stay:
                return None
            # Stays open for as long as the process lives. No program that it starts gets it.
            work = _open(self.directory / run_lock.WORK)
            if not _flock(work, fcntl.LOCK_SH, PATIENCE):
                raise BlockingIOError(f"{self.directory / run_lock.WORK} is held by somebody else")
        return None

    @contextlib.contextmanager
    def between_runs(self) -> Iterator[bool]:
        """Work of no run. Gives whether no run holds the host. If so, a run that begins meanwhile waits for the end of the block, as for
        the work of a former run, so the block has to end within :data:`ENDS_WITHIN`.

        :raises OSError: the lock cannot be read
        """
        work = None
        try:
            with self.guarded():
                free = not run_lock.alive(self.look())
                if free:
                    work = _open(self.directory / run_lock.WORK)
                    free = _flock(work, fcntl.LOCK_EX, 0)
            yield free
        finally:
            if work is not None:
                os.close(work)


def look_alive(folder: Path, now: float) -> dict[str, Any] | None:
    """The run that holds the host: holder, playbook and since. None without one, or if its lease ended without a sign of life."""
    path = folder / run_lock.FILE
    try:
        record = run_lock.parse(path.read_text())
        age = now - path.stat().st_mtime
    except (OSError, ValueError):
        return None
    if age > record["lease"]:
        return None
    return {name: record.get(name) for name in ("holder", "playbook", "since")}


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)


def _flock(handle: int, kind: int, patience: float) -> bool:
    deadline = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(handle, kind | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.05)


def hold(module: AnsibleModule) -> None:
    """For a module that changes its host: end it if the host no longer belongs to its run; otherwise give a sign of life.
    Without a lock, and in check mode, do nothing.
    """
    lock, run = _asked()
    if lock is None or module.check_mode:
        return
    try:
        seen = lock.enter(run)
    except OSError as error:
        module.fail_json(
            msg=f"expected the lock of this run in {lock.directory}, seen: {error}; see who removed or holds it, and run again"
        )
    if seen:
        module.fail_json(msg=run_lock.lost(seen), lost=True)


def _asked() -> tuple[LockFile | None, str]:
    asked = os.environ.get(ENVIRONMENT)
    if not asked:
        return None, ""
    order = json_text.read(asked, ENVIRONMENT)
    return LockFile(Path(order["directory"])), str(order["run"])


class Tenure:
    """The hold on the host that a background module's run has."""

    def __init__(self) -> None:
        self._lock, self._run = _asked()

    def lost(self) -> str:
        """The message about the run that has the host now; empty while it is this one's. A lock that cannot be read tells nothing."""
        if self._lock is None:
            return ""
        try:
            seen = self._lock.look()
        except OSError:
            return ""
        return "" if run_lock.names(seen, self._run) else run_lock.lost(seen)

    def renew(self, at: float) -> None:
        """Record a sign of life seen at that time, in seconds since 1970. It comes from the run, not only from its work."""
        if self._lock is None:
            return
        with contextlib.suppress(OSError), self._lock.guarded():
            if run_lock.names(self._lock.look(), self._run) and self._lock.path.stat().st_mtime < at:
                os.utime(self._lock.path, (at, at))
