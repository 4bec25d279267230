# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The network between Sparks, as the kernel shows it in sysfs: interfaces, their RDMA devices, the PCIe link below them.

No process is started and no packet sent. What a file does not say, or says in another form, is null.
"""

from __future__ import annotations

import contextlib
import ipaddress
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .request import Request

NET = "/sys/class/net"
RDMA = "/sys/class/infiniband"
KERNEL = "/proc/sys/kernel/osrelease"
BIOS = "/sys/class/dmi/id/bios_date"
MOST_INTERFACES = 64
MOST_DEVICES = 16
MOST_PORTS = 4
MOST_GIDS = 256
LONGEST = 256
"""Bytes of a file of sysfs that says one thing."""
ROCE_V2 = "RoCE v2"


def look(request: Request) -> dict[str, Any]:
    """``{interfaces, rdma, kernel, bios}``, as RETURN of spark_info has them."""
    own = request.addresses()
    return {
        "interfaces": {path.name: _interface(path, own.get(path.name)) for path in _interfaces(request, own)},
        "rdma": [
            found for device in _folders(request.at(RDMA), MOST_DEVICES) for found in _ports(device, own)
        ],
        "kernel": _said(request.at(KERNEL)),
        "bios": _date(_said(request.at(BIOS))),
    }


def _interfaces(request: Request, own: dict[str, str]) -> list[Path]:
    """Those with hardware below them, and others that have an address. Not the loopback, nor what only joins containers."""
    there = [path for path in _folders(request.at(NET)) if path.name != "lo"]
    hardware = [path for path in there if (path / "device").exists()]
    others = [path for path in there if path.name in own and path not in hardware]
    return [*hardware, *others][:MOST_INTERFACES]


def _interface(path: Path, address: str | None) -> dict[str, Any]:
    speed = _number(path / "speed")
    # The kernel refuses to tell the carrier of an interface that is switched off.
    return {
        "address": address,
        "mtu": _number(path / "mtu"),
        "up": _said(path / "carrier") == "1",
        "speed": speed if speed and speed > 0 else None,
        "driver": _driver(path),
        "link": _link(path / "device"),
    }


def _driver(path: Path) -> str | None:
    link = path / "device/driver"
    return link.resolve().name[:64] if link.exists() else None


def _link(device: Path) -> dict[str, Any] | None:
    """The PCIe link of a device: lanes and GT/s, as they are and as they could be; None for a device of another bus."""
    found = {
        "width": _number(device / "current_link_width"),
        "max_width": _number(device / "max_link_width"),
        "speed": _rate(device / "current_link_speed"),
        "max_speed": _rate(device / "max_link_speed"),
    }
    return found if found["width"] else None


def _ports(device: Path, own: dict[str, str]) -> Iterator[dict[str, Any]]:
    for port in _folders(device / "ports", MOST_PORTS):
        if not re.fullmatch(r"[0-9]{1,3}", port.name):
            continue
        interface = _of_port(device, port)
        yield {
            "device": device.name,
            "port": int(port.name),
            "interface": interface,
            "state": _state(port),
            "rate": _rate(port / "rate"),
            "gid_index": _gid_index(port, interface, own.get(interface or "")),
        }


def _of_port(device: Path, port: Path) -> str | None:
    """The interface of a RoCE port: its table of addresses names it, else the folder of the device does if there is one."""
    named = _said(port / "gid_attrs/ndevs/0")
    if named and _is_name(named):
        return named
    below = _folders(device / "device/net", 2)
    return below[0].name if len(below) == 1 else None


def _state(port: Path) -> str | None:
    """ACTIVE, DOWN, INIT, …: the kernel writes a number before it."""
    found = re.fullmatch(r"[0-9]{1,2}: ([A-Z_]{1,32})", _said(port / "state") or "")
    return found[1] if found else None


def _gid_index(port: Path, interface: str | None, address: str | None) -> int | None:
    """Where the table of a port has RoCE v2 over IPv4: for the address of the interface if it is there, else for any IPv4 of it.

    The place differs from host to host, as addresses come and go: it is found, never assumed.
    """
    other = None
    for index in range(MOST_GIDS):
        if (ipv4 := _ipv4(_said(port / f"gids/{index}"))) is None:
            continue
        if _said(port / f"gid_attrs/types/{index}") != ROCE_V2:
            continue
        if _said(port / f"gid_attrs/ndevs/{index}") != interface:
            continue
        if ipv4 == address:
            return index
        other = index if other is None else other
    return other


def _ipv4(gid: str | None) -> str | None:
    if not gid or not re.fullmatch(r"(?:[0-9a-f]{4}:){7}[0-9a-f]{4}", gid):
        return None
    mapped = ipaddress.IPv6Address(gid).ipv4_mapped
    return str(mapped) if mapped else None


def _date(text: str | None) -> str | None:
    """The date of a BIOS, month/day/year in SMBIOS, as year-month-day."""
    found = re.fullmatch(r"([0-9]{2})/([0-9]{2})/([0-9]{4})", text or "")
    return f"{found[3]}-{found[1]}-{found[2]}" if found else None


def _folders(path: Path, most: int = 4096) -> list[Path]:
    try:
        return sorted(each for each in path.iterdir() if _is_name(each.name))[:most]
    except OSError:
        return []


def _is_name(text: str) -> bool:
    return bool(re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.@:-]{0,63}", text))


def _number(path: Path) -> int | None:
    text = _said(path) or ""
    return int(text) if re.fullmatch(r"-?[0-9]{1,9}", text) else None


def _rate(path: Path) -> float | None:
    """The number before the unit: Gb/s of a port (``200 Gb/sec (4X HDR)``), GT/s of a link (``32.0 GT/s PCIe``)."""
    found = re.match(r"([0-9]{1,5}(?:\.[0-9]{1,3})?) G[bT]", _said(path) or "")
    return float(found[1]) if found else None


def _said(path: Path) -> str | None:
    """The one line of a file. None if it is not there, does not answer, or holds anything else."""
    with contextlib.suppress(OSError), path.open("rb") as file:
        text = file.read(LONGEST + 1).decode("ascii", "replace").strip()
        if text and len(text) <= LONGEST and text.isascii() and text.isprintable():
            return text
    return None
