# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The Docker engine of a host, as /proc and its socket show it. Standard library only."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from .._common.shape import Maybe
from . import daemon_flags, engine_socket
from .processes import command_line, dockerd, snap_dockerd, started
from .request import Request

DATA_ROOT = "/var/lib/docker"
CONTAINERD_ROOT, CONTAINERD_CONFIG = "/var/lib/containerd", "/etc/containerd/config.toml"
SNAP = "/snap/bin/docker"
SNAPSHOTTER = "io.containerd.snapshotter.v1"
"""The driver of an engine that keeps its images in containerd."""


VERSION = {"Version": str, "ApiVersion": str}
INFO = {
    "DockerRootDir": Maybe(str),
    "Driver": Maybe(str),
    "DriverStatus": Maybe([[str]]),
    "Containerd": Maybe({"Address": Maybe(str)}),
    "CgroupVersion": Maybe(str),
    "LiveRestoreEnabled": Maybe(bool),
    "Runtimes": Maybe(dict),
    "DefaultRuntime": Maybe(str),
    "RegistryConfig": Maybe(
        {
            "IndexConfigs": Maybe({str: {"Secure": Maybe(bool)}}),
            "Mirrors": Maybe([str]),
            "InsecureRegistryCIDRs": Maybe([str]),
        }
    ),
    "DiscoveredDevices": Maybe([{"Source": Maybe(str), "ID": str}]),
    "ServerVersion": Maybe(str),
}
_PORT = {"PrivatePort": int, "PublicPort": Maybe(int), "IP": Maybe(str), "Type": Maybe(str)}
CONTAINERS = Maybe(
    [
        {
            "Id": str,
            "Names": Maybe([str]),
            "Image": Maybe(str),
            "ImageID": Maybe(str),
            "Labels": Maybe({str: str}),
            "Ports": Maybe([_PORT]),
            "Mounts": Maybe([{"Source": Maybe(str), "Name": Maybe(str)}]),
        }
    ]
)
IMAGES = Maybe(
    [
        {
            "Id": str,
            "Size": Maybe(int),
            "SharedSize": Maybe(int),
            "RepoTags": Maybe([str]),
            "RepoDigests": Maybe([str]),
        }
    ]
)
VOLUMES = {"Volumes": Maybe([{"Name": str, "Options": Maybe({str: str})}])}
"""Shapes of the engine's answers, as far as anything here reads them."""


def look(request: Request) -> dict[str, Any]:
    """The Docker engine. Asks it only where dockerd runs: otherwise socket activation would start it."""
    pid = _pid(request)
    system = request.which("dockerd") is not None or dockerd(request) is not None
    snap = not system and (pid is not None or os.path.lexists(request.at(SNAP)))
    found: dict[str, Any] = {
        "installed": system or snap,
        "snap": snap,
        "running": pid is not None,
        "pid": pid,
        "started": None,
        "flags": [],
        "socket": request.socket,
        "version": None,
        "api_version": None,
        "data_root": None,
        "images_root": None,
        "storage_driver": None,
        "containerd_snapshotter": None,
        "cgroup_version": None,
        "live_restore": None,
        "runtimes": None,
        "default_runtime": None,
        "registry_mirrors": None,
        "insecure_registries": None,
        "cdi_devices": None,
        "images_bytes": None,
        "containers": None,
    }
    if pid is None:
        return found
    found["started"] = started(request, pid)
    found["flags"] = daemon_flags.keys(command_line(request, pid))

    found |= _asked(request)
    return found


def images_bytes(request: Request) -> int | None:
    """Bytes of the engine's images; None where no engine runs. A question of its own: for many images containerd takes many seconds."""
    if _pid(request) is None:
        return None
    images = engine_socket.get(
        str(request.at(request.socket)), "/images/json?shared-size=1", request.timeout * 0.9, IMAGES
    )
    return held(images or [])


def held(images: Iterable[Mapping[str, Any]]) -> int:
    """Least number of bytes that images hold, with shared ones counted once. An engine before API 1.42 does not report those.

    :param images: as the engine lists them
    """
    sizes = [(image.get("Size") or 0, max(0, image.get("SharedSize") or 0)) for image in images]
    alone = sum(size - shared for size, shared in sizes)
    return alone + max((shared for _size, shared in sizes), default=0)


def _pid(request: Request) -> int | None:
    pid = dockerd(request)
    return snap_dockerd(request) if pid is None else pid


def _asked(request: Request) -> dict[str, Any]:
    """What the engine says of itself. A question without an answer does not spoil the others; `silent` holds the reason."""
    seen: dict[str, Any] = {}
    silent = []
    socket, timeout = str(request.at(request.socket)), request.timeout / 4
    questions: dict[str, tuple[Any, Callable[[Any], dict[str, Any]]]] = {
        "/version": (VERSION, _version),
        "/info": (INFO, lambda info: _info(info, request.text(CONTAINERD_CONFIG) or "")),
        "/containers/json": (CONTAINERS, _containers),
    }
    for url, (expected, read) in questions.items():
        try:
            seen |= read(engine_socket.get(socket, url, timeout, expected))
        except engine_socket.EngineError as error:
            silent.append(str(error))
    return seen | ({"silent": "; ".join(silent)} if silent else {})


def _version(answer: Mapping[str, Any]) -> dict[str, Any]:
    return {"version": answer["Version"], "api_version": answer["ApiVersion"]}


def _info(info: Mapping[str, Any], containerd: str) -> dict[str, Any]:
    registries = info.get("RegistryConfig") or {}
    insecure = [
        name for name, index in (registries.get("IndexConfigs") or {}).items() if not index.get("Secure")
    ]
    devices = info.get("DiscoveredDevices") or []  # API 1.50 and later
    return {
        "data_root": info.get("DockerRootDir"),
        "images_root": images_root(info, containerd),
        "storage_driver": info.get("Driver"),
        "containerd_snapshotter": in_containerd(info),
        "cgroup_version": info.get("CgroupVersion"),
        "live_restore": bool(info.get("LiveRestoreEnabled")),
        "runtimes": sorted(info.get("Runtimes") or {}),
        "default_runtime": info.get("DefaultRuntime"),
        "registry_mirrors": registries.get("Mirrors") or [],
        "insecure_registries": sorted({*insecure, *(registries.get("InsecureRegistryCIDRs") or [])}),
        "cdi_devices": sorted(device["ID"] for device in devices if device.get("Source") == "cdi"),
    }


def release(version: str | None) -> tuple[int, int]:
    """Major and minor of an engine; (0, 0) without a version."""
    found = re.match(r"([0-9]{1,9})\.([0-9]{1,9})", version or "")
    return (int(found[1]), int(found[2])) if found else (0, 0)


def in_containerd(info: Mapping[str, Any]) -> bool:
    """Whether the engine of this /info keeps its images in containerd, instead of its own store."""
    return ["driver-type", SNAPSHOTTER] in (info.get("DriverStatus") or [])


def counts_packed_layers(info: Mapping[str, Any]) -> bool:
    """Whether `SharedSize` of an image counts all that it shares. For images in containerd, engines before 29.5 left out packed layers."""
    return not in_containerd(info) or release(info.get("ServerVersion")) >= (29, 5)


def images_root(info: Mapping[str, Any], containerd: str) -> str:
    """Where an engine keeps its images. Images in containerd are not below Docker's data root, whatever daemon.json says.

    :param info: what /info answers
    :param containerd: the text of containerd's config.toml; ignored if dockerd started containerd itself
    """
    data_root = str(info.get("DockerRootDir") or DATA_ROOT)
    return _containerd_root(info, containerd) if in_containerd(info) else data_root


def other_store(info: Mapping[str, Any], containerd: str, image: str) -> str:
    """Where the store that the engine does not use has an image; empty if that store lacks it, or if there is none.

    An engine that changed its store knows nothing of what the other one holds.

    :param info: with `containerd`, as `images_root` takes them
    :param image: by digest, as the engine lists it
    """
    if not in_containerd(info):
        blobs = f"{_containerd_root(info, containerd)}/io.containerd.content.v1.content/blobs"
        there = Path(blobs, *image.partition("@")[2].split(":")).exists()
        return _containerd_root(info, containerd) if there else ""
    for known in Path(info.get("DockerRootDir") or DATA_ROOT, "image").glob("*/repositories.json"):
        with contextlib.suppress(OSError):
            if f'"{image}"' in known.read_text(errors="replace"):
                return str(known.parents[2] / known.parent.name)
    return ""


def _containerd_root(info: Mapping[str, Any], containerd: str) -> str:
    data_root = info.get("DockerRootDir") or DATA_ROOT
    address = str((info.get("Containerd") or {}).get("Address") or "")
    if address.removeprefix("/var").startswith("/run/docker/"):
        return f"{data_root}/containerd"
    root = re.search(
        r"""^[ \t]*root[ \t]*=[ \t]*["'](/[^"']*)["']""", f"\n{containerd}".partition("\n[")[0], re.MULTILINE
    )
    return root[1] if root else CONTAINERD_ROOT


def _containers(running: Iterable[Mapping[str, Any]] | None) -> dict[str, Any]:
    return {"containers": [_container(container) for container in running or []]}


def _container(container: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "id": container["Id"],
        "name": (container.get("Names") or [container["Id"][:12]])[0].lstrip("/"),
        "image": container.get("Image"),
        "labels": container.get("Labels") or {},
        "ports": [
            {
                "port": port["PublicPort"],
                "address": port.get("IP") or "0.0.0.0",  # noqa: S104 - what the engine means by none
                "container_port": port["PrivatePort"],
                "protocol": port.get("Type", "tcp"),
            }
            for port in container.get("Ports") or []
            if port.get("PublicPort")
        ],
    }
