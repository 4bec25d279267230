# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the rules that keep ports of a host have in common: who may connect, what is there beside them, how it differs. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Union

Network = Union[ipaddress.IPv4Network, ipaddress.IPv6Network]  # noqa: UP007  evaluated, so ansible-test wants this form

VERSIONS = (4, 6)
"""Of IP."""
SSH = 22

_UNIT = """\
# Written by sparkfleet.vllm.{module}, of which it needs nothing at boot.
[Unit]
Description={description}
DefaultDependencies=no
After={after}
Wants=network-pre.target
Before=network-pre.target docker.service shutdown.target
Conflicts=shutdown.target

[Service]
Type=oneshot
RemainAfterExit=yes
{commands}
[Install]
WantedBy=multi-user.target
"""


class GuardError(ValueError):
    """A port or a source that no rule is made of; says what was expected, what was seen, and what to do."""

    def __init__(self, what: str, expected: str, seen: object, do: str) -> None:
        super().__init__(f"{what}: expected {expected}, seen: {seen!r:.80}; do: {do}")


def sources(given: Iterable[str]) -> dict[int, list[Network]]:
    """The networks of each version of IP, sorted, each once. An address is a network of one.

    :raises GuardError: one is none, or could not be a client's
    """
    found: dict[int, set[Network]] = {version: set() for version in VERSIONS}
    for each in given:
        network = _network(each)
        found[network.version].add(network)
    return {version: sorted(networks, key=_order) for version, networks in found.items()}


def _order(network: Network) -> tuple[int, int]:
    return int(network.network_address), network.prefixlen


def _network(given: str) -> Network:
    what, wanted = "sources", "an IP address, or a network such as 192.0.2.0/24"
    try:
        network = ipaddress.ip_network(given)
    except ValueError as error:
        if "host bits" in str(error):
            right = ipaddress.ip_network(given, strict=False)
            raise GuardError(
                what, wanted, given, f"write {right} for the network, or the address alone"
            ) from None
        raise GuardError(
            what, wanted, given, "write its address: a rule is made before any name is known"
        ) from None
    first = network.network_address
    if network.prefixlen == 0:
        raise GuardError(what, "less than every address", given, "name those that may connect")
    if "%" in given or (isinstance(first, ipaddress.IPv6Address) and first.ipv4_mapped):
        raise GuardError(what, "an address as packets have it", given, "write it without zone or mapping")
    if first.is_loopback or first.is_multicast or first.is_unspecified:
        raise GuardError(
            what,
            "an address from which another host connects",
            given,
            "write that one; what a host asks itself passes anyway",
        )
    return network


def ports(given: Iterable[int], variable: str) -> list[int]:
    """:param variable: where an operator names them
    :raises GuardError: one is no port of a server, or there is none"""
    found = sorted(set(given))
    for port in found:
        if not 0 < port < 65536 or port == SSH:
            raise GuardError("ports", "a TCP port that is not that of ssh", port, f"correct it ({variable})")
    if not found:
        raise GuardError("ports", "at least one", found, "name that of the server")
    return found


def service(module: str, description: str, commands: str, after: str = "local-fs.target") -> str:
    """The text of the unit that brings rules back at boot, before the network and Docker.

    :param commands: lines ``ExecStart=``
    """
    return _UNIT.format(module=module, description=description, commands=commands, after=after)


@dataclass(frozen=True)
class Guard:
    """All that keeps ports, as it is or as it should be."""

    rules: Mapping[Any, tuple[str, ...]]
    """Of the kernel, by table, or by version of IP; empty for none"""
    files: Mapping[Path, str] = field(default_factory=dict)
    enabled: str = ""  # the unit, as systemctl is-enabled says; empty without a unit
    active: str = ""


def differences(
    before: Guard, after: Guard, service: str, named: Callable[[Any], str]
) -> list[dict[str, str]]:
    """Each as a diff of Ansible's.

    :param named: what the key of some rules is called
    """
    found = [
        _difference(named(key), _text(before.rules[key]), _text(lines)) for key, lines in after.rules.items()
    ]
    found += [
        _difference(str(each), before.files.get(each, ""), after.files.get(each, ""))
        for each in sorted({*before.files, *after.files})
    ]
    found.append(_difference(service, _text(_state(before)), _text(_state(after))))
    return [each for each in found if each["before"] != each["after"]]


def _text(lines: Iterable[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


def _state(guard: Guard) -> list[str]:
    return [word for word in (guard.enabled, guard.active) if word]


def _difference(header: str, before: str, after: str) -> dict[str, str]:
    return {"before_header": header, "after_header": header, "before": before, "after": after}
