# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One run at a time on a host: who holds the lock, and the messages about it. Pure.

The lock is a file with a record of the run that holds it. The time of its last change, by the clock of the host itself, is the
last sign of life of that run. A run on the same controller is judged by its process, any other by its lease. A run that lost the
lock learns that before it changes anything more.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .._common import json_text

VERSION = 1
FILE, GUARD, WORK = "run.json", "run.lock", "run.work"
"""The lock; the file that is flocked while the lock is read or changed; and the file that all work under it keeps flocked."""
LEASE = 120
"""Seconds without a sign of life after which a lock no longer keeps others out."""

FREE, OURS, HELD, STALE, DEAD, BUSY = "free", "ours", "held", "stale", "dead", "busy"


@dataclass(frozen=True)
class Seen:
    """The lock of a host: its record (None: no lock), what is wrong with the file, seconds since the last sign of life."""

    record: Mapping[str, Any] | None = None
    damage: str = ""
    age: float = 0.0


def parse(text: str) -> dict[str, Any]:
    """The record in the text of a lock.

    :raises ValueError: the text is no record of this version
    """
    record = json_text.read(text, "the lock")
    if not isinstance(record, dict) or record.get("version") != VERSION:
        raise ValueError(f"expected a lock of version {VERSION}")
    for name in ("run", "holder", "controller", "since"):
        if not isinstance(record.get(name), str):
            raise ValueError(f"{name}: expected text, seen {record.get(name)!r}")
    for name in ("playbook", "job", "started"):
        if not isinstance(record.get(name, ""), str):
            raise ValueError(f"{name}: expected text, seen {record[name]!r}")
    for name in ("pid", "lease"):
        if not isinstance(record.get(name), int):
            raise ValueError(f"{name}: expected a whole number, seen {record.get(name)!r}")
    return record


def record(run: Mapping[str, Any], lease: int, since: str) -> dict[str, Any]:
    """What the lock of `run` holds (as :func:`this_run` gives it); `lease` in seconds, `since` in ISO 8601."""
    return {
        "version": VERSION,
        "run": run["id"],
        **{name: value for name, value in run.items() if name != "id"},
        "lease": lease,
        "since": since,
    }


def decide(seen: Seen, run: Mapping[str, Any], dead: str = "") -> str:
    """Whether `run` may have the lock: FREE, OURS, STALE and DEAD (taken over) say yes, HELD says no.

    :param dead: id of a run that its controller knows to have ended
    """
    if seen.damage:
        return STALE if seen.age > LEASE else HELD
    if seen.record is None:
        return FREE
    if seen.record["run"] == run["id"]:
        return OURS
    if seen.record["run"] == dead:
        return DEAD
    # Where the process can be asked, an expired lease proves nothing: the host may have been away for longer.
    if seen.age > seen.record["lease"] and not same_controller(seen.record, run):
        return STALE
    return HELD


def alive(seen: Seen) -> bool:
    """Whether a run holds the host, as far as the host itself can tell: until the lease ends without a sign of life."""
    if seen.damage:
        return seen.age <= LEASE
    return seen.record is not None and seen.age <= seen.record["lease"]


def holder(seen: Seen) -> str:
    """Whose run it is, for a person."""
    return _who(seen.record) if seen.record else f"a lock that cannot be read ({seen.damage})"


def names(seen: Seen, run: str) -> bool:
    """Whether the lock belongs to the run with this id."""
    return seen.record is not None and seen.record["run"] == run


def lost(seen: Seen) -> str:
    """The message for a run that had the lock of a host and lost it."""
    if seen.record:
        there = f"that of {_who(seen.record)} since {seen.record['since']}"
    else:
        there = f"one that cannot be read ({seen.damage})" if seen.damage else "none"
    return (
        f"expected the lock of this run on this host, seen {there}: the host was out of reach for longer than the lease, or "
        "somebody removed the lock; this run changes nothing more here; run again when no other run is at work"
    )


def busy(seen: Seen) -> str:
    """Why a lock could be taken but not kept: work that began under the former one still runs."""
    whose = f"that of {_who(seen.record)}" if seen.record else "a former run"
    return (
        f"expected nothing at work on this host, seen a task of {whose} still running; wait until it has ended "
        f"(fuser {WORK} in the state directory names its process), or end it; then run again"
    )


def same_controller(held: Mapping[str, Any], run: Mapping[str, Any]) -> bool:
    """Whether `run` can see the process of `held`."""
    return bool(held["controller"]) and held["controller"] == run["controller"]


def _who(held: Mapping[str, Any]) -> str:
    details = [
        held.get("playbook"),
        f"job {held['job']}" if held.get("job") else "",
        f"process {held['pid']}",
    ]
    return f"{held['holder']} ({', '.join(detail for detail in details if detail)})"


def refusal(seen: Seen, run: Mapping[str, Any]) -> str:
    """Why `run` must leave: who holds the lock, since when, how alive that run is, and what to do."""
    age = f"{max(seen.age, 0):.0f} s ago"
    if seen.record is None:
        return (
            f"expected no other run on this host, seen a lock that cannot be read ({seen.damage}), written {age}; "
            f"if no run is at work, run again in {LEASE} s"
        )
    if same_controller(seen.record, run):
        do = f"it runs on this controller: wait until process {seen.record['pid']} has ended"
    else:
        left = max(seen.record["lease"] - seen.age, 0) + 1
        do = f"wait until it is done; if it was killed, its lock ends {left:.0f} s from now"
    return (
        f"expected no other run on this host, seen that of {_who(seen.record)} since {seen.record['since']}, "
        f"last sign of life {age}; {do}; then run again"
    )


def taken_over(seen: Seen, verdict: str) -> str:
    """Whose lock no longer counts, and why; empty for a verdict that takes nothing over."""
    if verdict not in (STALE, DEAD):
        return ""
    age = f"last sign of life {seen.age:.0f} s ago"
    if seen.record is None:
        return f"a lock that cannot be read ({seen.damage}), {age}, is taken over"
    why = "that run has ended" if verdict == DEAD else age
    return f"the lock of {_who(seen.record)} since {seen.record['since']} is taken over: {why}"


def refusals(results: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """One text for each run that keeps others off its hosts, beginning with these hosts.

    :param results: ``{host: result of run_lock}``
    """
    hosts: dict[str, list[str]] = {}
    texts: dict[str, str] = {}
    for host, result in results.items():
        if "held" in result and result.get("refused"):
            # Two locks that cannot be read need not be of the same run.
            key = result["held"].get("run") or host
            hosts.setdefault(key, []).append(host)
            texts.setdefault(key, result["msg"])
    return [f"{_some(names)}: {texts[key]}" for key, names in hosts.items()]


def _some(names: list[str], most: int = 5) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
