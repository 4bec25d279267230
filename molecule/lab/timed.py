#!/usr/bin/env python3
# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compares the time that the parts of a test run take with their budgets.

timed.py run WHOLE COMMAND...    runs it, says what it took, keeps that in .cache/test, and ends as the command does
timed.py part PART COMMAND...    the same for a part: its output goes to .cache/test/PART.log, and is shown when it ends
timed.py table WHOLE PART...     shows what was kept of these parts and of the run that they were parts of, and the lines
                                 that say why a part failed; fails where one failed, did not run, or took more than half
                                 over its budget
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

import yaml

HERE = Path(__file__).parent
KEPT = HERE.parents[1] / ".cache/test"
BUDGETS = HERE / "budgets.yml"
TOLERATED = 1.5
"""Limit as a multiple of a part's budget. A budget is its time on two cores that do nothing else but the other part."""
TICK = 0.5
"""Seconds between two looks at what runs."""
OF_A_TEST = re.compile(r"^(FAILED|E {3})")
"""A line in which pytest says what failed. Tests run playbooks that are to fail, so what these say comes after it."""
WHY = re.compile(r"^\W*(FAILED|ERROR|fatal:)|rror: |^make: \*\*\*")
"""A line that says why a part failed, as Ansible, make and the linters word it."""
COLOURS = re.compile(r"\x1b\[[0-9;]*m")
FRAME = re.compile(r"^\s*│ ?")
"""What molecule puts before each line of what it runs."""
SHOWN = 8
"""Last such lines of each part below the table. In many places only the end of a long output shows."""
WIDEST = 240


@dataclass(frozen=True)
class Part:
    """How a part ended: exit status, seconds, its runs of ansible-playbook, and the seconds in which at least one of them ran."""

    status: int
    seconds: float
    playbooks: int = 0
    in_playbooks: float = 0.0


class Playbooks:
    """Counts the runs of ansible-playbook below a process, from outside: nothing that starts or kills them need know."""

    def __init__(self, top: int, proc: Path = Path("/proc")) -> None:
        self.runs = 0
        self._proc = proc
        self._below = {top}
        self._parents: dict[int, int] = {}
        """Parents as first seen: a process that loses its parent still belongs to it."""
        self._running: dict[int, bytes] = {}

    def look(self) -> bool:
        """Look at what runs now. True if any of them does."""
        present = {int(path.name) for path in self._proc.iterdir() if path.name.isdigit()}
        self._below &= present
        self._parents = {
            pid: self._parents[pid] if pid in self._parents else self._parent(pid) for pid in present
        }
        while found := {pid for pid in present - self._below if self._parents[pid] in self._below}:
            self._below |= found
        were = self._running
        commands = {pid: were.get(pid) or self._command(pid) for pid in self._below}
        self._running = {pid: command for pid, command in commands.items() if command}
        for pid in self._running.keys() - were.keys():
            # A run forks for every task and host. A run that another run starts has other arguments.
            self.runs += self._running.get(self._parents[pid]) != self._running[pid]
        return bool(self._running)

    def _parent(self, pid: int) -> int:
        try:
            # The name of a process is any bytes.
            return int((self._proc / str(pid) / "stat").read_bytes().rpartition(b")")[2].split()[1])
        except OSError:
            return 0

    def _command(self, pid: int) -> bytes:
        """The command line, if it is one of ansible-playbook."""
        try:
            command = (self._proc / str(pid) / "cmdline").read_bytes()
        except OSError:
            return b""
        return (
            command if any(word.endswith(b"/ansible-playbook") for word in command.split(b"\0")[:2]) else b""
        )


def run(part: str, command: Sequence[str], output: BinaryIO | None = None) -> int:
    """Run a command. The output goes on at once, or to a file."""
    began = last = time.monotonic()
    in_playbooks = 0.0
    # The process inherits what make hands on to the makes that it starts.
    process = subprocess.Popen(command, stdout=output, stderr=output and subprocess.STDOUT, close_fds=False)
    playbooks = Playbooks(process.pid)
    while True:
        try:
            status = process.wait(TICK)
            break
        except subprocess.TimeoutExpired:
            now = time.monotonic()
            in_playbooks += playbooks.look() * (now - last)
            last = now
        except KeyboardInterrupt:
            pass  # the command was interrupted too, and cleans up
    status = 128 - status if status < 0 else status
    seen = Part(status, time.monotonic() - began, playbooks.runs, in_playbooks)
    KEPT.mkdir(parents=True, exist_ok=True)
    (KEPT / f"{part}.json").write_text(json.dumps(asdict(seen)))
    print(
        f"--> {part}: {seen.seconds:.0f} s, {seen.playbooks} playbook runs in {seen.in_playbooks:.0f} s of them",
        flush=True,
    )
    return status


def run_part(part: str, command: Sequence[str]) -> int:
    """Run a command. Its output comes in one piece, among others that run, and goes to a file that people can follow."""
    KEPT.mkdir(parents=True, exist_ok=True)
    log = KEPT / f"{part}.log"
    print(f"--> {part}: output in {log}", flush=True)
    try:
        with log.open("wb") as output:
            return run(part, command, output)
    finally:
        with log.open("rb") as output:
            shutil.copyfileobj(output, sys.stdout.buffer)
        sys.stdout.flush()


def why(part: str) -> list[str]:
    log = KEPT / f"{part}.log"
    if not log.exists():
        return []
    text = COLOURS.sub("", log.read_text(errors="replace"))
    lines = [line for framed in text.splitlines() if (line := FRAME.sub("", framed).strip())]
    shown = next(
        (found for kind in (OF_A_TEST, WHY) if (found := [line for line in lines if kind.search(line)])),
        lines,
    )
    return [line[:WIDEST] for line in shown[-SHOWN:]]


def verdict(part: Part | None, budget: int) -> str:
    if part is None:
        return "DID NOT RUN"
    if part.status:
        return f"FAILED with {part.status}"
    if part.seconds > budget * TOLERATED:
        return f"TOO SLOW: expected at most {budget * TOLERATED:.0f} s"
    return "passed"


def table(whole: str, names: Sequence[str]) -> int:
    budgets = yaml.safe_load(BUDGETS.read_text())
    rows: list[tuple[str, ...]] = [
        ("part", "seconds", "budget", "playbook runs", "seconds in them", "verdict")
    ]
    for name in [*names, whole]:
        kept = KEPT / f"{name}.json"
        part = Part(**json.loads(kept.read_text())) if kept.exists() else None
        seen = (
            (f"{part.seconds:.0f}", part.playbooks, f"{part.in_playbooks:.0f}") if part else ("-", "-", "-")
        )
        rows.append((name, seen[0], str(budgets[name]), *map(str, seen[1:]), verdict(part, budgets[name])))
    failed = [row[0] for row in rows[1:] if row[-1] != "passed"]
    if failed and whole not in failed:
        rows[-1] = (*rows[-1][:-1], f"FAILED in {', '.join(failed)}")
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print(
            "  ".join(
                [
                    row[0].ljust(widths[0]),
                    *(cell.rjust(width) for cell, width in zip(row[1:-1], widths[1:-1], strict=True)),
                    row[-1],
                ]
            )
        )
    for name in failed:
        for line in why(name):
            print(f"{name}: {line}")
    return 1 if failed else 0


def main(words: list[str]) -> int:
    match words:
        case ["run", part, *command] if command:
            return run(part, command)
        case ["part", part, *command] if command:
            return run_part(part, command)
        case ["table", whole, *parts] if parts:
            return table(whole, parts)
    sys.stderr.write(
        f"expected `run WHOLE COMMAND...`, `part PART COMMAND...` or `table WHOLE PART...`, seen {' '.join(words) or 'nothing'}\n"
    )
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
