# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""nvidia-container-toolkit on a host, and what the engine can do with it. Standard library only."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from .processes import environment_of
from .request import PATH, Request

# dockerd registers the GPU driver behind `--gpus` when it starts and finds this on its PATH.
HOOK = "nvidia-container-runtime-hook"
TOOLKIT = "nvidia-container-toolkit"
# Two clocks are compared (seconds since boot, file times): finer than this they do not agree.
CLOCK_SLACK = 1.0


def look(request: Request, docker: Mapping[str, Any]) -> dict[str, Any]:
    """nvidia-container-toolkit, and whether the engine that runs now can use it.

    `unseen`: it was installed after dockerd started, which looks for the hook only then.
    """
    path = PATH
    started = docker.get("started")
    if docker.get("pid"):
        path = environment_of(request, docker["pid"]).get("PATH", PATH)
    hook = request.which(HOOK, path)
    version = _package_version(request, TOOLKIT)
    cdi = any(device.startswith("nvidia.com/gpu") for device in docker.get("cdi_devices") or [])
    newer = hook is not None and started is not None and _changed(request, hook) > started + CLOCK_SLACK
    newer = newer and not _upgraded(request, TOOLKIT)
    return {
        "installed": version is not None or hook is not None or cdi,
        "version": version,
        "hook": hook,
        "runtime": "nvidia" in (docker.get("runtimes") or []),
        "cdi": cdi,
        "unseen": newer and not cdi,
        "usable": bool(docker.get("running")) and (cdi or (hook is not None and not newer)),
    }


def _package_version(request: Request, package: str) -> str | None:
    status = request.text("/var/lib/dpkg/status") or ""
    for paragraph in re.split(r"\n\s*\n", status):
        if re.match(rf"Package: {re.escape(package)}\n", paragraph):
            fields = dict(re.findall(r"^(Status|Version): (.*)$", paragraph, re.MULTILINE))
            return fields.get("Version") if fields.get("Status", "").endswith(" installed") else None
    return None


def _changed(request: Request, path: str) -> float:
    """When a file came to be here: packages keep the time of their build as its modification time."""
    return request.at(path).stat().st_ctime


def _upgraded(request: Request, package: str) -> bool:
    """True if dpkg last upgraded the package: an older one was there already, and new files prove nothing."""
    for log in ("/var/log/dpkg.log", "/var/log/dpkg.log.1"):
        text = request.text(log) or ""
        done = re.findall(rf"^\S+ \S+ (install|upgrade) {re.escape(package)}[: ]", text, re.MULTILINE)
        if done:
            return bool(done[-1] == "upgrade")
    return False
