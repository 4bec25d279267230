# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Entry point of the container of a member: runs the server only while all other members run theirs, in the same generation.

docs/unit-supervisor.md has the why and the protocol. It needs the standard library of Python 3.8 and Linux, nothing else.

It ends with 0 when somebody asked it to stop, with 64 where an option is wrong, with 78 where the key cannot be read. A unit that is down
stays, so that nothing starts it again and again.
"""

from __future__ import annotations

import argparse
import contextlib
import ipaddress
import json
import os
import re
import signal
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import FrameType

from .child import Child, adopt_orphans
from .link import HeadLinks, Heard, Links, Lost, Refused, WorkerLinks
from .machine import Head, Member, Rules, Worker
from .wire import Identity, read_key
from .words import DOWN, ENDING, LARGEST, FromHead, FromWorker, WordError, encoded, read_head, read_worker

VERSION = 1
USAGE, CONFIG = 64, 78
"""Of sysexits.h."""
_LONGEST_STEP = 2.0
"""Seconds between two looks. What is more was a pause of this process, which must not take the others for silent."""
_HEARTBEAT = 1.0
"""Seconds between two lines, and two times that the status is written."""
_QUICK = 0.1
"""Seconds between two looks at a server that ends."""
_LOUD = 600.0
"""Seconds between two times that a unit says that it is down."""
_QUIET = 30.0
"""Seconds before the same refusal is told again."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")


class OwnTime:
    """Seconds in which this process was at work. It stands still with it, and no clock jump moves it."""

    def __init__(self, longest_step: float) -> None:
        self._longest = longest_step
        self._last, self._sum = time.monotonic(), 0.0

    def now(self) -> float:
        current = time.monotonic()
        self._sum += min(current - self._last, self._longest)
        self._last = current
        return self._sum


class StatusFile:
    """What the host may know, whole or not there."""

    def __init__(self, path: Path, unit: str, rank: int, nodes: int) -> None:
        self._path = path
        self._same = {"version": VERSION, "unit": unit, "rank": rank, "nodes": nodes}
        self.failed = ""

    def write(self, member: Member, restarts: int, since: float, members: Mapping[str, object]) -> None:
        found = {
            **self._same,
            "generation": member.generation,
            "phase": member.phase,
            "since": round(since, 3),
            "at": round(time.time(), 3),
            "restarts": restarts,
            "why": member.why,
            "members": members,
        }
        draft = self._path.with_name(f".{self._path.name}.draft")
        try:
            handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
            with os.fdopen(handle, "wb") as file:
                file.write(json.dumps(found).encode())
            draft.replace(self._path)
            self.failed = ""
        except OSError as error:
            self.failed = f"cannot write {self._path}: {error.strerror}"


class Supervisor:
    """Carries out what the machine says."""

    def __init__(self, options: argparse.Namespace, key: bytes) -> None:
        self._own = OwnTime(min(_LONGEST_STEP, options.silence / 4))
        now = self._own.now()
        rules = Rules(
            options.nodes, options.restarts, options.start_within, options.pause, options.stop_within
        )
        identity = Identity(key, options.unit, options.nodes)
        where = (options.head, options.port)
        self.member: Head | Worker
        self.links: Links
        if options.rank == 0:
            self.member = Head(rules, now)
            self.links = HeadLinks(identity, options.silence, *where)
        else:
            self.member = Worker(options.rank, rules, now)
            self.links = WorkerLinks(identity, options.silence, *where, options.rank)
        self.child = Child(options.command)
        self._prefix = f"unit {options.unit}, rank {options.rank}"
        self._file = StatusFile(options.status, options.unit, options.rank, options.nodes)
        self._heartbeat = min(_HEARTBEAT, options.silence / 5)
        self._said: object = None
        self._said_at = self._loud_at = now
        self._since = time.time()
        self._asked = False
        self._told: dict[str, float] = {}

    def run(self) -> int:
        self._catch_signals()
        adopt_orphans()
        while True:
            now = self._own.now()
            self._do(now)
            self._tell(now)
            if self.member.finished:
                self.links.close()
                self._log("ends, as it was asked to")
                return 0
            timeout = _QUICK if self.member.phase == ENDING else self._heartbeat / 2
            for event in self.links.poll(self._own.now(), timeout):
                self._take(event, self._own.now())

    def _do(self, now: float) -> None:
        member = self.member
        if self._asked:
            member.stop(now)
        ended = self.child.reap()
        if ended:
            member.end(f"its server {ended}", now)
        member.tick(now)
        if member.starts:
            self._log(f"generation {member.generation}: starts the server")
            try:
                self.child.start()
            except OSError as error:
                member.end(f"cannot start {error.filename}: {error.strerror}", now)
            else:
                member.started(now)
        if member.phase == ENDING and self.child.end(now, member.grace):
            member.gone(now)
        elif member.phase == ENDING and now - member.since > member.grace + _QUIET:
            self._rarely("processes of the server do not end, though they were killed", now)

    def _take(self, event: Heard | Lost | Refused, now: float) -> None:
        member = self.member
        try:
            if isinstance(event, Refused):
                self._rarely(f"{event.address} {event.why}", now)
            elif isinstance(event, Lost):
                self._log(f"rank {event.rank} {event.why}")
                member.lost(event.rank, event.why, now)
            elif isinstance(member, Head):
                member.heard(event.rank, read_worker(event.word), now)
            else:
                member.heard(event.rank, read_head(event.word), now)
        except WordError as error:
            self._log(f"rank {getattr(event, 'rank', '')} speaks another version: {error}")

    def _tell(self, now: float) -> None:
        """To whoever reads the log, to the others, to the host."""
        member = self.member
        for phase, why in member.changes:
            self._since = time.time()
            self._log(f"{phase}: {why}" if why else phase)
        if member.phase == DOWN and (member.changes or now - self._loud_at > _LOUD):
            self._loud_at = now
            self._log(
                f"DOWN. Expected at most {member.rules.restarts} failures an hour, seen {member.restarts(now)}, the last: "
                f"{member.why}. Do: mend that, then restart the container of the head"
            )
        member.changes.clear()
        word = member.says(now)
        news = _without_ages(word)
        if news != self._said or now - self._said_at >= self._heartbeat:
            self._said, self._said_at = news, now
            self.links.say(encoded(word))
            told = {str(rank): asdict(each) for rank, each in member.members(now).items()}
            self._file.write(member, member.restarts(now), self._since, told)
            if self._file.failed:
                self._rarely(self._file.failed, now)

    def _rarely(self, text: str, now: float) -> None:
        self._told = {said: at for said, at in self._told.items() if now - at < _QUIET}
        if text not in self._told and len(self._told) < LARGEST:
            self._told[text] = now
            self._log(text)

    def _log(self, text: str) -> None:
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.write(f"{time.strftime('%H:%M:%S')} {self._prefix}: {text}\n")
            sys.stderr.flush()

    def _catch_signals(self) -> None:
        """A signal ends the wait of the loop. Nothing else happens in a handler, which may run in the middle of anything."""
        ours, theirs = socket.socketpair()
        for end in (ours, theirs):
            end.setblocking(False)
        signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
        self._wakes = (ours, theirs)
        self.links.wake_by(ours)

        def stop(number: int, _frame: FrameType | None) -> None:
            self._asked = True

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, stop)
        signal.signal(signal.SIGCHLD, lambda *_: None)


def _without_ages(word: FromHead | FromWorker) -> object:
    if isinstance(word, FromWorker):
        return word
    members = {rank: (told.phase, told.generation) for rank, told in word.members.items()}
    return (word.run, word.phase, word.generation, word.restarts, word.why, members)


def options_of(argv: Sequence[str]) -> argparse.Namespace:
    """:raises SystemExit: an option is missing or wrong"""
    parser = argparse.ArgumentParser(prog="unit", allow_abbrev=False)
    parser.add_argument("--unit", required=True)
    parser.add_argument("--rank", type=int, required=True)
    parser.add_argument("--nodes", type=int, required=True)
    parser.add_argument("--head", required=True, help="IPv4 address on which the head listens")
    parser.add_argument("--port", type=int, default=8622)
    parser.add_argument("--key", type=Path, required=True, help="file")
    parser.add_argument("--status", type=Path, required=True, help="file that is written")
    parser.add_argument("--silence", type=float, default=15, help="seconds")
    parser.add_argument("--restarts", type=int, default=4, help="within an hour")
    parser.add_argument("--start-within", type=float, default=3600, help="seconds until all members run")
    parser.add_argument("--pause", type=float, default=5, help="seconds before a restart")
    parser.add_argument("--stop-within", type=float, default=20, help="seconds for a stop")
    parser.add_argument("command", nargs="+")
    found = parser.parse_args(list(argv))
    wrong = [
        said
        for good, said in (
            (_NAME.fullmatch(found.unit), "--unit: letters, digits, and _ . - after the first"),
            (2 <= found.nodes <= LARGEST, f"--nodes: 2 to {LARGEST}"),
            (0 <= found.rank < found.nodes, "--rank: 0 to nodes - 1"),
            (0 < found.port < 65536, "--port: 1 to 65535"),
            (_is_ipv4(found.head), "--head: an IPv4 address"),
            (found.restarts >= 0, "--restarts: 0 or more"),
            (min(found.silence, found.start_within) > 0, "--silence, --start-within: more than 0"),
            (min(found.pause, found.stop_within) >= 0, "--pause, --stop-within: 0 or more"),
        )
        if not good
    ]
    if wrong:
        parser.error(f"expected {'; '.join(wrong)}")
    return found


def _is_ipv4(text: str) -> bool:
    with contextlib.suppress(ValueError):
        return bool(ipaddress.IPv4Address(text))
    return False


def main(argv: Sequence[str]) -> int:
    try:
        options = options_of(argv[1:])
    except SystemExit as end:
        return 0 if end.code == 0 else USAGE
    try:
        key = read_key(options.key.read_text(encoding="ascii"))
    except (OSError, ValueError) as error:
        said = error.strerror if isinstance(error, OSError) else error
        sys.stderr.write(f"expected a key in {options.key}, seen: {said}; do: run site.yml again\n")
        return CONFIG
    return Supervisor(options, key).run()
