# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an engine says of one container and of one image (`docker inspect`), as far as this collection reads it: shapes, and the same
values as options of community.docker.docker_container."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .shape import Maybe, wrong

_TEXTS, _FLAG, _NUMBER = Maybe([str]), Maybe(bool), Maybe(int)
CONTAINER = {
    "Id": str,
    "Name": Maybe(str),
    "Image": str,
    "Path": Maybe(str),
    "Args": _TEXTS,
    "RestartCount": _NUMBER,
    "State": {
        "Status": str,
        "StartedAt": str,
        "FinishedAt": Maybe(str),
        "Pid": _NUMBER,
        "ExitCode": _NUMBER,
        "OOMKilled": _FLAG,
        "Error": Maybe(str),
    },
    "Config": {
        "Image": str,
        "Cmd": _TEXTS,
        "Entrypoint": _TEXTS,
        "Env": _TEXTS,
        "Labels": Maybe({str: str}),
        "User": Maybe(str),
    },
    "HostConfig": {
        "PortBindings": Maybe({str: Maybe([{"HostIp": Maybe(str), "HostPort": Maybe(str)}])}),
        "PublishAllPorts": _FLAG,
        "RestartPolicy": Maybe({"Name": Maybe(str), "MaximumRetryCount": _NUMBER}),
        "LogConfig": Maybe({"Type": Maybe(str), "Config": Maybe({str: str})}),
        "Privileged": _FLAG,
        "CapDrop": _TEXTS,
        "CapAdd": _TEXTS,
        "SecurityOpt": _TEXTS,
        "NetworkMode": Maybe(str),
        "IpcMode": Maybe(str),
        "PidMode": Maybe(str),
        "Devices": Maybe(
            [{"PathOnHost": Maybe(str), "PathInContainer": Maybe(str), "CgroupPermissions": Maybe(str)}]
        ),
        "Ulimits": Maybe([{"Name": Maybe(str), "Soft": _NUMBER, "Hard": _NUMBER}]),
        "DeviceRequests": Maybe([{"Capabilities": Maybe([[str]]), "DeviceIDs": _TEXTS}]),
        "Runtime": Maybe(str),
        "AutoRemove": _FLAG,
        "Memory": _NUMBER,
        "NanoCpus": _NUMBER,
        "CpuQuota": _NUMBER,
        "CpusetCpus": Maybe(str),
        "PidsLimit": _NUMBER,
        "ShmSize": _NUMBER,
    },
    "Mounts": Maybe(
        [
            {
                "Type": Maybe(str),
                "Source": Maybe(str),
                "Name": Maybe(str),
                "Destination": str,
                "RW": _FLAG,
            }
        ]
    ),
    "NetworkSettings": Maybe({"Networks": Maybe(dict)}),
}
IMAGE = {
    "Id": str,
    "RepoDigests": _TEXTS,
    "Config": Maybe({"Entrypoint": _TEXTS, "Env": _TEXTS, "Volumes": Maybe(dict), "User": Maybe(str)}),
}


def unfit(name: str, data: Any, expected: Any) -> str:
    """Why an answer about `name` cannot be used, in words; empty for a good one."""
    said = wrong(data, expected)
    return f"what the engine says of {name} has another form: {said}" if said else ""


def device(seen: Mapping[str, Any]) -> str:
    """A device of a container as docker_container takes it."""
    host = seen.get("PathOnHost")
    return f"{host}:{seen.get('PathInContainer') or host}:{seen.get('CgroupPermissions') or 'rwm'}"


def ulimit(seen: Mapping[str, Any]) -> str:
    """A limit of a container's processes as docker_container takes it."""
    return f"{seen.get('Name')}:{seen.get('Soft')}:{seen.get('Hard')}"
