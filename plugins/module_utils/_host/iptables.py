# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The kernel's packet filter rules of the table raw: read, and changed all at once."""

from __future__ import annotations

from pathlib import Path

from . import port_guard
from .request import CommandAbsentError, ProbeError, run_command

SECONDS = port_guard.WAIT + 20
IPV6 = Path("/proc/net/if_inet6")
"""Not there on a host without IPv6."""


class IptablesError(Exception):
    """A program that is not there or refuses; says what was expected, what was seen, and what to do."""


class IptablesAbsentError(IptablesError):
    """The program is not there."""


def versions() -> list[int]:
    """The versions of IP that the host speaks."""
    return [version for version in port_guard.FAMILIES if version == 4 or IPV6.exists()]


def look(version: int) -> port_guard.Table:
    """:raises IptablesError: the rules cannot be read"""
    saved = _run(f"{port_guard.FAMILIES[version]}-save", "-t", "raw")
    if "is incompatible" in saved:
        raise IptablesError(
            "expected a table raw that iptables understands, seen rules of another program in it (nft list table ip raw); "
            "do: give that program a table with another name"
        )
    return port_guard.read(saved)


def restore(version: int, transaction: str, *, test: bool = False) -> None:
    """Make the changes, all or none. With `test`, only see whether they could be made.

    :raises IptablesError: they cannot be made, and none was
    """
    options = ["--noflush", f"--wait={port_guard.WAIT}", *(["--test"] if test else [])]
    _run(f"{port_guard.FAMILIES[version]}-restore", *options, given=transaction)


def _run(program: str, *options: str, given: str = "") -> str:
    try:
        return run_command([program, *options], SECONDS, given)
    except CommandAbsentError:
        raise IptablesAbsentError(
            f"expected {program}, which Docker needs as well, seen none; do: install the package iptables, and run again"
        ) from None
    except ProbeError as error:
        raise IptablesError(
            f"expected {program} to do its work, seen: {error}; do: see whether another program holds the lock of the rules, and whether "
            "the kernel has xt_addrtype and a table raw (nf_tables, or iptable_raw and ip6table_raw)"
        ) from None
