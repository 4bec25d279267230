# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a run must do on the members of a unit, from what each of them needs by itself. Pure.

vLLM lets no old worker rejoin: where one member must start, all do. And hosts that are in one unit, or were in one until now, change
together: they all pass, or all go back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

SETTLED, UNPROVEN, REPLACE, START = "settled", "unproven", "replace", "start"
"""It runs and has passed; it runs and is not on record; another one serves, or this one starts anew; nothing serves."""


class UnitError(ValueError):
    """The members of a unit do not add up to one."""


@dataclass(frozen=True)
class Host:
    """What a run knows of a host."""

    own: Mapping[str, Any]
    """What it needs by itself, in the form of C(serving_change), or what :func:`whole` made of it; empty if it was not compared"""
    wanted: Mapping[str, Any] | None
    """The record that it shall serve"""
    recorded: Mapping[str, Any] | None
    """Its current record"""


def members(record: Mapping[str, Any] | None) -> list[str]:
    """The hosts of a record's unit in order of rank; none for a host that serves alone."""
    return [member["host"] for member in ((record or {}).get("unit") or {}).get("members", [])]


def check_whole(record: Mapping[str, Any], played: Sequence[str]) -> None:
    """:raises UnitError: a member of the record's unit is not among the hosts of the play"""
    if left := [name for name in members(record) if name not in played]:
        raise UnitError(
            f"expected all members of the unit {record['unit']['name']} in this run, seen none of {', '.join(left)}; nothing was touched. "
            "Do: name all its hosts in --limit, or none: a unit stops as one"
        )


def together(host: str, look: Callable[[str], Host | None]) -> dict[str, Host | None]:
    """The hosts that change together with `host`, and what is known of each.

    :param look: gives what is known of a host; None if it is not in this run
    """
    known: dict[str, Host | None] = {}
    pending = [host]
    while pending:
        if (name := pending.pop()) not in known:
            known[name] = found = look(name)
            pending += _partners(found, look) if found else []
    return known


def _partners(host: Host, look: Callable[[str], Host | None]) -> list[str]:
    """A host of the recorded unit that has passed as something else since then has left it."""
    former = [
        name
        for name in members(host.recorded)
        if (found := look(name)) is None or _same_unit(host.recorded, found.recorded)
    ]
    return [*members(host.wanted), *former]


def whole(host: str, known: Mapping[str, Host | None], order: Sequence[str]) -> dict[str, Any]:
    """What a host needs together with those that it changes with.

    :param known: as :func:`together` gives it
    :param order: the hosts of the run, in their order
    :returns: the form of C(serving_change), with ``unit: {name, rank, members: [the hosts that change together]}``. Of a host that shall
        serve alone, name and rank are those of one that is in no unit: empty, and 0
    :raises UnitError: a host is not in this run, or was not compared, or a member shall serve something else
    """
    ready = {name: found for name, found in known.items() if found and found.own.get("state")}
    if missing := sorted(known.keys() - ready.keys()):
        raise UnitError(
            f"expected that all of {', '.join(sorted(known))} are ready, which are or were in one unit, seen that "
            f"{', '.join(missing)} failed before or is not in this run; do: mend that and run again with all of them"
        )
    mine = ready[host]
    unit = (mine.wanted or {}).get("unit") or {}
    peers = members(mine.wanted) or [host]
    if other := [name for name in peers if name != host and not _same_unit(mine.wanted, ready[name].wanted)]:
        raise UnitError(
            f"expected that {', '.join(peers)} shall serve one recipe as the unit {unit['name']}, seen another unit or recipe on "
            f"{', '.join(other)}; do: bring them to one recipe with site.yml"
        )
    states = [ready[name].own["state"] for name in peers]
    state, kept = mine.own["state"], mine.own["kept"]
    if START in states or REPLACE in states:
        # Its server stops with the others, so its boot unit has to start it again.
        state, kept = START if state == START else REPLACE, False
    elif UNPROVEN in states:
        state = UNPROVEN
    return {
        "state": state,
        "anew": mine.own["anew"],
        "back": all(found.own["back"] for found in ready.values()) and _one_former(ready),
        "kept": kept,
        "on_record": all(ready[name].own["on_record"] for name in peers),
        "unit": {
            "name": unit.get("name", ""),
            "rank": unit.get("rank", 0),
            "members": [name for name in order if name in ready],
        },
    }


def _one_former(ready: Mapping[str, Host]) -> bool:
    """Whether what passed on the hosts before can serve again: each by itself, or as units that are whole among them."""
    return all(
        other in ready and _same_unit(found.recorded, ready[other].recorded)
        for found in ready.values()
        for other in members(found.recorded)
    )


def _same_unit(one: Mapping[str, Any] | None, other: Mapping[str, Any] | None) -> bool:
    """Whether two records are of one unit and one recipe, whatever their ranks."""
    if not one or not other or not one.get("unit") or not other.get("unit"):
        return False
    mine, its = ({**record["unit"], "rank": None} for record in (one, other))
    return bool(one.get("recipe") == other.get("recipe") and mine == its)
