# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ask a running HAProxy: its master, and through it every worker, also those that a reload has replaced and that end their streams.

https://docs.haproxy.org/2.6/management.html, chapters 9.3 and 9.4
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from . import answers
from .answers import HaproxyError, Process, Server

LIMIT = 4 * 1024 * 1024
"""Bytes of an answer. A server takes less than 1 KiB in the longest one."""
SECONDS = 5.0
PAUSE = 0.05
STATISTICS = "show stat -1 4 -1"
"""Of servers, in all backends."""
T = TypeVar("T")


@dataclass(frozen=True)
class Haproxy:
    socket: str
    seconds: float = SECONDS
    """For each question, all of its answer."""

    def ask(self, command: str) -> str:
        """The answer, which is never empty. A master that begins anew, at a reload, is asked until it listens.

        :raises HaproxyError: there is no whole answer
        """
        deadline = time.monotonic() + self.seconds
        said = "no answer"
        while time.monotonic() < deadline:
            try:
                if answer := self._once(command, deadline):
                    return answer
            except OSError as error:
                said = error.strerror or str(error)
            time.sleep(PAUSE)
        raise HaproxyError(f"{self.socket}: {command}: {said}")

    def _once(self, command: str, deadline: float) -> str:
        found = bytearray()
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asked:
            asked.settimeout(max(deadline - time.monotonic(), 0.001))
            asked.connect(self.socket)
            asked.sendall(command.encode() + b"\n")
            asked.shutdown(socket.SHUT_WR)
            while block := asked.recv(65536):
                found += block
                if len(found) > LIMIT:
                    raise HaproxyError(f"{self.socket}: {command}: more than {LIMIT} bytes")
                asked.settimeout(max(deadline - time.monotonic(), 0.001))
        return found.decode(errors="replace")

    def processes(self) -> list[Process]:
        """The workers, the one that takes new connections first."""
        return answers.parse_processes(self.ask("show proc"))

    def servers(self) -> list[Server]:
        """Every server as the current worker has it, with the sessions that all workers have there.

        :raises HaproxyError: one of them does not answer, and has not ended meanwhile
        """

        def look(current: Process, former: list[Process]) -> list[Server]:
            found = answers.parse_states(self.of(current, "show servers state"))
            status = answers.parse_statistics(self.of(current, STATISTICS))
            sessions = {name: row.sessions for name, row in status.items()}
            nothing: dict[str, answers.Row] = {}
            for process in former:
                rows = self._unless_ended(process, STATISTICS, answers.parse_statistics, nothing)
                for name, row in rows.items():
                    sessions[name] = sessions.get(name, 0) + row.sessions
            return [server.seen(status.get(server.key), sessions.get(server.key, 0)) for server in found]

        return self._with_workers(look)

    def states(self) -> str:
        """What a state file holds."""

        def look(current: Process, former: list[Process]) -> str:
            text = self.of(current, "show servers state")
            answers.parse_states(text)
            return text.strip() + "\n"

        return self._with_workers(look)

    def set_state(self, server: Server, state: str) -> None:
        """In every worker: a former one may still get a request on a connection that it has kept.

        :raises HaproxyError: the current worker refuses
        """
        command = f"set server {server.key} state {state}"

        def say(current: Process, former: list[Process]) -> None:
            if said := self.of(current, command).strip():
                raise HaproxyError(f"{self.socket}: {command}: {said}")
            for process in former:
                # One that has no such server sends it nothing.
                self._unless_ended(process, command, str, "")

        self._with_workers(say)

    def _with_workers(self, do: Callable[[Process, list[Process]], T]) -> T:
        """What `do` makes of the current worker and the former ones; again, if a reload came in between."""
        while True:
            current, *former = self.processes()
            try:
                return do(current, former)
            except HaproxyError:
                if self.processes()[0] == current:
                    raise

    def _unless_ended(self, process: Process, command: str, read: Callable[[str], T], instead: T) -> T:
        """What a former worker answers, or `instead` of one that has ended meanwhile."""
        try:
            return read(self.of(process, command))
        except HaproxyError:
            if process in self.processes():
                raise
            return instead

    def of(self, process: Process, command: str) -> str:
        return self.ask(f"@!{process.pid} {command}")
