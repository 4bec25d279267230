# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The kernel's table of the ports of a unit: read, and changed all at once. And the range of ports that the kernel gives away."""

from __future__ import annotations

from pathlib import Path

from . import unit_guard
from .request import CommandAbsentError, ProbeError, run_command

SECONDS = 30
PORT_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
"""Of IPv4 and IPv6."""


class NftError(Exception):
    """A program that is not there or refuses; says what was expected, what was seen, and what to do."""


class NftAbsentError(NftError):
    """The program is not there."""


def look() -> tuple[str, ...]:
    """The rules as :func:`unit_guard.read` shows them; empty without a table.

    :raises NftError: they cannot be read
    """
    try:
        there = unit_guard.there(_run("-j", "list", "tables", unit_guard.FAMILY))
        return unit_guard.read(_run("-j", "list", "table", *unit_guard.TABLE.split())) if there else ()
    except unit_guard.TableError as error:
        raise NftError(str(error)) from None


def load(transaction: str, *, test: bool = False) -> None:
    """Make the changes, all or none. With `test`, only see whether they could be made.

    :raises NftError: they cannot be made, and none was
    """
    _run(*(["-c"] if test else []), "-f", "-", given=transaction)


def port_range() -> unit_guard.Interval:
    """The ports that the kernel gives to sockets that name none.

    :raises NftError: they cannot be read
    """
    try:
        with PORT_RANGE.open() as file:
            text = file.read(100)
        first, last = map(int, text.split())
    except (OSError, ValueError) as error:
        raise NftError(f"{_RANGE}, seen: {error}; do: sysctl net.ipv4.ip_local_port_range") from None
    if not 0 < first <= last < 65536:
        raise NftError(f"{_RANGE}, seen: {text.strip()}; do: sysctl net.ipv4.ip_local_port_range")
    return first, last


_RANGE = f"expected two ports in {PORT_RANGE}"


def _run(*options: str, given: str = "") -> str:
    try:
        return run_command(["nft", *options], SECONDS, given)
    except CommandAbsentError:
        raise NftAbsentError(
            "expected nft, which keeps the ports of a unit for its members, seen none; do: install the package nftables, and run again"
        ) from None
    except ProbeError as error:
        raise NftError(
            f"expected nft to do its work, seen: {error}; do: nft list ruleset, and see whether the kernel has nf_tables and nf_conntrack"
        ) from None
