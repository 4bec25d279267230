# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The file of netplan for the interfaces between Sparks, and which interfaces it may never name."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .request import Request

FOLDER = "/etc/netplan"
NAME = "90-sparkfleet-fabric.yaml"
HEAD = "# Written by the role sparkfleet.vllm.fabric. Changes by hand are lost.\n"
MOST_PARENTS = 64
LARGEST = 1 << 20


class NetplanError(ValueError):
    """There will be no such file. The text tells what was expected, what was seen and what to do."""


@dataclass(frozen=True)
class Interface:
    name: str
    address: str
    """With its prefix: 192.168.100.11/24"""


def wanted(addresses: Mapping[str, object]) -> list[Interface]:
    """The interfaces by name.

    :raises NetplanError: a name or an address is none, or two share a subnet
    """
    found, networks = [], dict[ipaddress.IPv4Network, str]()
    for name, given in sorted(addresses.items()):
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,14}", str(name)):
            raise NetplanError(
                f"expected the name of an interface, seen {str(name)!r:.60}; correct fabric_addresses"
            )
        try:
            address = ipaddress.IPv4Interface(str(given))
        except ValueError:
            address = ipaddress.IPv4Interface("0.0.0.0/32")
        if not 8 <= address.network.prefixlen <= 30 or not address.ip.is_private:
            raise NetplanError(
                f"expected a private IPv4 address with its prefix for {name}, as 192.168.100.11/24, seen {str(given)!r:.60}; correct "
                "fabric_addresses"
            )
        # Of two interfaces in one subnet, the kernel sends everything by one.
        if other := next(
            (each for network, each in networks.items() if network.overlaps(address.network)), ""
        ):
            raise NetplanError(
                f"expected a subnet of its own for each interface, seen {address.network} for {other} and {name}; correct fabric_addresses"
            )
        networks[address.network] = name
        found.append(Interface(name, str(address)))
    return found


def text(interfaces: Sequence[Interface], mtu: int) -> str:
    """The content of the file; empty for no interface."""
    if not interfaces:
        return ""
    lines = ["network:", "  version: 2", "  ethernets:"]
    for each in interfaces:
        lines += [
            f"    {each.name}:",
            f"      addresses: [{each.address}]",
            "      dhcp4: false",
            "      dhcp6: false",
            f"      mtu: {mtu}",
            "      optional: true",
        ]
    return HEAD + "\n".join(lines) + "\n"


def check(interfaces: Sequence[Interface], request: Request, connection: str) -> None:
    """See that the file may be written.

    :param connection: SSH_CONNECTION of this run, empty if unknown
    :raises NetplanError: an interface is not there, has the default route or this connection, or is in another file
    """
    kept = protected(request, connection)
    for each in interfaces:
        if not request.at(f"/sys/class/net/{each.name}/device").exists():
            there = sorted(path.parent.name for path in request.root.glob("sys/class/net/*/device"))
            raise NetplanError(
                f"expected {each.name} among the interfaces with hardware, seen {', '.join(there) or 'none'}; correct fabric_addresses"
            )
        if why := kept.get(each.name):
            raise NetplanError(
                f"expected an interface that only the members of the unit use, seen {each.name}, which has {why}; name that of the cable "
                "between the Sparks in fabric_addresses"
            )
        for path in others(request):
            if re.search(rf"^[ \t]+[\"']?{re.escape(each.name)}[\"']?:", _content(path), re.MULTILINE):
                raise NetplanError(
                    f"expected {each.name} in no other file of netplan, seen it in {FOLDER}/{path.name}; netplan would join both: move it "
                    "out of that file"
                )


def others(request: Request) -> list[Path]:
    return [path for path in sorted(request.at(FOLDER).glob("*.yaml")) if path.name != NAME]


def protected(request: Request, connection: str) -> dict[str, str]:
    """Interfaces that stay as they are, each with what it has."""
    found = {}
    for line in (request.text("/proc/net/route") or "").splitlines()[1:]:
        fields = line.split()
        if len(fields) > 7 and fields[1] == fields[7] == "00000000":
            found[fields[0]] = "the default route"
    for line in (request.text("/proc/net/ipv6_route") or "").splitlines():
        fields = line.split()
        if len(fields) > 9 and fields[0] == "0" * 32 and fields[1] == "00" and fields[9] != "lo":
            found[fields[9]] = "the default route"
    own = (connection.split() + [""] * 4)[2]
    return found | {
        name: "this connection" for name, address in request.addresses().items() if address == own
    }


def connection_of(request: Request, process: int) -> str:
    """SSH_CONNECTION of a process or of one that started it: sudo does not hand it on. Empty if none has it."""
    for _each in range(MOST_PARENTS):
        environment = _content(request.at(f"/proc/{process}/environ")).split("\0")
        for entry in environment:
            if entry.startswith("SSH_CONNECTION="):
                return entry.partition("=")[2]
        found = re.search(
            r"^PPid:\t([0-9]{1,9})$", _content(request.at(f"/proc/{process}/status")), re.MULTILINE
        )
        if not found or found[1] in ("0", "1"):
            return ""
        process = int(found[1])
    return ""


def _content(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(LARGEST).decode(errors="replace")
    except OSError:
        return ""
