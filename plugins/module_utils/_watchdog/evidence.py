# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is kept of a server before it is restarted: bounded in size and number, and without secrets."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from .._common import files
from .._common.secrets import mask
from .._host import engine_socket
from .._host.engine_socket import EngineError
from .._serve import memory as host_memory
from .look import Host, ask_gpu
from .seen import Look

FOLDERS = 10
TOTAL = 64 * 1024 * 1024
PART = 4 * 1024 * 1024
"""Bytes: of all folders, and of a file."""
LINES, FEWER_LINES = 2000, 200
READ = 8 * 1024 * 1024
LOG_TIMEOUT = 10.0
PROCESSES = 100


def keep(host: Host, folder: Path, look: Look, kind: str, secrets: Sequence[str]) -> str:
    """Write a folder of evidence, and give its name. Older ones go, so that the bounds hold.

    :raises OSError: it cannot be written
    """
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(look.now.unix))
    name = f"{stamp}-{kind}"
    draft = folder / f".{name}"
    files.remove(draft)
    draft.mkdir(mode=0o700, parents=True)
    for file, gather in _parts(host, look).items():
        try:
            text = gather()
        except (OSError, EngineError) as error:
            text = f"not there: {error}\n".encode()
        files.write(draft / file, clean(text, secrets), 0o600)
    files.remove(folder / name)
    draft.rename(folder / name)
    prune(folder)
    return name


def _parts(host: Host, look: Look) -> dict[str, Callable[[], bytes]]:
    name = look.record.container if look.record else ""
    return {
        "log": lambda: log(host, name),
        "metrics": look.metrics.encode,
        "nvidia-smi": all_of_gpu,
        "meminfo": (host.proc / "meminfo").read_bytes,
        "processes": lambda: processes(host.proc).encode(),
    }


def all_of_gpu() -> bytes:
    return (ask_gpu(["-q"]) or "no answer\n").encode()


def clean(text: bytes, secrets: Sequence[str]) -> bytes:
    """The end of a text, without secrets. They go first: a cut one would not be found."""
    shown = mask(text[-READ:].decode(errors="replace"), sorted(filter(None, secrets), key=len, reverse=True))
    return shown.encode()[-PART:]


def log(host: Host, container: str) -> bytes:
    found = engine_socket.log(host.socket, container, LINES, READ, LOG_TIMEOUT)
    if len(found) < READ - 8 * LINES:
        return found
    return engine_socket.log(host.socket, container, FEWER_LINES, READ, LOG_TIMEOUT)


def processes(proc: Path) -> str:
    """The largest processes by name, without arguments: these may hold secrets."""
    lines = [f"{size >> 20} MiB\t{name}" for name, size in host_memory.largest(proc, PROCESSES)]
    return "\n".join(lines) + "\n"


def kept(folder: Path) -> list[str]:
    """Names of the folders, oldest first."""
    try:
        return sorted(each.name for each in folder.iterdir() if not each.name.startswith("."))
    except OSError:
        return []


def prune(folder: Path) -> None:
    """Remove the oldest until number and bytes are within bounds. The newest stays."""
    for draft in folder.glob(".*"):
        files.remove(draft)
    names = kept(folder)
    sizes = {name: _size(folder / name) for name in names}
    while len(names) > 1 and (len(names) > FOLDERS or sum(sizes[name] for name in names) > TOTAL):
        files.remove(folder / names.pop(0))


def _size(folder: Path) -> int:
    return sum(file.lstat().st_size for file in folder.glob("*"))
