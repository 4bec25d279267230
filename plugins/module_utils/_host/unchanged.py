# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Digests of what a run looks at on a host, one for each part. If all equal those from around a run that found nothing to do,
another look would see the same.

Files are compared as by a stat cache: inode, size, mode, owner and both times. Nothing of them is read.
"""

from __future__ import annotations

import hashlib
import json
import stat
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from .._common.paths import ledger_path
from .._common.shape import Maybe, wrong
from . import engine, iptables, nftables, port_guard, unit, unit_guard
from .engine_socket import EngineError

SYSTEM = ("/proc/sys/kernel/random/boot_id", "/proc/sys/kernel/osrelease", "/proc/driver/nvidia/version")
DRIVER = (
    "/usr/bin/nvidia-smi",
    "/usr/lib/*-linux-gnu/libnvidia-ml.so.1",
    "/etc/nvidia-container-runtime/config.toml",
)
PACKAGES = (
    "/etc/os-release",
    "/var/lib/dpkg/status",
    "/etc/systemd/logind.conf",
    "/etc/systemd/logind.conf.d/*",
)
ENGINE = (
    "ID",
    "ServerVersion",
    "DockerRootDir",
    "Driver",
    "Runtimes",
    "DefaultRuntime",
    "RegistryConfig",
    "LiveRestoreEnabled",
    "SecurityOptions",
    "DiscoveredDevices",
)
CONTAINER = ("Id", "Name", "Image", "Config", "HostConfig", "RestartCount")
STATE = ("Status", "StartedAt", "Pid")
WATCHDOG = "sparkfleet-watchdog"
"""How the names of its units begin."""
WATCHDOG_PROGRAMS = "/opt/sparkfleet/watchdog"
WATCHDOG_FILES = ("watchdog/config.json", "watchdog/key")
"""Below the state directory: what was asked for. What it writes by itself is no difference."""


def digest(value: Any) -> str:
    """SHA-256 of a JSON value, in hexadecimal."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def facts(path: Path) -> list[Any]:
    """What stat says of a file, and of a link's target; nothing of a file that is not there."""
    try:
        status = path.lstat()
    except OSError:
        return []
    seen: list[Any] = [status.st_ino, status.st_mode, status.st_uid, status.st_gid]
    seen += [status.st_size, status.st_mtime_ns, status.st_ctime_ns]
    if stat.S_ISLNK(status.st_mode):
        end = path.resolve()
        seen += [str(end), *(facts(end) if end.exists() else [])]
    return seen


def files(patterns: Iterable[str]) -> dict[str, list[Any]]:
    """Facts by path. A pattern without a match stands for itself, so that a new file there is a difference."""
    root = Path("/")
    met = {pattern: sorted(root.glob(pattern.lstrip("/"))) or [Path(pattern)] for pattern in patterns}
    return {str(path): facts(path) for paths in met.values() for path in paths}


def tree(root: str) -> dict[str, list[Any]]:
    """Facts by path, of a directory and everything below it."""
    return {str(path): facts(path) for path in [Path(root), *Path(root).rglob("*")]}


def contents(paths: Iterable[str]) -> list[str]:
    """The texts of kernel files, whose times do not show a change."""

    def read(path: str) -> str:
        try:
            return Path(path).read_text(errors="replace")
        except OSError:
            return ""

    return [read(path) for path in paths]


def answer(url: str, timeout: float = 5) -> int:
    """The HTTP status that a URL on the host's own network answers with, 0 for no answer."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=timeout) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        return error.code
    except (OSError, ValueError):
        return 0


def container(inspected: Mapping[str, Any]) -> dict[str, Any]:
    """What a container was made with and which process it is, from the engine's description."""
    return {
        **{name: inspected.get(name) for name in CONTAINER},
        "state": {name: inspected["State"].get(name) for name in STATE},
        "mounts": sorted(json.dumps(mount, sort_keys=True) for mount in inspected.get("Mounts") or []),
        "networks": sorted((inspected.get("NetworkSettings") or {}).get("Networks") or {}),
    }


_IMAGE = {"Id": str, "RepoDigests": Maybe([str])}
_CONTAINER = {
    "State": dict,
    "Mounts": Maybe([dict]),
    "NetworkSettings": Maybe({"Networks": Maybe(dict)}),
}


def _fit(answer: Any, expected: Any) -> dict[str, Any]:
    if said := wrong(answer, expected):
        raise EngineError(said)
    return dict(answer)


def of_host(
    state_dir: str, serving: Mapping[str, Any], watch: Mapping[str, Any], ask: Callable[[str], Any]
) -> dict[str, str]:
    """Digests by part.

    :param serving: the record of what serves (docs/architecture.md)
    :param watch: ``{environment, files, urls}``, options of host_unchanged
    :param ask: what the engine returns for a path of its interface
    :raises EngineError: the engine does not answer, or not in the form that is read here
    """
    name, image = serving["container"]["name"], serving["container"]["image"]
    about = _fit(ask("/info"), {})
    held = _fit(ask(f"/images/{urllib.parse.quote(image, safe='')}/json"), _IMAGE)
    inspected = _fit(ask(f"/containers/{urllib.parse.quote(name, safe='')}/json"), _CONTAINER)
    environment = watch["environment"]
    parts: dict[str, Any] = {
        "what is watched": dict(watch),
        "kernel and driver": [contents(SYSTEM), files(DRIVER)],
        "packages": files(PACKAGES),
        "Python environment": files(
            [f"{environment}/bin/python", f"{environment}/lib*/python*/site-packages"]
        ),
        # A driver of containerd may have the name of one of the engine's own.
        "engine": {key: about.get(key) for key in ENGINE} | {"containerd": engine.in_containerd(about)},
        "container": container(inspected),
        "image": [held["Id"], sorted(held.get("RepoDigests") or [])],
        "models": [tree(model["path"]) for model in serving["models"].values()],
        "mounts": files(mount["path"] for mount in serving.get("mounts") or []),
        # Where the container writes, only who may enter counts: what it writes is no difference.
        "directories": {
            entry["path"]: facts(Path(entry["path"]))[1:4] for entry in serving.get("directories") or []
        },
        "patches": files(file["host_path"] for file in serving["files"] if file.get("host_path")),
        "unit": [
            files(f"{unit.UNITS}/{where}{name}.service" for where in ("", "multi-user.target.wants/")),
            unit.look(f"{name}.service").watches,
        ],
        "port guard": _port_guard(),
        "unit guard": _unit_guard(),
        "watchdog": _watchdog(state_dir),
        "records": files([f"{state_dir}/state.json", ledger_path(state_dir)]),
        "files": files(watch["files"]),
        "answers": [answer(url) for url in watch["urls"]],
    }
    return {part: digest(seen) for part, seen in parts.items()}


def _port_guard() -> list[Any]:
    """Where a host guards its port: the files of that, and the rules that the kernel has. Elsewhere no program runs for it."""
    kept = _guard_files(port_guard.DIRECTORY, port_guard.UNIT)
    if not port_guard.DIRECTORY.is_dir():
        return [kept]
    try:
        return [kept, *(iptables.look(version).shown for version in iptables.versions())]
    except iptables.IptablesError as error:
        return [kept, str(error)]


def _unit_guard() -> list[Any]:
    """The same for the ports of a unit."""
    kept = _guard_files(unit_guard.DIRECTORY, unit_guard.UNIT)
    if not unit_guard.DIRECTORY.is_dir():
        return [kept]
    try:
        return [kept, nftables.port_range(), nftables.look()]
    except nftables.NftError as error:
        return [kept, str(error)]


def _guard_files(directory: Path, service: str) -> Any:
    links = (f"{unit.UNITS}/{where}{service}" for where in ("", "multi-user.target.wants/"))
    return files([str(directory), f"{directory}/*", *links])


def _watchdog(state_dir: str) -> list[Any]:
    """Program, settings and units of the watchdog, and whether it looks. Where there is none no program runs for it."""
    kept = [
        files(
            f"{unit.UNITS}/{where}{WATCHDOG}*"
            for where in ("", "timers.target.wants/", "sockets.target.wants/")
        ),
        files(f"{state_dir}/{path}" for path in WATCHDOG_FILES),
        tree(WATCHDOG_PROGRAMS),
    ]
    starts = [path for kind in ("timer", "socket") for path in sorted(unit.UNITS.glob(f"{WATCHDOG}*.{kind}"))]
    return [*kept, {path.name: unit.look(path.name).active for path in starts}]


def differences(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    """The parts whose digests differ."""
    return [part for part in {**before, **after} if before.get(part) != after.get(part)]
