# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host's peer: a process that outlives the module that starts it.

    <store>/models/.peer/lock          held by the peer while it runs; holds its pid
                         status.json   its progress, written about once a second
                         ballast       removed to make room for the status when the disk is full

A peer can be killed at any moment: what it promoted is whole, and what it received is hashed again.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any

from .._common import files, json_text
from .._common.progress import duration, volume
from .._common.store import StoreError
from .._common.work import Stopped
from .._models import pieces
from .._models.ensure import Options, ensure, look
from .._models.manifest import Manifest
from .._models.snapshot import Report, Snapshot
from . import torrent
from .session import Swarm
from .shares import shares

TERM_WITHIN, KILL_WITHIN = 5.0, 5.0
START_WITHIN = 60.0
EVERY = 1.0
"""Seconds between two writes of the status file."""


BALLAST = 256 * 1024
NEWS = signal.SIGUSR1
"""The signal that a peer sends itself when there is news before that time."""


class PeerError(Exception):
    """A peer cannot be started or ended; the text says what was expected, seen, and what to do."""


# -- which process it is


def home(store: str) -> Path:
    return Path(store) / "models" / ".peer"


def status_path(store: str) -> Path:
    return home(store) / "status.json"


def status(store: str) -> dict[str, Any]:
    """The last status that a peer of this store wrote, {} without one."""
    try:
        found = json_text.read_file(status_path(store))
    except (OSError, json_text.JsonError):
        return {}
    return found if isinstance(found, dict) else {}


def running(store: str) -> int | None:
    """Pid of the peer of this store, if one runs. The lock decides, not the pid: the kernel reuses pids."""
    try:
        with (home(store) / "lock").open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                text = file.read().strip()
                return int(text) if text.isdigit() else None
    except FileNotFoundError:
        pass
    return None


def stop(store: str) -> bool:
    """End the peer of this store. Returns whether there was one.

    :raises PeerError: it does not end
    """
    pid = running(store)
    if pid is None:
        return False
    for number, patience in ((signal.SIGTERM, TERM_WITHIN), (signal.SIGKILL, KILL_WITHIN)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            if running(store) is None:
                return True
            time.sleep(0.05)
    raise PeerError(
        f"{home(store)}: expected process {pid} to end, seen it still there {KILL_WITHIN:.0f} s after SIGKILL; it waits "
        "for a disk: see to that first"
    )


def start(store: str, serve: Callable[[Callable[[], None]], None]) -> int:
    """Run `serve(ready)` in a process of its own and wait until it says that it is ready. Returns its pid.

    Import whatever `serve` needs beforehand: the module's files are gone soon after the module has ended.

    :raises PeerError: with the reason why it did not get ready
    """
    home(store).mkdir(parents=True, exist_ok=True)
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.close(reader)
        try:
            os.setsid()
            if os.fork():
                os._exit(0)
            _detach(writer)
            _serve(store, serve, writer)
        finally:
            os._exit(1)
    os.close(writer)
    os.waitpid(child, 0)
    answer = _read(reader, START_WITHIN)
    pid, _sep, problem = answer.partition(" ")
    if not pid.isdigit():
        raise PeerError(
            f"{home(store)}: expected a peer within {START_WITHIN:.0f} s, seen none; "
            "see whether the host is out of memory, and run again"
        )
    if problem:
        raise PeerError(problem)
    return int(pid)


def _read(reader: int, within: float) -> str:
    os.set_blocking(reader, False)
    deadline = time.monotonic() + within
    answer = b""
    with open(reader, "rb", buffering=0) as pipe:
        while time.monotonic() < deadline:
            part = pipe.read(65536)
            if part == b"":
                break
            if part is None:
                time.sleep(0.02)
            else:
                answer += part
    return answer.decode(errors="replace")


def _detach(keep: int) -> None:
    """Let go of the session that started this process: terminal, pipes, working directory."""
    os.chdir("/")
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in range(3):
        os.dup2(nowhere, descriptor)
    limit = os.sysconf("SC_OPEN_MAX")
    os.closerange(3, keep)
    os.closerange(keep + 1, limit if 0 < limit < 65536 else 65536)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


def _serve(store: str, serve: Callable[[Callable[[], None]], None], writer: int) -> None:
    told = False

    def tell(problem: str) -> None:
        nonlocal told
        if not told:
            told = True
            os.write(writer, f"{os.getpid()} {problem}".encode())
            os.close(writer)

    try:
        with (home(store) / "lock").open("a+") as file:
            if not _take(file):
                tell(
                    f"{home(store)}: expected no other peer of this store, seen one start just now; run again"
                )
                os._exit(1)
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
            (home(store) / "ballast").write_bytes(bytes(BALLAST))
            serve(lambda: tell(""))
    except (StoreError, OSError) as error:
        tell(str(error))
        os._exit(1)
    except BaseException as error:
        tell(f"{type(error).__name__}: {error}")
        os._exit(1)
    os._exit(0)


def _take(file: IO[str]) -> bool:
    """Take the lock for the life of the process. Retries, since a check whether a peer runs holds the lock for a moment."""
    for _again in range(40):
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        time.sleep(0.05)
    return False


def _told_to_end(within: float) -> bool:
    """Wait for SIGTERM. News ends the wait, too."""
    told = signal.sigtimedwait({signal.SIGTERM, NEWS}, within)
    return told is not None and told.si_signo == signal.SIGTERM


# -- what it does


@dataclass
class Peer:
    """Bring what is not whole, give what is, and report progress, until somebody ends it or nobody wants anything more.

    :param timeout: seconds after which it ends in any case
    """

    name: str
    manifests: Sequence[Manifest]
    options: Options
    swarm: Swarm
    timeout: float
    reports: dict[str, Report] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._finished = threading.Event()
        self._ends = False
        self._began = time.monotonic()
        self._seconds = 0.0
        self._phase = ""
        self.options = replace(self.options, say=self._say)

    def _say(self, text: str) -> None:
        self._phase = text

    def serve(self, ready: Callable[[], None]) -> None:
        """:raises StoreError: the swarm cannot begin"""
        # Blocked in every thread and read in this one: a handler could run while this thread holds a lock.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, NEWS})
        self.swarm.start()
        worker = threading.Thread(target=self._work, daemon=True)
        self._write()
        worker.start()
        ready()
        while not _told_to_end(EVERY):
            if time.monotonic() - self._began > self.timeout:
                if not self._finished.is_set():
                    self.problems.append(
                        f"expected the snapshots within {self.timeout:.0f} s, seen a transfer that was not done by then; "
                        "run again, since what was received is kept, or allow more time (timeout)"
                    )
                break
            if self._finished.is_set() and self.swarm.quiet > self.swarm.idle:
                break
            self._write()
        if not self._finished.is_set() and not self.problems:
            self.problems.append(
                "expected the snapshots, seen the peer ended before they were whole; what was received is kept: run again"
            )
        self._ends = True
        # Write first: whoever ends this process waits only some seconds.
        self._write()
        self.swarm.stop()
        self._write()

    def _work(self) -> None:
        for step in (self._seed_if_settled, self._bring):
            for manifest in self.manifests:
                if manifest.commit in self.reports:
                    continue
                try:
                    step(manifest)
                except Stopped:
                    return
                except StoreError as error:
                    if str(error) not in self.problems:
                        self.problems.append(str(error))
                except Exception as error:
                    # Nobody would see a thread's traceback. The status is what people read.
                    self.problems.append(f"{manifest.repository}: {type(error).__name__}: {error}")
        self._seconds = time.monotonic() - self._began
        self.swarm.touch()
        self._finished.set()
        os.kill(os.getpid(), NEWS)

    def _seed_if_settled(self, manifest: Manifest) -> None:
        (report,) = look([manifest], self.options)
        if not report.changed:
            self.reports[manifest.commit] = report
            self.swarm.seed(manifest, self._snapshot(manifest).folder)

    def _bring(self, manifest: Manifest) -> None:
        (report,) = ensure([manifest], self.options, lambda: self.swarm)
        self.reports[manifest.commit] = report
        snapshot = self._snapshot(manifest)
        if self.swarm.described(manifest):
            # Seed a snapshot that turned out whole. One that was just brought is seeded already, since it was placed.
            self.swarm.seed(manifest, snapshot.folder)
            if report.fetched:
                self._remember_pieces(snapshot, report.fetched)

    def _remember_pieces(self, snapshot: Snapshot, fetched: Sequence[str]) -> None:
        """Store the piece hashes. libtorrent checked the bytes against them, and the flat hashes vouch for the bytes."""
        manifest = snapshot.manifest
        described = torrent.decode(manifest, self.swarm.descriptions[manifest.commit])
        hashes = {manifest.files[path].sha256: described[path] for path in fetched}
        pieces.add_to_cache(snapshot.pieces_path, pieces.piece_size(manifest.size), hashes)

    def _snapshot(self, manifest: Manifest) -> Snapshot:
        return Snapshot(self.options.store, manifest, self.options.workers, self.options.say)

    # the status file

    def _write(self) -> None:
        text = json.dumps(self.state(), separators=(",", ":")).encode()
        path = status_path(self.options.store)
        # A full disk must not end a peer that only gives. A peer that receives must be able to report it.
        with contextlib.suppress(OSError):
            try:
                files.write(path, text)
            except OSError:
                (path.parent / "ballast").unlink(missing_ok=True)
                files.write(path, text)

    def state(self) -> dict[str, Any]:
        received, sent, corrupt = self.swarm.traffic()
        problems = [*self.problems, *self.swarm.damaged.values()]
        total = sum(manifest.size for manifest in self.manifests)
        done = sum(
            manifest.size if manifest.commit in self.reports else self.swarm.done(manifest)
            for manifest in self.manifests
        )
        # One failure does not stop the rest: there is no result before everything was tried.
        over = self._finished.is_set() or self._ends
        state = "working" if not over else "failed" if problems else "whole"
        rate = self.swarm.rate
        return {
            "pid": os.getpid(),
            "name": self.name,
            "address": self.swarm.address,
            "port": self.swarm.port,
            "state": state,
            "done": done,
            "total": total,
            "rate": round(rate),
            "from": received,
            "to": sent,
            "corrupt_from": corrupt,
            "snapshots": [
                self.reports[manifest.commit].result()
                for manifest in self.manifests
                if manifest.commit in self.reports
            ],
            "problem": "\n".join(problems),
            "text": line(state, done, total, rate, received, self._phase),
            "seconds": round(self._seconds or time.monotonic() - self._began, 3),
            "updated": time.time(),
        }


def line(state: str, done: int, total: int, rate: float, received: Mapping[str, int], phase: str) -> str:
    """One line for a person: how much of how much, how fast, the time left, and from whom."""
    if state == "working" and not received and phase:
        return phase
    parts = [f"{volume(done)} of {volume(total)}"]
    if state == "working" and rate > 0:
        parts += [f"{rate / 1e6:.1f} MB/s", f"{duration((total - done) / rate)} left"]
    text = ", ".join(parts)
    return f"{text}; from {shares(received)}" if any(received.values()) else text
