# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether the ports of a unit answer its members alone, now and after a boot. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .._host.guard import Guard
from .._host.unit_guard import HOOK, TABLE, UNIT, drops
from .finding import Finding, part
from .guard import SITE, boot


def judge(members: Sequence[str], seen: Guard, wanted: Guard) -> dict[str, Any]:
    """The part of a drift report that is about the ports of a unit.

    :param members: their addresses; empty where the host is in no unit
    """
    if not members:
        return part(("host",), _left(seen))
    return part(("host",), [*_rules(members, seen, wanted), *boot("unit-guard-boot", UNIT, seen, wanted)])


def _left(seen: Guard) -> list[Finding]:
    found = [*([f"table {TABLE}"] if seen.rules[TABLE] else []), *sorted(map(str, seen.files))]
    expected = "no ports kept for a unit, since the host is in none"
    return (
        [Finding("host", "unit-guard-left", expected, ", ".join(found), f"{SITE} removes it")]
        if found
        else []
    )


def _rules(members: Sequence[str], seen: Guard, wanted: Guard) -> list[Finding]:
    expected = f"the ports of the unit for {', '.join(members)} alone"
    do = f"{SITE} mends the rules, and cuts no connection of a member"
    there, lines = seen.rules[TABLE], wanted.rules[TABLE]
    if not {HOOK, *filter(drops, lines)} <= set(there):
        less = [line for line in (HOOK, *filter(drops, lines)) if line not in there]
        text = f"without {'; '.join(less)}" if there else f"no table {TABLE}"
        return [Finding("host", "unit-guard-open", expected, f"{text}: whoever reaches them runs code", do)]
    if there == lines:
        return []
    changes = [line for line in there if line not in lines]
    changes += [f"without {line}" for line in lines if line not in there]
    return [
        Finding(
            "host", "unit-guard-changed", expected, "; ".join(changes) or "the rules in another order", do
        )
    ]
