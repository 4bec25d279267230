# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The IPv4 address by which a host reaches the others of its fleet. Linux, standard library, sends no packet."""

from __future__ import annotations

import ipaddress
import socket

from .._common.addresses import addresses

SOMEWHERE = "192.0.2.1"
"""TEST-NET-1 (RFC 5737): the default route leads to it, and nobody has it."""


class AddressError(ValueError):
    """The host does not have the wanted address; the text says which it has."""


def find(interface: str | None = None, address: str | None = None) -> str:
    """The address asked for, or that of the interface asked for, or the source address of the default route.

    Without a default route, the host's only address. Empty if none was asked for and several are possible, or none is.

    :raises AddressError: the host does not have what was asked for
    """
    if address:
        return _own(address)
    if interface:
        return _of(interface)
    return _of_default_route() or _only()


def _own(address: str) -> str:
    try:
        ipaddress.IPv4Address(address)
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as trying:
            trying.bind((address, 0))
    except (ValueError, OSError):
        raise AddressError(
            f"address: expected an IPv4 address of this host, seen {address} where it has {_all()}; correct the option"
        ) from None
    return address


def _of(interface: str) -> str:
    if address := addresses().get(interface):
        return address
    raise AddressError(
        f"interface: expected an interface of this host with an IPv4 address, seen {interface} where it has {_all()}; "
        "correct the option, or configure the interface"
    )


def _of_default_route() -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        try:
            asking.connect((SOMEWHERE, 9))  # on a datagram socket, this looks the route up and sends nothing
        except OSError:
            return ""
        return str(asking.getsockname()[0])


def _only() -> str:
    usable = [address for address in addresses().values() if not ipaddress.IPv4Address(address).is_loopback]
    return usable[0] if len(usable) == 1 else ""


def _all() -> str:
    return ", ".join(f"{name} {address}" for name, address in addresses().items()) or "none"
