# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Judges a host from what the probes saw: what stands in the way, and what is left to install. Pure.

A value that could not be read is null, with a reason in `info["unknown"]`. A check that needs the value says so, and does not let the
host pass.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from ...module_utils._host import daemon_json
from ...module_utils._host.toolkit import HOOK_MODES
from .requirements import missing_requirements, older, version_of

GIB = 1024**3
MINIMUM_API = "1.41"  # device requests, healthchecks and image digests as the serving role uses them


@dataclass(frozen=True)
class Wanted:
    """What a host must offer, as spark_info documents it. The wanted daemon.json is judged on the host."""

    architectures: Sequence[str]
    gb10: bool
    toolkit: bool
    minimum_driver: str
    minimum_memory_gib: float
    minimum_store_gib: float
    minimum_docker_gib: float
    ports: Sequence[int]
    container: str
    docker_package: str
    toolkit_package: str
    directories: Sequence[str]
    requirements: Sequence[str]


@dataclass(frozen=True)
class Problem:
    """One thing that the role cannot repair."""

    check: str
    expected: str
    seen: str
    do: str


def judge(info: Mapping[str, Any], wanted: Mapping[str, Any], daemon: Mapping[str, Any]) -> dict[str, Any]:
    """``problems``, ``report``, ``todo``, ``changes`` and ``usable``, as RETURN of spark_info has them.

    :param info: what `probes.gather` saw
    :param wanted: the module's option of that name, with its defaults
    :param daemon: what daemon.json needs, as `daemon_json.needed` says it
    :raises RequirementError: a requirement that cannot be compared with a list of distributions
    :raises VersionError: a minimum that is not a version
    """
    options = Wanted(**{field.name: wanted[field.name] for field in fields(Wanted)})
    if options.minimum_driver:
        version_of(options.minimum_driver, "minimum_driver")
    seen = {**info, "daemon": daemon}
    found, left = problems(seen, options), todo(seen, options)
    return {
        "problems": found,
        "report": report(found),
        "todo": left,
        "changes": changes(left),
        "usable": usable(seen, options),
    }


def problems(info: Mapping[str, Any], wanted: Wanted) -> list[dict[str, str]]:
    """Everything that stands in the way on this host. Empty: the host can be used or set up."""
    found: list[Problem] = []
    for check in (
        _privileges,
        _architecture,
        _gb10,
        _driver,
        _gpu,
        _memory,
        _disks,
        _directories,
        _ports,
        _packages,
        _engine,
        _toolkit,
        _daemon_json,
    ):
        found += check(info, wanted)
    return [asdict(problem) for problem in found]


def report(problems: Iterable[Mapping[str, str]]) -> str:
    """The problems as one text for people, one paragraph each."""
    return "\n".join(
        f"{p['check']}: expected {p['expected']}\n  seen {p['seen']}\n  do   {p['do']}" for p in problems
    )


def todo(info: Mapping[str, Any], wanted: Wanted) -> dict[str, Any]:
    """What is missing and can be installed. See RETURN of spark_info for the shape."""
    docker = info["docker"] or {}
    daemon = info["daemon"]
    return {
        "packages": _missing_packages(info, wanted),
        "docker_repository": not docker.get("installed"),
        "toolkit_repository": _toolkit_missing(info, wanted),
        "directories": [path for path in wanted.directories if path not in (info["directories"] or [])],
        "private": _open_cache(info["cache"]),
        "requirements": missing_requirements(wanted.requirements, _distributions(info)),
        "daemon": {name: daemon[name] for name in ("keys", "action", "because", "stops")},
        "start": bool(docker.get("installed")) and not docker.get("running"),
    }


def _open_cache(cache: Mapping[str, Any] | None) -> list[str]:
    """The directory, if others than root may enter it or if it is missing; nothing if the probe could not see it."""
    if cache is None or (cache["mode"] and not int(cache["mode"], 8) & 0o077):
        return []
    return [cache["path"]]


def changes(todo: Mapping[str, Any]) -> list[str]:
    """`todo` in words, one line per change. Empty: nothing to do."""
    lines = []
    if todo["packages"]:
        lines.append(f"install {', '.join(todo['packages'])}")
    lines += [f"create {path}" for path in todo["directories"]]
    lines += [f"keep {path} to root" for path in todo["private"]]
    if todo["requirements"]:
        lines.append(f"install into the Python environment: {', '.join(todo['requirements'])}")
    daemon = todo["daemon"]
    if daemon["keys"]:
        lines.append(f"merge into daemon.json: {', '.join(daemon['keys'])}")
    if daemon["action"] == "reload":
        lines.append("reload Docker (no container stops)")
    if daemon["action"] == "restart":
        stops = f", which stops {', '.join(daemon['stops'])}" if daemon["stops"] else " (no container stops)"
        lines.append(f"restart Docker: {'; '.join(daemon['because'])}{stops}")
    if todo["start"]:
        lines.append("start Docker")
    return lines


def usable(info: Mapping[str, Any], wanted: Wanted) -> bool:
    """True if the engine answers and the environment is complete: modules that need them can run now."""
    answers = bool((info["docker"] or {}).get("version"))
    return answers and not missing_requirements(wanted.requirements, _distributions(info))


def _unseen(info: Mapping[str, Any], probe: str, absent: str) -> str:
    reason = info["unknown"].get(probe)
    return f"unknown: {reason}" if reason else absent


def _privileges(info: Mapping[str, Any], wanted: Wanted) -> list[Problem]:
    if info["uid"] == 0:
        return []
    return [Problem("privileges", "root", f"uid {info['uid']}", "run the play with become: true")]


def _architecture(info: Mapping[str, Any], wanted: Wanted) -> list[Problem]:
    if info["architecture"] in wanted.architectures:
        return []
    return [
        Problem(
            "architecture",
            " or ".join(wanted.architectures),
            str(info["architecture"]),
            "take the host out of the inventory, or allow it with prerequisites_architectures",
        )
    ]


def _gb10(info: Mapping[str, Any], wanted: Wanted) -> list[Problem]:
    gb10 = info["gb10"] or {}
    if not wanted.gb10 or gb10.get("present"):
        return []
    seen = f"PCI {gb10.get('pci') or 'none'}, nvidia-smi {gb10.get('name') or 'none'}, DMI {gb10.get('product') or 'none'}"
    return [
        Problem(
            "gb10",
            "a GB10 by PCI id 10de:2e12, nvidia-smi or DMI product",
            _unseen(info, "gb10", seen),
            "take the host out of the inventory, or set prerequisites_require_gb10: false for a host that is no Spark",
        )
    ]


def _driver(info: Mapping[str, Any], wanted: Wanted) -> list[Problem]:
    version = info["driver"]
    if not wanted.minimum_driver or (version is None and not wanted.gb10):
        return []
    if version is not None and not older(version, wanted.minimum_driver):
        return []
    return [
        Problem(
            "driver",
            f"NVIDIA driver {wanted.minimum_driver} or later",
            version or _unseen(info, "driver", "none"),
            "update the host (DGX OS brings the driver); this role leaves drivers and firmware alone",
        )
    ]


def _gpu(info: Mapping[str, Any], wanted: Wanted) -> list[Problem]:
    """Whether a new container could use the GPU. A running server does not show that: it keeps the access that it has."""
    if not wanted.toolkit:
        return []
    gpu = info["gpu"]
    if gpu is not None and not gpu["error"]:
        return []
    seen = gpu["error"] if gpu else _unseen(info, "gpu", "none")
    versions = f" ({gpu['loaded']} is loaded)" if gpu and gpu["loaded"] and gpu["loaded"] not in seen else ""
    mismatch = "mismatch" in seen.lower() or bool(
        gpu and gpu["loaded"] and gpu["libraries"] and gpu["loaded"] not in gpu["libraries"]
    )
    return [
        Problem(
            "gpu",
            "a GPU that a new container can use, so an nvidia-smi that answers",
            f"{seen}{versions}",
            "reboot the host: its driver was updated, and the old one is still loaded"
            if mismatch
            else "mend what nvidia-smi says (dmesg has more), or reboot the host",
        )
    ]


def _memory(info: Mapping[str, Any], wanted: Wanted) -> list[Problem]:
    total = (info["memory"] or {}).get("total_bytes")
    if total is not None and total >= wanted.minimum_memory_gib * GIB:
        return []
    return [
        Problem(
            "memory",
            f"{wanted.minimum_memory_gib:g} GiB in all",
            _unseen(info, "memory", "none") if total is None else f"{total / GIB:.1f} GiB",
            "use a host with more memory, or lower prerequisites_minimum_memory_gib for a smaller model",
        )
    ]


def _disks(info: Mapping[str, Any], wanted: Wanted) -> list[Problem]:
    """The room that the store and Docker still need, summed over those that share a file system.

    What they hold already is subtracted: a host that has its models is not refused for the room that they take.
    """
    disks = info["disks"]
    if not disks:
        return [
            Problem(
                "disk",
                "free room that can be read",
                _unseen(info, "disks", "none"),
                "look at the file systems",
            )
        ]
    in_containerd = (info["docker"] or {}).get("containerd_snapshotter")
    root = "containerd's root (/etc/containerd/config.toml)" if in_containerd else "Docker's data-root"
    needs = {"store": wanted.minimum_store_gib, "docker": wanted.minimum_docker_gib}
    shared: dict[Any, list[str]] = {}
    for name, disk in disks.items():
        shared.setdefault(disk["device"], []).append(name)
    found = []
    for names in shared.values():
        need = sum(max(0.0, needs[name] * GIB - disks[name]["held_bytes"]) for name in names)
        free = disks[names[0]]["free_bytes"]
        if free >= need:
            continue
        paths = " and ".join(disks[name]["path"] for name in names)
        options = " and ".join(f"prerequisites_minimum_{name}_gib" for name in names)
        found.append(
            Problem(
                "disk",
                f"{need / GIB:.1f} GiB free for {paths}",
                f"{free / GIB:.1f} GiB free on the file system of {disks[names[0]]['nearest']}",
                f"make room, move spark_store or {root}, or lower {options}",
            )
        )
    return found


def _directories(info: Mapping[str, Any], wanted: Wanted) -> list[Problem]:
    expected = "directories that root alone may alter"
    if info["alterable"] is None:
        return [Problem("directory", expected, _unseen(info, "alterable", "none"), "look at the directories")]
    return [
        Problem(
            "directory",
            f"{path} that root alone may alter",
            who,
            f"look at what lies there, then chown root:root {path} and chmod o-w {path}",
        )
        for path, who in info["alterable"].items()
    ]


def _ports(info: Mapping[str, Any], wanted: Wanted) -> list[Problem]:
    if info["ports"] is None:
        return [
            Problem(
                "port",
                "listening ports that can be read",
                _unseen(info, "ports", "none"),
                "look at /proc/net/tcp",
            )
        ]
    found = []
    for port in wanted.ports:
        takers = [p for p in info["ports"] if p["port"] == port and p["container"] != wanted.container]
        if not takers:
            continue
        found.append(
            Problem(
                "port",
                f"port {port} free, or held by container {wanted.container}",
                ", ".join(dict.fromkeys(_taker(taker) for taker in takers)),
                "stop what holds it, or serve on another port (serve.port of the recipe)",
            )
        )
    return found


def _taker(taker: Mapping[str, Any]) -> str:
    if taker["container"]:
        return f"container {taker['container']}"
    if taker["process"]:
        return f"{taker['process']} (pid {taker['pid']}) on {taker['address']}"
    return f"a process that cannot be seen, on {taker['address']}"


def _packages(info: Mapping[str, Any], wanted: Wanted) -> list[Problem]:
    missing = _missing_packages(info, wanted)
    if not missing or info["apt"]:
        return []
    return [
        Problem(
            "packages",
            f"{', '.join(missing)} installed, or apt to install them with",
            f"{(info['os'] or {}).get('name') or 'an unknown system'} without apt-get",
            "install them by the means of this system and run again",
        )
    ]


def _engine(info: Mapping[str, Any], wanted: Wanted) -> list[Problem]:
    docker = info["docker"]
    if docker is None:
        return [
            Problem(
                "docker",
                "an engine that answers, or none",
                _unseen(info, "docker", "none"),
                "systemctl status docker",
            )
        ]
    if docker["snap"]:
        return [
            Problem(
                "docker",
                "Docker as a package of the system, or none",
                f"Docker as a snap (engine {docker['version'] or 'of unknown version'}), which reads other files than "
                f"{(info['daemon_config'] or {}).get('path')}",
                "snap remove docker, which removes its containers and images too, and run again",
            )
        ]
    if not docker["running"]:
        needs_service_manager = docker["installed"] or wanted.docker_package
        if needs_service_manager and not info["systemd"]:
            return [
                Problem(
                    "docker",
                    "a running engine, or systemd to start one",
                    "neither",
                    "start dockerd by the means of this system and run again",
                )
            ]
        return []
    if docker["version"] is None or "docker_api" in info["unknown"]:
        return [
            Problem(
                "docker",
                f"an answer on {docker['socket']}",
                _unseen(info, "docker_api", "none"),
                "systemctl status docker, journalctl -u docker",
            )
        ]
    if older(docker["api_version"], MINIMUM_API):
        return [
            Problem(
                "docker",
                f"API {MINIMUM_API} or later (engine 20.10)",
                f"API {docker['api_version']} (engine {docker['version']})",
                "upgrade the Docker engine; this role leaves an installed engine as it is",
            )
        ]
    return []


def _toolkit(info: Mapping[str, Any], wanted: Wanted) -> list[Problem]:
    toolkit = info["toolkit"]
    if not wanted.toolkit:
        return []
    if toolkit is None:
        return [
            Problem(
                "toolkit", "a toolkit that can be looked at", _unseen(info, "toolkit", "none"), "look at dpkg"
            )
        ]
    if (
        not toolkit["installed"]
        or toolkit["usable"]
        or toolkit["unseen"]
        or not (info["docker"] or {}).get("running")
    ):
        return []
    engine = f"engine {(info['docker'] or {}).get('version')}, nvidia-container-toolkit {toolkit['version'] or 'of unknown version'}"
    if toolkit["hook"] and toolkit["mode"] not in HOOK_MODES:
        return [
            Problem(
                "toolkit",
                "a mode of the toolkit in which --gpus works, or engine 29.2 with nvidia-cdi-hook and CDI devices",
                f'{engine}, nvidia-container-runtime.mode = "{toolkit["mode"]}"',
                "nvidia-ctk config --in-place --set nvidia-container-runtime.mode=auto, or make nvidia Docker's default runtime",
            )
        ]
    return [
        Problem(
            "toolkit",
            "an engine that finds nvidia-container-runtime-hook on its PATH; from 29.2, nvidia-cdi-hook and CDI devices",
            f"{engine}, and neither",
            "put the hook on dockerd's PATH (apt-get install --reinstall nvidia-container-toolkit), then restart Docker",
        )
    ]


def _daemon_json(info: Mapping[str, Any], wanted: Wanted) -> list[Problem]:
    path = (info["daemon_config"] or {}).get("path", "daemon.json")
    daemon = info["daemon"]
    if daemon["error"]:
        seen = _unseen(info, "daemon_config", daemon["error"])
        return [
            Problem("daemon.json", f"{path} that can be merged", seen, f"mend {path} by hand and run again")
        ]
    refused = daemon["refused"]
    if daemon["action"] == "restart" and not refused and not info["systemd"]:
        refused = "there is no systemd to restart it with"
    if not refused:
        return []
    return [
        Problem(
            "restart",
            "no restart of Docker, or one that stops no container",
            f"{'; '.join(daemon['because'])}: {refused}",
            daemon_json.instead(daemon["because"]),
        )
    ]


def _distributions(info: Mapping[str, Any]) -> Mapping[str, str]:
    return (info["environment"] or {}).get("distributions") or {}


def _toolkit_missing(info: Mapping[str, Any], wanted: Wanted) -> bool:
    return wanted.toolkit and not (info["toolkit"] or {}).get("installed")


def _missing_packages(info: Mapping[str, Any], wanted: Wanted) -> list[str]:
    """System packages to install, in one transaction."""
    packages = []
    if _toolkit_missing(info, wanted):
        packages.append(wanted.toolkit_package)
    if not (info["docker"] or {}).get("installed"):
        packages.append(wanted.docker_package)
    broken = missing_requirements(wanted.requirements, _distributions(info))
    if broken and not info["ensurepip"] and not (info["environment"] or {}).get("python"):
        packages.append("python3-venv")
    return packages
