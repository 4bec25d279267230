# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What HAProxy answers, as data. Pure."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

READY, DRAINED, MAINTENANCE = "ready", "drained", "maintenance"
FORCED_DRAIN, ANY_DRAIN, ANY_MAINTENANCE = 0x08, 0x18, 0x27
"""Bits of srv_admin_state."""
STATE_VERSION = "1"
FIELDS = 19
"""Of a server in that version, up to its port."""
AGENT_DOWN = "DOWN (agent)"
"""Status of a server whose agent has said so. It stays while the agent is silent, and ends when that says up."""
AGENT_SAYS = "via agent : "
NUMBER = re.compile(r"[0-9]{1,9}")


class HaproxyError(RuntimeError):
    """HAProxy gives no answer, or one that nobody understands here."""


@dataclass(frozen=True)
class Process:
    pid: int


@dataclass(frozen=True)
class Row:
    """Of the statistics of a server."""

    status: str
    sessions: int
    agent: str = ""
    """What the agent of the Spark's watchdog said last, in the words of HAProxy."""


@dataclass(frozen=True)
class Server:
    pool: str
    name: str
    state: str  # what it may get: ready, drained or maintenance
    up: bool = False  # by its checks, and by its watchdog
    agent: str | None = None
    """Why it is down, where its watchdog says so: what that said last, empty if it says nothing any more."""
    sessions: int = 0  # requests that it has now
    address: str = ""  # IP
    port: int = 0

    @property
    def key(self) -> str:
        return f"{self.pool}/{self.name}"

    @property
    def usable(self) -> bool:
        return self.up and self.state == READY

    def seen(self, row: Row | None, sessions: int) -> Server:
        status = row.status if row else ""
        # "UP", "UP 1/3" on its way down, "DRAIN" for one that is drained and up, "no check" for one that nobody asks.
        up = status.startswith(("UP", "DRAIN", "no check"))
        agent = row.agent if row and status == AGENT_DOWN else None
        return replace(self, up=up, sessions=sessions, agent=agent)


def _rows(text: str) -> Iterator[list[str]]:
    yield from (line.split() for line in text.splitlines() if line.strip())


def _number(text: str, what: str) -> int:
    if not NUMBER.fullmatch(text):
        raise HaproxyError(f"{what}: expected a number, seen {text!r:.40}")
    return int(text)


def parse_processes(text: str) -> list[Process]:
    """The workers that "show proc" names, in its order: current ones first.

    :raises HaproxyError: there is none
    """
    found = [Process(_number(row[0], "show proc")) for row in _rows(text) if row[1:2] == ["worker"]]
    if not found:
        raise HaproxyError(f"show proc: expected a worker, seen {text.strip()!r:.80}")
    return found


def parse_states(text: str) -> list[Server]:
    """The servers of "show servers state", without those of HAProxy itself.

    :raises HaproxyError: another format
    """
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines or lines[0].strip() != STATE_VERSION:
        raise HaproxyError(f"show servers state: expected version {STATE_VERSION}, seen {text.strip()!r:.80}")
    found = []
    for row in _rows("\n".join(lines[1:])):
        if row[0].startswith("#"):
            continue
        if len(row) < FIELDS:
            raise HaproxyError(
                f"show servers state: expected {FIELDS} fields or more, seen {' '.join(row)!r:.80}"
            )
        bits = _number(row[6], "show servers state")
        state = MAINTENANCE if bits & ANY_MAINTENANCE else DRAINED if bits & ANY_DRAIN else READY
        port = _number(row[18], "show servers state")
        found.append(Server(row[1], row[3], state, address=row[4], port=port))
    return found


def parse_statistics(text: str) -> dict[str, Row]:
    """``{pool/server: row}`` of "show stat" for servers.

    :raises HaproxyError: another format
    """
    head, _newline, rest = text.strip().partition("\n")
    names = head.removeprefix("#").strip().split(",")
    wanted = ("pxname", "svname", "scur", "status")
    if any(name not in names for name in wanted):
        raise HaproxyError(f"show stat: expected {', '.join(wanted)}, seen {head!r:.80}")
    try:
        rows = [dict(zip(names, row, strict=False)) for row in csv.reader(rest.splitlines()) if row]
    except csv.Error as error:
        raise HaproxyError(f"show stat: {error}") from None
    found = {}
    for row in rows:
        if any(name not in row for name in wanted):
            raise HaproxyError(f"show stat: expected a row of {len(names)} fields, seen {len(row)}")
        said = (
            row.get("last_agt", "").removeprefix(AGENT_SAYS) if AGENT_SAYS in row.get("last_agt", "") else ""
        )
        found[f"{row['pxname']}/{row['svname']}"] = Row(
            row["status"], _number(row["scur"], "show stat"), said
        )
    return found
