# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who is in the unit of a host, in order of rank, and where the others find it. Pure.

A unit is several Sparks that serve one model together. The inventory names it, and the order of its hosts gives the rank. The first
one is the head, which has the API.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence
from typing import Any

from .derive import network

NAMES = ("spark_unit", "spark_unit_interface", "spark_interface", "spark_fabric")
"""The variables of a host that are read here."""


class UnitError(ValueError):
    """Inventory, recipe and hosts do not make a unit. The text tells what was expected, what was seen and what to do."""


def member(
    host: str, hosts: Mapping[str, Mapping[str, Any]], nodes: int, played: Sequence[str], supervisor: str
) -> dict[str, Any]:
    """What a host is in its unit; empty for a unit of one.

    :param hosts: those that may be in a unit, in order of rank, each with the variables of `NAMES` that it has. C(spark_fabric) is
        ``{interfaces: {name: {address, …}}, rdma: [{device, port, interface, state, gid_index, …}], …}``
    :param nodes: of the recipe's topology
    :param played: hosts of the play
    :param supervisor: path on the host of the program that runs its server
    :returns: ``{name, rank, nodes, members: [{host, address, interface}] in order of rank, environment: {variable: text} of this host,
        supervisor}``
    :raises UnitError: the unit is of another size or in part out of the play, or a member has no address of its own
    """
    if nodes == 1:
        return {}
    name = _name(host, hosts, nodes)
    names = [each for each, known in hosts.items() if known.get("spark_unit") == name]
    if len(names) != nodes:
        raise UnitError(
            f"expected {nodes} Sparks in the unit {name} (topology.nodes of the recipe), seen {len(names)}: {', '.join(names)}; correct "
            "spark_unit in the inventory, or serve a recipe for that many"
        )
    if missing := [each for each in names if each not in played]:
        raise UnitError(
            f"expected all members of the unit {name} in this run, seen none of {', '.join(missing)}; a unit changes as one: name all "
            "its hosts in --limit, or none"
        )
    members = [_place(each, hosts[each]) for each in names]
    found: dict[str, str] = {}
    for each in members:
        if other := found.get(each["address"]):
            raise UnitError(
                f"expected an address of its own for each member of the unit {name}, seen {each['address']} on {other} and "
                f"{each['host']}; correct the network, or spark_unit_interface"
            )
        found[each["address"]] = each["host"]
    rank = names.index(host)
    return {
        "name": name,
        "rank": rank,
        "nodes": nodes,
        "members": members,
        "environment": network(hosts[host]["spark_fabric"], **members[rank]),
        "supervisor": supervisor,
    }


def _name(host: str, hosts: Mapping[str, Mapping[str, Any]], nodes: int) -> str:
    if host not in hosts:
        raise UnitError(
            f"expected {host} among the hosts that may be in a unit ({', '.join(hosts) or 'none'}), seen it elsewhere; put it into the "
            "group sparks, or into vllm_serve_unit_hosts"
        )
    name = hosts[host].get("spark_unit") or ""
    if not name:
        raise UnitError(
            f"expected {host} in a unit of {nodes} Sparks, which the recipe is for (topology.nodes), seen it in none; set spark_unit in "
            "the inventory, or serve a recipe for one Spark"
        )
    if not isinstance(name, str) or not re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", name):
        raise UnitError(
            f"expected spark_unit of {host} to be a name of up to 63 small letters, digits and '-', seen {name!r:.80}; rename the unit"
        )
    return name


def _place(host: str, known: Mapping[str, Any]) -> dict[str, str]:
    """``{host, address, interface}``"""
    interface = known.get("spark_unit_interface") or known.get("spark_interface") or ""
    if not interface:
        raise UnitError(
            f"expected the interface by which {host} reaches the other members of its unit, seen none; set spark_unit_interface in the "
            "inventory, or spark_interface"
        )
    fabric = known.get("spark_fabric") or {}
    if not fabric:
        raise UnitError(
            f"expected to know the network of {host} (spark_fabric), seen nothing of it: it failed earlier in this run, or nobody "
            "looked; see its own failure, or let the role prerequisites run before this one"
        )
    interfaces = fabric.get("interfaces") or {}
    address = (interfaces.get(interface) or {}).get("address")
    try:
        address = str(ipaddress.IPv4Address(address))
    except ValueError:
        there = ", ".join(
            f"{name} {one['address']}" for name, one in interfaces.items() if one.get("address")
        )
        raise UnitError(
            f"expected an IPv4 address of {host} on {interface}, by which the others of its unit reach it, seen none there and "
            f"{there or 'none elsewhere'}; correct spark_unit_interface, or give the interface its address"
        ) from None
    return {"host": host, "address": address, "interface": interface}
