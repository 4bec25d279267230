# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who measures what to whom, and what came of it. Pure.

Each pair of members is measured once, from the one of lower rank. The tasks let one host measure at a time, so no two measurements
share a wire.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from .judge import devices, judge

NAMES = ("spark_unit", "spark_unit_interface", "spark_interface", "spark_fabric")
"""The variables of a host that are read here."""
COLUMNS = ("unit", "from", "to", "check", "expected", "seen", "do")
TCP, RDMA = "iperf3", "ib_write_bw"
OK = "-"
INSTALL = "run with -e spark_fabric_install=true, or install it"
REFUSED, WARNED, FINE = "refused", "warned", "fine"


def units(hosts: Mapping[str, Mapping[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """``{unit: [{host, interface, address, fabric}]}``, the members in order of rank. Without hosts that are in no unit."""
    found: dict[str, list[dict[str, Any]]] = {}
    for host, known in hosts.items():
        if not (unit := known.get("spark_unit")):
            continue
        interface = known.get("spark_unit_interface") or known.get("spark_interface") or ""
        fabric = known.get("spark_fabric") or {}
        address = ((fabric.get("interfaces") or {}).get(interface) or {}).get("address")
        found.setdefault(str(unit), []).append(
            {"host": host, "interface": interface, "address": address, "fabric": fabric}
        )
    return found


def plan(hosts: Mapping[str, Mapping[str, Any]], port: int) -> dict[str, dict[str, Any]]:
    """What each host does: ``{address, interface, peers, listeners, measurements}``, as options of the module fabric_measure.

    A host without an address, or alone, has no peers.

    :param port: the first of those that are listened on
    """
    return {
        member["host"]: _turn(rank, members, port)
        for members in units(hosts).values()
        for rank, member in enumerate(members)
    } | {host: _nothing() for host, known in hosts.items() if not known.get("spark_unit")}


def _nothing() -> dict[str, Any]:
    return {"address": "", "interface": "", "peers": [], "listeners": [], "measurements": []}


def _turn(rank: int, members: Sequence[Mapping[str, Any]], port: int) -> dict[str, Any]:
    own = members[rank]
    others = [each for index, each in enumerate(members) if index != rank and each["address"]]
    if not own["address"] or not others:
        return _nothing()
    lanes = _lanes(own, port)
    return {
        "address": own["address"],
        "interface": own["interface"],
        "peers": [each["address"] for each in others],
        "listeners": lanes if any(each["address"] for each in members[:rank]) else [],
        "measurements": [
            lane | {"peer": each["address"]}
            for each in members[rank + 1 :]
            if each["address"]
            for lane in lanes[: len(_lanes(each, port))]
        ],
    }


def _lanes(member: Mapping[str, Any], port: int) -> list[dict[str, Any]]:
    """TCP, then each RDMA port that works, with a port to listen on."""
    rdma = [
        each
        for each in devices(member["interface"], member["fabric"])
        if each["state"] == "ACTIVE" and each["gid_index"] is not None
    ]
    return [
        {"tool": TCP, "port": port, "device": "", "gid_index": 0},
        *(
            {"tool": RDMA, "port": port + index, "device": each["device"], "gid_index": each["gid_index"]}
            for index, each in enumerate(rdma, 1)
        ),
    ]


def rows(
    hosts: Mapping[str, Mapping[str, Any]],
    seen: Mapping[str, Mapping[str, Any]],
    mtu: int,
    floors: Mapping[str, float],
) -> list[dict[str, Any]]:
    """The table, with `verdict` beside the columns: :data:`REFUSED`, :data:`WARNED` or :data:`FINE`.

    :param seen: by host, what fabric_measure returned: `reached`, `silent` and `measured`; `failure` of a host that could not be looked at
    :param mtu: that must pass in one piece
    :param floors: Gb/s by tool
    """
    found: list[dict[str, Any]] = []
    for unit, members in units(hosts).items():
        names = {each["address"]: each["host"] for each in members if each["address"]}
        # A host that could not be looked at has its reason in a row of its own.
        looked_at = [each for each in members if each["fabric"] or not _failed(seen, each["host"])]
        found += [_trap(unit, finding) for finding in judge(looked_at)]
        for each in members:
            part = seen.get(each["host"]) or {}
            told = [*_failures(part), *_silent(part), *_reached(part, names, mtu)]
            told += _measured(part, names, floors)
            found += [_row(unit, each["host"], **row) for row in told]
        if len(members) == 1:
            do = "give spark_unit to two hosts or more"
            found.append(_row(unit, members[0]["host"], OK, "members", "two or more", "one", do, REFUSED))
    return found


def _failed(seen: Mapping[str, Mapping[str, Any]], host: str) -> bool:
    return bool((seen.get(host) or {}).get("failure"))


def _row(
    unit: str, host: str, to: str, check: str, expected: str, seen: str, do: str, verdict: str
) -> dict[str, Any]:
    row = dict(zip(COLUMNS, (unit, host, to, check, expected, seen, do), strict=True))
    return row | {"verdict": verdict}


def _trap(unit: str, finding: Mapping[str, Any]) -> dict[str, Any]:
    host, check, expected, seen, do = (finding[key] for key in ("host", "check", "expected", "seen", "do"))
    return _row(unit, host, OK, check, expected, seen, do, REFUSED if finding["refuses"] else WARNED)


def _failures(part: Mapping[str, Any]) -> Iterator[dict[str, str]]:
    if part.get("failure"):
        yield {
            "to": OK, "check": "look", "expected": "an answer", "seen": part["failure"],
            "do": "mend what it says, and run again", "verdict": REFUSED,
        }  # fmt: skip


def _silent(part: Mapping[str, Any]) -> Iterator[dict[str, str]]:
    for port, problem in (part.get("silent") or {}).items():
        yield {
            "to": OK, "check": "listen", "expected": f"a server at port {port}", "seen": problem,
            "do": INSTALL, "verdict": WARNED,
        }  # fmt: skip


def _reached(part: Mapping[str, Any], names: Mapping[str, str], mtu: int) -> Iterator[dict[str, str]]:
    for each in part.get("reached") or []:
        well = not each["problem"]
        yield {
            "to": names.get(each["peer"], each["peer"]),
            "check": "reach",
            "expected": f"{mtu} bytes in one piece",
            "seen": "answered" if well else each["problem"],
            "do": OK if well else "see cable, addresses and MTU of both, and of the switch between them",
            "verdict": FINE if well else REFUSED,
        }


def _measured(
    part: Mapping[str, Any], names: Mapping[str, str], floors: Mapping[str, float]
) -> Iterator[dict[str, str]]:
    for each in part.get("measured") or []:
        speed, floor = each["gigabits"], floors[each["tool"]]
        well = speed is not None and speed >= floor
        yield {
            "to": names.get(each["peer"], each["peer"]),
            "check": f"RDMA {each['device']}" if each["tool"] == RDMA else "TCP",
            "expected": f"{floor:g} Gb/s or more",
            "seen": each["problem"] if speed is None else f"{speed:.1f} Gb/s",
            "do": OK if well else _mend(each),
            # Without the program nothing is known, which is no fault of the network.
            "verdict": FINE if well else WARNED if speed is None and each["absent"] else REFUSED,
        }


def _mend(measured: Mapping[str, Any]) -> str:
    if measured["absent"]:
        return INSTALL
    if measured["gigabits"] is None:
        return "see that nothing else holds the port, and that the firewall admits the members"
    return "see cable, lanes and twin (the rows above), and that nothing else uses the wire now"
