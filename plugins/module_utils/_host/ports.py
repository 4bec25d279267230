# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The listener on each TCP port of a host: a process, a container, or Docker for one."""

from __future__ import annotations

import ipaddress
import json
import re
import sys
from collections.abc import Iterable, Mapping
from typing import Any

from .processes import processes
from .request import ProbeError, Request

_LOCAL = re.compile(r"([0-9A-F]{8}|[0-9A-F]{32}):([0-9A-F]{4})")


def ports(request: Request, containers: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Listening TCP ports, and those that Docker forwards without a process of its own."""
    published = [
        {
            "port": port["port"],
            "address": port["address"],
            "pid": None,
            "process": None,
            "container": container["name"],
        }
        for container in containers
        for port in container["ports"]
        if port["protocol"] == "tcp"
    ]
    names = {container["id"]: container["name"] for container in containers}
    owners = {(entry["port"]): entry["container"] for entry in published}
    listening = []
    sockets = _listening(request)
    pids = _socket_owners(request, {inode for _port, _address, inode in sockets})
    for port, address, inode in sockets:
        pid = pids.get(inode)
        process = (request.text(f"/proc/{pid}/comm") or "").strip() or None if pid else None
        inside = _container_of(request, pid, names) if pid else None
        forwarded = owners.get(port) if process in (None, "docker-proxy", "rootlesskit") else None
        listening.append(
            {
                "port": port,
                "address": address,
                "pid": pid,
                "process": process,
                "container": inside or forwarded,
            }
        )
    seen = {(entry["port"], entry["container"]) for entry in listening}
    listening += [entry for entry in published if (entry["port"], entry["container"]) not in seen]
    unique = {json.dumps(entry, sort_keys=True): entry for entry in listening}
    return sorted(unique.values(), key=lambda entry: (entry["port"], entry["address"]))


def _listening(request: Request) -> list[tuple[int, str, str]]:
    """(port, address, inode) of every listening TCP socket."""
    found = []
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        text = request.text(table)
        if text is None and table == "/proc/net/tcp":
            raise ProbeError(f"{table} is not there")
        for line in (text or "").splitlines()[1:]:
            words = line.split()
            if len(words) > 9 and words[3] == "0A" and (local := _LOCAL.fullmatch(words[1])):
                found.append((int(local[2], 16), _address(local[1]), words[9]))
    return found


def _address(words: str) -> str:
    """An address of /proc/net/tcp: 32-bit words in the byte order of the machine, in hexadecimal."""
    raw = b"".join(int(words[i : i + 8], 16).to_bytes(4, sys.byteorder) for i in range(0, len(words), 8))
    return str(ipaddress.ip_address(raw))


def _socket_owners(request: Request, inodes: set[str]) -> dict[str, int]:
    """inode -> pid, as far as /proc may be read."""
    owners: dict[str, int] = {}
    for process in processes(request):
        try:
            for descriptor in (process / "fd").iterdir():
                target = str(descriptor.readlink())
                if target.startswith("socket:[") and target[8:-1] in inodes:
                    owners.setdefault(target[8:-1], int(process.name))
        except OSError:  # it ended meanwhile, or belongs to somebody else
            continue
    return owners


def _container_of(request: Request, pid: int, names: Mapping[str, str]) -> str | None:
    """Name of the running container a process belongs to (host networking), by its control group."""
    for container_id in re.findall(r"[0-9a-f]{64}", request.text(f"/proc/{pid}/cgroup") or ""):
        if container_id in names:
            return names[container_id]
    return None
