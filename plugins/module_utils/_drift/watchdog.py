# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether the watchdog of a Spark is as it should be, and what it found last. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from .._serve import watched
from .._watchdog import install, units
from .finding import WARNING, Finding

SUBJECT = "watchdog"
SITE = "playbooks/site.yml"
MOST, LONGEST = 20, 500
"""Findings, and characters of a text of theirs, that a report takes over."""


@dataclass(frozen=True)
class Seen:
    state: install.State = field(default_factory=install.State)
    drop_ins: Sequence[str] = ()
    """Paths that change its units."""
    verdict: Mapping[str, Any] | None = None
    problem: str = ""
    """Why there is no verdict."""
    now: float = 0.0
    """Unix time by the host's clock"""


def findings(wanted: install.State, seen: Seen) -> Iterator[Finding]:
    """:param wanted: as :func:`.._watchdog.plan.planned` has it, empty where there should be none"""
    if not wanted.program:
        if left := install.changes(seen.state, wanted):
            do = f"{SITE} removes it"
            yield _finding("watchdog-left", "no watchdog (spark_watchdog is off)", ", ".join(left), do)
        return
    edited = install.changes(replace(seen.state, active=wanted.active), wanted)
    if edited or seen.drop_ins:
        expected = "program, settings and units of the watchdog as the inventory makes them"
        yield _finding(
            "watchdog-changed",
            expected,
            ", ".join([*edited, *seen.drop_ins]),
            f"{SITE} writes them" + ("; systemctl revert ends what changes a unit" if seen.drop_ins else ""),
        )
    stopped = sorted(name for name in wanted.active - seen.state.active if name in seen.state.units)
    if stopped:
        expected = f"{', '.join(stopped)} runs, now and after a boot"
        yield _finding("watchdog-stopped", expected, "stopped or disabled", f"{SITE} starts it")
    # One that does not look has nothing to say, and that it is silent comes of it.
    if units.TIMER in seen.state.active:
        yield from _silent(seen)
    if seen.verdict and seen.verdict["verdict"] == watched.DOWN:
        do = f"read the evidence that it kept, then {SITE}, or start the unit of the server"
        yield _finding("watchdog-down", "a server that serves", seen.verdict["reason"], do)
    elif seen.verdict and units.TIMER in seen.state.active and not _age(seen):
        yield from _told(seen.verdict)


def _age(seen: Seen) -> str:
    """How long ago it looked, where that is too long; empty if it is not."""
    if seen.verdict is None:
        return f"no look: {seen.problem}"
    age = seen.now - seen.verdict["looked_at"]
    return "" if abs(age) <= units.STALE * 60 else f"the last look was {age:.0f} s ago"


def _silent(seen: Seen) -> Iterator[Finding]:
    if age := _age(seen):
        do = f"systemctl status {units.SERVICE} and its journal say why"
        yield _finding("watchdog-silent", f"a look within {units.STALE} minutes", age, do)


def _told(verdict: Mapping[str, Any]) -> Iterator[Finding]:
    if verdict["verdict"] == watched.UNKNOWN:
        do = f"journalctl -u {units.SERVICE} says more"
        yield _finding("watchdog-found", "a look that comes to a verdict", verdict["reason"], do, WARNING)
    for each in verdict["findings"][:MOST]:
        seen = f"{each['kind']}: {each['seen']}"
        yield _finding("watchdog-found", each["expected"], seen, each["do"], WARNING)


def _finding(kind: str, expected: str, seen: str, do: str, severity: str = "drift") -> Finding:
    return Finding(SUBJECT, kind, expected[:LONGEST], seen[:LONGEST], do[:LONGEST], severity)
