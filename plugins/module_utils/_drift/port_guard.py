# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a server's port answers those alone who may ask it, now and after a boot. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .._host.guard import Guard
from .._host.port_guard import FAMILIES, JUMP, UNIT
from .finding import Finding, part
from .guard import SITE, boot

Kept = tuple[Sequence[int], Sequence[str]]
"""Ports, and for whom they are kept."""


def judge(kept: Sequence[Kept], seen: Guard, wanted: Guard) -> dict[str, Any]:
    """The part of a drift report that is about the guarded ports.

    :param kept: empty where no port is to be kept
    """
    return part(
        ("host",),
        _left(seen)
        if not kept
        else [*_rules(kept, seen, wanted), *boot("port-guard-boot", UNIT, seen, wanted)],
    )


def _left(seen: Guard) -> list[Finding]:
    if not (any(seen.rules.values()) or seen.files):
        return []
    found = [f"rules of {FAMILIES[version]}" for version, lines in seen.rules.items() if lines]
    found += sorted(map(str, seen.files))
    expected = "no port kept, since the inventory has neither gateways nor monitoring"
    return [Finding("host", "port-guard-left", expected, ", ".join(found), f"{SITE} removes it")]


def _rules(kept: Sequence[Kept], seen: Guard, wanted: Guard) -> list[Finding]:
    named = "; ".join(
        f"port {', '.join(map(str, ports))} for {', '.join(sources)} alone" for ports, sources in kept
    )
    do = f"{SITE} mends the rules, and cuts no connection of theirs"
    found = []
    for version, lines in wanted.rules.items():
        there = seen.rules[version]
        keeping = {JUMP, *(line for line in lines if line.endswith(" -j DROP"))}
        if not keeping <= set(there):
            text = f"no rule of {FAMILIES[version]} that keeps others out"
            found.append(Finding("host", "port-open", named, text, do))
        elif there != lines:
            more = [line for line in there if line not in lines]
            less = [f"without {line}" for line in lines if line not in there]
            text = "; ".join([*more, *less]) or "the rules in another order"
            found.append(Finding("host", "port-guard-changed", f"{named}, by {FAMILIES[version]}", text, do))
    return found
