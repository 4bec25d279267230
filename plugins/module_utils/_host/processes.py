# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Processes of a host as /proc shows them, the engine's among them."""

from __future__ import annotations

import os
import re
from pathlib import Path

from .request import Request

_START_TIME = re.compile(r"(?: \S+){19} ([0-9]{1,19})\b")


def processes(request: Request) -> list[Path]:
    return [entry for entry in request.at("/proc").iterdir() if entry.name.isdigit()]


def dockerd(request: Request) -> int | None:
    """pid of this host's dockerd. /proc also shows those of other hosts, when they are containers here."""
    for file in ("/run/docker.pid", "/var/run/docker.pid"):
        noted = (request.text(file) or "").strip()
        if noted.isdigit() and (request.text(f"/proc/{noted}/comm") or "").strip() == "dockerd":
            return int(noted)
    pids = [
        int(p.name)
        for p in processes(request)
        if (request.text(f"/proc/{p.name}/comm") or "").strip() == "dockerd"
    ]
    ours = [pid for pid in sorted(pids) if _same_mounts(request, pid)]
    return ours[0] if ours else None


def snap_dockerd(request: Request) -> int | None:
    """pid of the snap's dockerd. It sees other files below /etc and /var than the host."""
    noted = (request.text("/run/snap.docker/docker.pid") or "").strip()
    pids = [int(noted)] if noted.isdigit() else sorted(int(process.name) for process in processes(request))
    return next(
        (
            pid
            for pid in pids
            if (request.text(f"/proc/{pid}/comm") or "").strip() == "dockerd"
            and "snap.docker" in (request.text(f"/proc/{pid}/cgroup") or "")
        ),
        None,
    )


def _same_mounts(request: Request, pid: int) -> bool:
    try:
        return request.at(f"/proc/{pid}/ns/mnt").readlink() == request.at("/proc/self/ns/mnt").readlink()
    except OSError:
        return False


def started(request: Request, pid: int) -> float | None:
    """When a process started, in seconds since the epoch."""
    status = request.text(f"/proc/{pid}/stat")
    boot = re.search(r"^btime ([0-9]{1,19})$", request.text("/proc/stat") or "", re.MULTILINE)
    # The name of a process, in brackets, may hold anything. Field 22 is the 20th after it.
    ticks = _START_TIME.match((status or "").rpartition(")")[2])
    if not ticks or not boot:
        return None
    return int(boot[1]) + int(ticks[1]) / os.sysconf("SC_CLK_TCK")


def command_line(request: Request, pid: int) -> list[str]:
    """The words of a command line; none if the process has ended."""
    return [word for word in (request.text(f"/proc/{pid}/cmdline") or "").split("\0") if word]


def environment_of(request: Request, pid: int) -> dict[str, str]:
    try:
        text = request.at(f"/proc/{pid}/environ").read_text(errors="replace")
    except OSError:
        return {}
    return dict(pair.split("=", 1) for pair in text.split("\0") if "=" in pair)
