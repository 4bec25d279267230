# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a gateway is as the inventory says, and what its servers may get. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .._gateway.answers import MAINTENANCE, READY, Server
from .._gateway.file_set import File
from .._host.unit import Unit
from .finding import WARNING, Finding, part

MENDS = "playbooks/gateway.yml"


@dataclass(frozen=True)
class Wanted:
    directory: str
    files: Mapping[str, File]
    """By name, in that directory, which holds nothing else."""
    texts: Mapping[str, str]
    """By path, elsewhere."""
    services: Sequence[str]
    """Units that run, now and after a boot."""
    absent: Sequence[str] = ()
    """Paths of files that a gateway of this inventory does not have."""


@dataclass(frozen=True)
class Seen:
    program: bool
    files: Mapping[str, File] = field(default_factory=dict)
    texts: Mapping[str, str] = field(default_factory=dict)
    """Of those that are there."""
    services: Mapping[str, Unit] = field(default_factory=dict)
    left: Sequence[str] = ()
    """Of the files that should not be there, those that are."""
    servers: Sequence[Server] = ()
    problem: str = ""
    """Why HAProxy did not tell of its servers."""
    held: Mapping[str, Any] | None = None
    """The run that works here."""


def judge(wanted: Wanted, seen: Seen) -> dict[str, Any]:
    """The part of a drift report that is about a gateway."""
    known = {"held": dict(seen.held)} if seen.held else {}
    if not seen.program:
        absent = Finding(
            "gateway", "gateway-missing", "HAProxy", "not installed", f"{MENDS} sets the gateway up"
        )
        return part(("gateway",), [absent], known=known)
    found = [*_set(wanted, seen), *_texts(wanted, seen), *_services(wanted, seen), *_servers(seen.servers)]
    stopped = any(finding.kind == "gateway-stopped" for finding in found)
    return part(("gateway",), found, {"gateway": seen.problem} if seen.problem and not stopped else {}, known)


def _set(wanted: Wanted, seen: Seen) -> Iterator[Finding]:
    do = f"{MENDS} writes all of them anew, and cuts no stream"
    for name in sorted({*wanted.files, *seen.files}):
        after, before = wanted.files.get(name), seen.files.get(name)
        if after == before:
            continue
        path = f"{wanted.directory}/{name}"
        expected = f"{path} as the inventory makes it" if after else f"no {path}"
        yield Finding("gateway", "gateway-file", expected, _difference(before, after), do)


def _difference(before: File | None, after: File | None) -> str:
    """How a file differs, without any of its content: it may be a secret."""
    if before is None or after is None:
        return "not there" if before is None else "a file that is none of the gateway's"
    if before.content != after.content:
        return f"another content{'' if after.secret else f', from line {_line(before.content, after.content)} on'}"
    if before.mode != after.mode:
        return f"mode {before.mode:04o}, expected {after.mode:04o}"
    return f"group {before.group}, expected {after.group}"


def _line(before: bytes, after: bytes) -> int:
    """The number of the first line that differs."""
    number = 0
    for number, (old, new) in enumerate(zip(before.split(b"\n"), after.split(b"\n"), strict=False), 1):
        if old != new:
            return number
    return number + 1


def _texts(wanted: Wanted, seen: Seen) -> Iterator[Finding]:
    for path, text in wanted.texts.items():
        if seen.texts.get(path) != text:
            said = "another content" if path in seen.texts else "not there"
            yield Finding(
                "gateway", "gateway-file", f"{path} as the inventory makes it", said, f"{MENDS} writes it"
            )
    for path in seen.left:
        yield Finding("gateway", "gateway-file", f"no {path}", "it is there", f"{MENDS} removes it")


def _services(wanted: Wanted, seen: Seen) -> Iterator[Finding]:
    for name in wanted.services:
        unit = seen.services[name]
        for path in unit.drop_ins:
            yield Finding("gateway", "gateway-file", f"{name} without an override", path, "remove it")
        if unit.text is None:
            continue  # said already
        if unit.active != "active":
            yield Finding(
                "gateway", "gateway-stopped", f"{name} runs", f"it is {unit.active}", f"{MENDS} starts it"
            )
        if unit.enabled != "enabled":
            expected = f"{name} starts at boot"
            yield Finding("gateway", "gateway-boot", expected, f"it is {unit.enabled}", f"{MENDS} enables it")


def _servers(servers: Sequence[Server]) -> Iterator[Finding]:
    for server in servers:
        if server.usable:
            continue
        out, let_in = f"it is {server.state}", "playbooks/site.yml lets it in when it passes"
        if server.state == READY:
            out, let_in = "it fails its checks", f"look at {server.name}: it does not answer the gateway"
            if server.agent is not None:
                out = (
                    f"its watchdog says {server.agent}"
                    if server.agent
                    else "its watchdog said down, and is silent since"
                )
                let_in = f"look at the findings of {server.name} about its watchdog"
        elif server.state == MAINTENANCE:
            out, let_in = "it is in maintenance", f"gateway_server name={server.name} state=ready ends that"
        yield Finding("gateway", "server-out", f"{server.key} gets requests", out, let_in, WARNING)
