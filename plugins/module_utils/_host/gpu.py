# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The GPU of a host, as its files and nvidia-smi show it. Standard library only."""

from __future__ import annotations

import re
from typing import Any

from .request import ProbeError, Request

GB10 = ("0x10de", "0x2e12")


def gb10(request: Request) -> dict[str, Any]:
    """A GB10 by any of three witnesses: OEM boards differ in their DMI, containers hide the PCI bus."""
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
    loaded = request.text("/sys/module/nvidia/version")
    return loaded.strip() if loaded else _nvidia_smi(request, "driver_version")


def _nvidia_smi(request: Request, field: str) -> str:
    out = request.run(["nvidia-smi", f"--query-gpu={field}", "--format=csv,noheader"], request.timeout)
    lines = [line.strip() for line in out.splitlines() if line.strip()]
    if not lines:
        raise ProbeError("nvidia-smi names no GPU")
    return lines[0]
