# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The program that the timer starts: one look, its verdict, and what follows from it.

    python DIRECTORY STATE_DIRECTORY

It needs no Ansible. The line for the gateways goes to the directory that systemd names in RUNTIME_DIRECTORY.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .._common import files, json_text
from .._common.terminal import one_line
from .._serve.watched import BAD, DOWN, STARTING, UNKNOWN
from . import act, evidence, judge, look, memory, verdict
from .act import ActError
from .judge import Judgement
from .look import Host, LookError
from .memory import Memory
from .seen import Look
from .settings import OBSERVE, Places, Settings, SettingsError, api_key, load

AGENT = "agent"
ERROR, WARNING, NOTICE = 3, 4, 5
"""Priorities of syslog, as systemd reads them at the beginning of a line."""


@dataclass(frozen=True)
class Desk:
    """Where the program looks and writes."""

    host: Host
    runtime: Path

    @property
    def places(self) -> Places:
        return Places(self.host.state_dir)


def main(argv: Sequence[str]) -> int:
    if len(argv) != 2:
        sys.stderr.write(f"usage: {argv[0] if argv else 'watchdog'} STATE_DIRECTORY\n")
        return 2
    runtime = os.environ.get("RUNTIME_DIRECTORY", "/run/sparkfleet-watchdog")
    desk = Desk(Host(Path(argv[1])), Path(runtime))
    try:
        handle = os.open(desk.places.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        with contextlib.suppress(BlockingIOError):  # another look is at work
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            run(desk)
    except OSError as error:
        say(ERROR, f"expected to write the verdict, seen: {error}; make room on the disk, or mend it")
        return 1
    return 0


def run(desk: Desk) -> None:
    """:raises OSError: the verdict cannot be written"""
    places = desk.places
    known = memory.undump(_content(places.memory), _content(places.verdict))
    mode = OBSERVE
    try:
        settings = load(places)
        mode = settings.mode
        key = api_key(places)
        ask_gpu = time.monotonic() >= known.ask_gpu_from or look.now(desk.host).boot != known.boot
        seen = look.look(desk.host, key, ask_gpu)
        if seen.record and judge.canary_due(known, seen, settings):
            seen = replace(seen, canary=look.canary(seen.record, key, settings.canary_timeout))
    except (SettingsError, LookError) as error:
        now = look.now(desk.host)
        _write(desk, verdict.failed(str(error), now, known, mode, evidence.kept(places.evidence)), "up")
        return
    follow(desk, settings, known, seen, key)


def follow(desk: Desk, settings: Settings, known: Memory, seen: Look, key: str | None) -> None:
    """Judge, tell, keep evidence, act."""
    judgement = judge.judge(known, seen, settings)
    _tell(desk, judgement, seen, settings)
    todo = judge.action(judgement, seen, settings)
    worst = judgement.worst
    fresh = worst is not None and worst.kind not in known.since
    if worst is not None and (todo or fresh):
        _keep(desk, seen, worst.kind, key)
    after = _act(desk, judgement, seen, todo) if todo else judgement
    _remember(desk, after.memory)
    if todo or fresh:
        _tell(desk, after, seen, settings)


def _act(desk: Desk, judgement: Judgement, seen: Look, todo: str) -> Judgement:
    """What is to be said after the order was given, or was not."""
    ordered = judge.acted(judgement.memory, seen, todo)
    # Remembered first: whatever ends this program, the restart counts.
    _remember(desk, ordered)
    try:
        act.act(desk.host, seen, todo)
    except ActError as error:
        say(WARNING, f"did not {todo}: {error}")
        if not error.ordered:
            return replace(judgement, reason=f"{judgement.reason}; did not {todo}: {error}")
    worst = judgement.worst
    why = f"{worst.kind}: {worst.seen}" if worst else judgement.reason
    if todo == judge.STOP:
        name = seen.record.container if seen.record else ""
        reason = f"stopped for good after too many restarts; {why}"
        say(ERROR, f"{reason}; read the evidence in {desk.places.evidence}, then systemctl start {name}")
        return replace(judgement, verdict=DOWN, reason=reason, memory=ordered)
    say(WARNING, f"restarted; {why}; the evidence is in {desk.places.evidence}")
    return replace(judgement, verdict=STARTING, reason=f"restarted; {why}", memory=ordered)


def _keep(desk: Desk, seen: Look, kind: str, key: str | None) -> None:
    hidden = [key or "", *(seen.container.secrets if seen.container else ())]
    try:
        evidence.keep(desk.host, desk.places.evidence, seen, kind, hidden)
    except OSError as error:
        say(WARNING, f"expected to keep evidence in {desk.places.evidence}, seen: {error}; make room there")


def _tell(desk: Desk, judgement: Judgement, seen: Look, settings: Settings) -> None:
    kept = evidence.kept(desk.places.evidence)
    _write(desk, verdict.document(judgement, seen, settings, kept), verdict.agent(judgement, settings))


def _write(desk: Desk, document: dict[str, Any], agent: str) -> None:
    places = desk.places
    before = _content(places.verdict)
    files.write(desk.runtime / AGENT, f"{agent}\n".encode())
    files.write(places.verdict, (json.dumps(document, indent=2) + "\n").encode(), 0o600)
    if _gist(before) != (document["verdict"], [each["kind"] for each in document["findings"]]):
        bad = document["verdict"] in (BAD, DOWN, UNKNOWN)
        say(WARNING if bad else NOTICE, f"{document['verdict']}: {document['reason']}")


def _gist(text: bytes | None) -> tuple[Any, Any]:
    """Verdict and kinds of findings in a file; nothing of one that cannot be used."""
    try:
        found = json_text.read(text or b"", "the verdict", limit=memory.LIMIT)
        return found["verdict"], [each["kind"] for each in found["findings"]]
    except (ValueError, KeyError, TypeError):
        return None, None


def _remember(desk: Desk, known: Memory) -> None:
    files.write(desk.places.memory, json.dumps(memory.dump(known)).encode(), 0o600)


def _content(path: Path) -> bytes | None:
    try:
        with path.open("rb") as file:
            return file.read(memory.LIMIT + 1)
    except OSError:
        return None


def say(priority: int, text: str) -> None:
    """A line of the journal. What others said in it cannot begin another one."""
    sys.stdout.write(f"<{priority}>{one_line(text)}\n")
    sys.stdout.flush()
