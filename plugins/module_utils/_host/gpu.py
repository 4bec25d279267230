# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The GPU of a host, as its files and nvidia-smi show it. Standard library only."""

from __future__ import annotations

import re
from typing import Any

from .request import CommandAbsentError, ProbeError, Request

GB10 = ("0x10de", "0x2e12")
MODULE = "/sys/module/nvidia/version"
# Through this library nvidia-smi and the toolkit talk to the kernel. In Debian's folders it is a link to a file with a version.
LIBRARY = "usr/lib/*-linux-gnu/libnvidia-ml.so.1"


def gb10(request: Request) -> dict[str, Any]:
    """Whether there is a GB10, by any of three witnesses: OEM boards differ in their DMI, containers hide the PCI bus."""
    pci = sorted(
        device.name
        for device in request.at("/sys/bus/pci/devices").glob("*")
        if tuple(
            (request.text(str(device.relative_to(request.root) / part)) or "").strip()
            for part in ("vendor", "device")
        )
        == GB10
    )
    try:
        name = _nvidia_smi(request, "name")
    except ProbeError:
        name = None
    product = (request.text("/sys/class/dmi/id/product_name") or "").strip() or None
    named = re.search(r"\bGB10\b", name or "") or re.search(
        r"\bGB10\b|DGX[ _-]?Spark", product or "", re.IGNORECASE
    )
    return {"present": bool(pci or named), "pci": pci, "name": name, "product": product}


def driver(request: Request) -> str:
    loaded = request.text(MODULE)
    return loaded.strip() if loaded else _nvidia_smi(request, "driver_version")


def _nvidia_smi(request: Request, field: str) -> str:
    out = request.run(["nvidia-smi", f"--query-gpu={field}", "--format=csv,noheader"], request.timeout)
    lines = [line.strip() for line in out.splitlines() if line.strip()]
    if not lines:
        raise ProbeError("nvidia-smi names no GPU")
    return lines[0]


def access(request: Request) -> dict[str, Any]:
    """Whether a new container could use the GPU. A running one keeps it when the driver is replaced.

    `error` has the words of nvidia-smi, which asks as a new container does. Without nvidia-smi, the two versions tell.
    """
    loaded = (request.text(MODULE) or "").strip() or None
    found = [link.resolve().name for link in sorted(request.root.glob(LIBRARY))]
    libraries = sorted({name.partition(".so.")[2] for name in found} - {"", "1"})
    error = None
    try:
        _nvidia_smi(request, "name")
    except CommandAbsentError:
        if loaded and libraries and loaded not in libraries:
            error = f"driver/library version mismatch: {loaded} is loaded, the libraries are {', '.join(libraries)}"
    except ProbeError as failed:
        error = str(failed)
    return {"loaded": loaded, "libraries": libraries, "error": error}
