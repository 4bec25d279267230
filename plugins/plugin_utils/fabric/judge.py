# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Judges the network of a unit's members from what the probes saw: known traps, before anything is measured. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

JUMBO = 9000
BROKEN_KERNELS = {
    "7.0.0-1019-nvidia": "reg_mr of RDMA fails with ENOMEM (github.com/eugr/spark-vllm-docker issue 392)"
}
"""{release: what it breaks}"""
LANES_SINCE = "2026-04"
"""Month of the first BIOS that trains all lanes below the adapter."""


@dataclass(frozen=True)
class Finding:
    """One trap. One that refuses makes RDMA, or the unit, fail; another makes it slower or fragile."""

    host: str
    check: str
    expected: str
    seen: str
    do: str
    refuses: bool = False


def judge(members: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The findings about the members of one unit, as mappings of :class:`Finding`.

    :param members: ``{host, interface, fabric}``, `fabric` as spark_info returns it; empty for a host that could not be looked at
    """
    found = [finding for member in members for finding in _of(member)]
    return [asdict(finding) for finding in [*found, *_between(members)]]


def twins(interface: str, interfaces: Mapping[str, Any]) -> list[str]:
    """The interface, and the other one of the same port of the adapter: it is there twice, in two PCI domains."""
    return [name for name in interfaces if name == interface or _port(name) == _port(interface)]


def devices(interface: str, fabric: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The RDMA ports of an interface and of its twin."""
    names = twins(interface, fabric.get("interfaces") or {})
    return [port for port in fabric.get("rdma") or [] if port["interface"] in names]


def _port(name: str) -> str:
    """A name without its PCI domain: enP2p1s0f0np0 and enp1s0f0np0 are one port."""
    return re.sub(r"^enP[0-9]{1,5}p", "enp", name)


def _of(member: Mapping[str, Any]) -> Iterator[Finding]:
    host, name, fabric = member["host"], member["interface"], member["fabric"]
    interfaces = fabric.get("interfaces") or {}
    if name not in interfaces:
        there = ", ".join(interfaces) or "none"
        yield Finding(
            host, "interface", f"the interface {name or 'of the unit'}", there, "correct spark_unit_interface", True
        )  # fmt: skip
        return
    rdma = devices(name, fabric)
    if rdma and (why := BROKEN_KERNELS.get(fabric.get("kernel") or "")):
        yield Finding(
            host, "kernel", "a kernel that registers memory for RDMA", f"{fabric['kernel']}: {why}",
            "boot another kernel of the distribution", True,
        )  # fmt: skip
    for each in twins(name, interfaces):
        yield from _interface(host, each, each == name, interfaces[each], fabric.get("bios"))
    yield from _rdma(host, rdma)


def _interface(
    host: str, name: str, main: bool, seen: Mapping[str, Any], bios: str | None
) -> Iterator[Finding]:
    if not seen["up"]:
        what, do = f"{name} up", "see the cable, and ip link"
        yield Finding(
            host, "interface" if main else "twin", what, "down", do if main else f"ip link set {name} up", main
        )  # fmt: skip
        return
    if seen["mtu"] is not None and seen["mtu"] < JUMBO and seen["driver"] is not None:
        do = f"set MTU {JUMBO} on all members and on the switch (role fabric, entry point netplan)"
        yield Finding(host, "mtu", f"MTU {JUMBO} on {name}", str(seen["mtu"]), do)
    if not main and not seen["address"]:
        do = "give the twin an address in a subnet of its own (role fabric, entry point netplan)"
        yield Finding(host, "twin", f"an IPv4 address on {name}", "none", do)
    link = seen["link"] or {}
    if link.get("width") and link.get("max_width") and link["width"] < link["max_width"]:
        yield Finding(
            host, "lanes", f"{link['max_width']} PCIe lanes below {name}",
            f"{link['width']}, BIOS of {bios or 'an unknown date'}",
            f"update the BIOS to one of {LANES_SINCE} or later (fwupdmgr), and switch the Spark off and on",
        )  # fmt: skip


def _rdma(host: str, ports: Sequence[Mapping[str, Any]]) -> Iterator[Finding]:
    for port in ports:
        name = f"{port['device']} port {port['port']}"
        if port["state"] != "ACTIVE":
            yield Finding(
                host, "rdma", f"{name} ACTIVE", str(port["state"] or "unknown"), f"bring {port['interface']} up"
            )  # fmt: skip
        elif port["gid_index"] is None:
            do = f"give {port['interface']} an IPv4 address"
            yield Finding(host, "rdma", f"RoCE v2 over IPv4 in the table of {name}", "none", do)


def _between(members: Sequence[Mapping[str, Any]]) -> Iterator[Finding]:
    """What differs from the first member that was seen."""
    seen = [member for member in members if member["interface"] in (member["fabric"].get("interfaces") or {})]
    for member in seen[1:]:
        first, host = seen[0], member["host"]
        if _port(member["interface"]) != _port(first["interface"]):
            do = "use the same port on each member, or see that no variable names an interface for all"
            expected = f"the port of {first['host']}, {first['interface']}"
            yield Finding(host, "port", expected, member["interface"], do)
        mtus = [each["fabric"]["interfaces"][each["interface"]]["mtu"] for each in (first, member)]
        if None not in mtus and mtus[0] != mtus[1]:
            yield Finding(
                host, "mtu", f"MTU {mtus[0]}, as on {first['host']}", str(mtus[1]), "set one MTU on all members", True
            )  # fmt: skip
        counts = [len(devices(each["interface"], each["fabric"])) for each in (first, member)]
        if counts[0] != counts[1]:
            do = "compare ls /sys/class/infiniband and the drivers of both"
            expected = f"{counts[0]} RDMA ports, as {first['host']} has"
            yield Finding(host, "rdma", expected, str(counts[1]), do)
