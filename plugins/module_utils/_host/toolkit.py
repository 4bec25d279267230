# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""nvidia-container-toolkit on a host, and what the engine can do with it. Standard library only."""

from __future__ import annotations

import contextlib
import gzip
import re
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

from .engine import release
from .processes import environment_of
from .request import PATH, Request

# When dockerd starts, it registers what serves `--gpus`, by what its PATH holds then.
HOOK = "nvidia-container-runtime-hook"
CDI_HOOK = "nvidia-cdi-hook"
# Before this engine a CDI device is for `--device` alone (moby 50228), and `--gpus` asks the hook.
CDI_SINCE = (29, 2)
CONFIG = "/etc/nvidia-container-runtime/config.toml"
HOOK_MODES = ("auto", "legacy")
TOOLKIT = "nvidia-container-toolkit"
# Two clocks are compared, seconds since boot and file times. They agree no better than this.
CLOCK_SLACK = 1.0


def look(request: Request, docker: Mapping[str, Any]) -> dict[str, Any]:
    """nvidia-container-toolkit, and whether the engine that runs now can give a GPU to `--gpus`.

    `unseen`: it could after a restart, because dockerd looks for the hooks only at its start.
    """
    path = environment_of(request, docker["pid"]).get("PATH", PATH) if docker.get("pid") else PATH
    hook, cdi_hook = request.which(HOOK, path), request.which(CDI_HOOK, path)
    version = _package_version(request, TOOLKIT)
    cdi = any(device.startswith("nvidia.com/gpu") for device in docker.get("cdi_devices") or [])
    mode = _mode(request)
    # For the containers that it runs, the nvidia runtime replaces the hook in every mode.
    serve = [hook] if mode in HOOK_MODES or docker.get("default_runtime") == "nvidia" else []
    if cdi and release(docker.get("version")) >= CDI_SINCE:
        serve.append(cdi_hook)
    there = [one for one in serve if one]
    upgraded = bool(there) and _upgraded(request, TOOLKIT)
    started = docker.get("started")
    seen = [one for one in there if upgraded or started is None or not _newer(request, one, started)]
    running = bool(docker.get("running"))
    return {
        "installed": version is not None or hook is not None or cdi,
        "version": version,
        "hook": hook,
        "cdi_hook": cdi_hook,
        "mode": mode,
        "runtime": "nvidia" in (docker.get("runtimes") or []),
        "cdi": cdi,
        "unseen": bool(there) and not seen,
        "usable": running and bool(seen),
    }


def _mode(request: Request) -> str:
    """How the toolkit gives out GPUs. Unless its mode detection is skipped, the hook fails in every mode but its own."""
    sections = re.split(r"^[ \t]*\[([^\]\n]+)\][^\n]*$", request.text(CONFIG) or "", flags=re.MULTILINE)
    of = dict(zip(sections[1::2], sections[2::2], strict=True))
    if re.search(r"^[ \t]*skip-mode-detection[ \t]*=[ \t]*true\b", of.get(HOOK, ""), re.MULTILINE):
        return "legacy"
    found = re.findall(
        r"^[ \t]*mode[ \t]*=[ \t]*[\"']([\w-]+)[\"']", of.get("nvidia-container-runtime", ""), re.MULTILINE
    )
    return found[-1] if found else "auto"


def _newer(request: Request, path: str, than: float) -> bool:
    return _changed(request, path) > than + CLOCK_SLACK


def _package_version(request: Request, package: str) -> str | None:
    status = request.text("/var/lib/dpkg/status") or ""
    for paragraph in re.split(r"\n\s*\n", status):
        if re.match(rf"Package: {re.escape(package)}\n", paragraph):
            fields = dict(re.findall(r"^(Status|Version): (.*)$", paragraph, re.MULTILINE))
            return fields.get("Version") if fields.get("Status", "").endswith(" installed") else None
    return None


def _changed(request: Request, path: str) -> float:
    """When a file came to be here. Its modification time does not tell: packages keep that of their build."""
    return request.at(path).stat().st_ctime


def _upgraded(request: Request, package: str) -> bool:
    """True if dpkg last upgraded the package: an older one was there already, so new files prove nothing."""
    for text in _dpkg_logs(request):
        done = re.findall(rf"^\S+ \S+ (install|upgrade) {re.escape(package)}[: ]", text, re.MULTILINE)
        if done:
            return bool(done[-1] == "upgrade")
    return False


def _dpkg_logs(request: Request) -> Iterator[str]:
    """The texts of dpkg's log and of the rotated ones, newest first. The older ones are packed."""
    rotated = {
        int(found[1]): path
        for path in request.at("/var/log").glob("dpkg.log.*")
        if (found := re.fullmatch(r"dpkg\.log\.(\d+)(\.gz)?", path.name))
    }
    yield request.text("/var/log/dpkg.log") or ""
    for _number, path in sorted(rotated.items()):
        # A log that is cut off or damaged says nothing of the package.
        with contextlib.suppress(OSError, EOFError, zlib.error):
            packed = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
            yield packed.decode(errors="replace")
