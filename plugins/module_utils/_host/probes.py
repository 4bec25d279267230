# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Looks at a host, read-only and with the standard library alone: this runs before anything is installed.

Every probe stands alone and has a time limit. A probe that fails leaves null and a reason, never a traceback.
"""

from __future__ import annotations

import os
import platform
import re
import shlex
import stat
import threading
import time
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from .._common import files, json_text, shape
from .._common.paths import cache_root
from . import daemon_json, engine, engine_socket, fabric, gpu, port_guard, toolkit, unit_guard
from .ports import ports
from .request import ProbeError, Request

_DISTRIBUTIONS = """
import importlib.metadata as m, json, platform
names = {d.metadata["Name"]: d.version for d in m.distributions()}
print(json.dumps({"python": platform.python_version(), "distributions": names}))
"""
_TOLD = {"python": str, "distributions": {str: shape.Maybe(str)}}


def each(probes: Mapping[str, Callable[[], Any]], timeout: float) -> tuple[dict[str, Any], dict[str, str]]:
    """(values, reasons). All probes run side by side; one that fails or exceeds `timeout` seconds has None and a reason."""
    values: dict[str, Any] = dict.fromkeys(probes)
    reasons = dict.fromkeys(probes, f"no answer within {timeout:g} s")
    closed = threading.Lock()

    def one(name: str, probe: Callable[[], Any]) -> None:
        value, reason = None, None
        try:
            value = probe()
        except (ProbeError, engine_socket.EngineError) as error:
            reason = str(error)
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
        with closed:
            values[name] = value
            if reason is None:
                reasons.pop(name, None)
            else:
                reasons[name] = reason

    # Daemon threads: a hanging one (a dead network file system) does not keep the module alive.
    threads = [threading.Thread(target=one, args=item, daemon=True) for item in probes.items()]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + timeout
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    with closed:
        return dict(values), dict(reasons)


def gather(request: Request) -> dict[str, Any]:
    """Everything that RETURN of spark_info documents, except its judgment."""
    asked, why = each(
        {"docker": lambda: engine.look(request), "docker_images": lambda: engine.images_bytes(request)},
        request.timeout,
    )
    docker, known = asked["docker"], asked["docker"] or {}
    known["images_bytes"] = asked["docker_images"]
    content_of = request.text(request.daemon_config) if not known.get("images_root") else None
    values, reasons = each(
        {
            "architecture": platform.machine,
            "kernel": platform.release,
            "uid": os.geteuid,
            "os": lambda: operating_system(request),
            "apt": lambda: request.at("/usr/bin/apt-get").exists(),
            "systemd": lambda: request.at("/run/systemd/system").is_dir(),
            "remove_ipc": lambda: remove_ipc(request),
            "gb10": lambda: gpu.gb10(request),
            "driver": lambda: gpu.driver(request),
            "gpu": lambda: gpu.access(request),
            "fabric": lambda: fabric.look(request),
            "memory": lambda: memory(request),
            "disks": lambda: disks(
                request, _data_root(request, known, content_of), known.get("images_bytes") or 0
            ),
            "directories": lambda: [path for path in request.directories if request.at(path).is_dir()],
            "alterable": lambda: alterable(request),
            "cache": lambda: cache(request),
            "daemon_config": lambda: daemon_config(request),
            "toolkit": lambda: toolkit.look(request, known),
            "guarded": lambda: request.at(str(port_guard.DIRECTORY)).is_dir(),
            "unit_guarded": lambda: request.at(str(unit_guard.DIRECTORY)).is_dir(),
            "ports": lambda: ports(request, known.get("containers") or []),
            "environment": lambda: environment(request),
            "ensurepip": lambda: find_spec("ensurepip") is not None,
        },
        request.timeout,
    )
    if known.get("silent"):
        why["docker_api"] = known.pop("silent")
    return {**values, "docker": docker, "unknown": {**reasons, **why}}


def operating_system(request: Request) -> dict[str, str]:
    text = request.text("/etc/os-release")
    if text is None:
        raise ProbeError("/etc/os-release is not there")
    try:
        pairs = dict(word.split("=", 1) for word in shlex.split(text, comments=True) if "=" in word)
    except ValueError as error:
        raise ProbeError(f"/etc/os-release: {error}") from None
    return {
        "id": pairs.get("ID", "linux"),
        "version": pairs.get("VERSION_ID", ""),
        "name": pairs.get("PRETTY_NAME", pairs.get("ID", "linux")),
    }


def memory(request: Request) -> dict[str, int]:
    """Unified memory: the GPU uses the system's, and nvidia-smi reports none."""
    text = request.text("/proc/meminfo") or ""
    kib = {name: int(value) for name, value in re.findall(r"^(\w+):\s+([0-9]{1,19}) kB", text, re.MULTILINE)}
    if "MemTotal" not in kib:
        raise ProbeError("/proc/meminfo has no MemTotal")
    return {
        "total_bytes": kib["MemTotal"] * 1024,
        "available_bytes": kib.get("MemAvailable", kib.get("MemFree", 0)) * 1024,
        "swap_bytes": kib.get("SwapTotal", 0) * 1024,
    }


def disks(request: Request, data_root: str, images_bytes: int) -> dict[str, dict[str, Any]]:
    return {
        "store": _disk(request, request.store, _held(request.at(request.store) / "models")),
        "docker": _disk(request, data_root, images_bytes),
    }


def alterable(request: Request) -> dict[str, str]:
    """Directories whose content others may alter, {path: who}. The host runs or mounts their content as root."""
    paths = [*request.directories, cache_root(request.store)]
    there = {path: request.at(path) for path in paths if request.at(path).is_dir()}
    return {path: who for path, place in there.items() if (who := files.alterable(place))}


def cache(request: Request) -> dict[str, Any]:
    """Who may enter the directory where containers write. A program that one leaves there may run as root, so nobody else should."""
    path = cache_root(request.store)
    place = request.at(path)
    return {"path": path, "mode": f"{stat.S_IMODE(place.stat().st_mode):04o}" if place.is_dir() else None}


def _disk(request: Request, path: str, held: int) -> dict[str, Any]:
    nearest = request.at(path)
    while not nearest.exists():
        nearest = nearest.parent
    room = os.statvfs(nearest)
    return {
        "path": path,
        "nearest": (Path("/") / nearest.relative_to(request.root)).as_posix(),
        "device": nearest.stat().st_dev,
        "free_bytes": room.f_bavail * room.f_frsize,
        "total_bytes": room.f_blocks * room.f_frsize,
        "held_bytes": held,
    }


def _held(directory: Path) -> int:
    """Bytes on disk below a directory of large files; 0 if it is not there."""
    held = 0
    for where, _folders, names in os.walk(directory):
        for name in names:
            try:
                found = (Path(where) / name).lstat()
            except OSError:  # it was removed meanwhile, or no path is long enough for it
                continue
            held += found.st_blocks * 512 if stat.S_ISREG(found.st_mode) else 0
    return held


def _data_root(request: Request, docker: Mapping[str, Any], text: str | None) -> str:
    """Where Docker keeps or will keep images: by the engine, the request, daemon.json or the default, the first that says it."""
    if docker.get("images_root"):
        return str(docker["images_root"])
    try:
        configured = daemon_json.parse(text or "").get("data-root")
    except daemon_json.DaemonConfigError:
        configured = None
    return request.data_root or configured or engine.DATA_ROOT


def daemon_config(request: Request) -> dict[str, Any]:
    text = request.text(request.daemon_config)
    found: dict[str, Any] = {
        "path": request.daemon_config,
        "exists": text is not None,
        "content": None,
        "error": None,
    }
    try:
        found["content"] = daemon_json.parse(text or "")
    except daemon_json.DaemonConfigError as error:
        found["error"] = str(error)
    return found


def environment(request: Request) -> dict[str, Any]:
    """The modules' Python environment. Runs its Python once, so that a missing base Python shows too."""
    python = f"{request.environment}/bin/python"
    found: dict[str, Any] = {"path": request.environment, "python": None, "distributions": {}}
    if not request.at(python).exists():
        return found
    said = request.run([str(request.at(python)), "-c", _DISTRIBUTIONS], request.timeout)
    try:
        told = json_text.read(said, python)
    except json_text.JsonError as error:
        raise ProbeError(str(error)) from None
    if unfit := shape.wrong(told, _TOLD):
        raise ProbeError(f"{python}: {unfit}")
    return {**found, **told}


def remove_ipc(request: Request) -> bool:
    """logind's RemoveIPC: on by default, it removes the shared memory of a user whose last session ends."""
    directories = (
        "/usr/lib/systemd/logind.conf.d",
        "/run/systemd/logind.conf.d",
        "/etc/systemd/logind.conf.d",
    )
    drop_ins = {f.name: f for d in directories for f in sorted(request.at(d).glob("*.conf"))}
    files = [request.at("/etc/systemd/logind.conf"), *(drop_ins[name] for name in sorted(drop_ins))]
    value = "yes"
    for file in files:
        if file.is_file():
            value = (
                re.findall(
                    r"^[ \t]*RemoveIPC[ \t]*=[ \t]*(\S+)", file.read_text(errors="replace"), re.MULTILINE
                )
                or [value]
            )[-1]
    return value.lower() in ("yes", "true", "on", "1")
