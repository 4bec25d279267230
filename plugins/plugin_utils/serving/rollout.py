# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a run must do on a host, in which order hosts have their turn, and how long each was away. Pure.

A change goes to few hosts first. Hosts with nothing to lose, because nothing serves or nothing changes there, come before them
and all at once.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from ...module_utils._gate.container import parse_time
from ..inputs import as_list
from ..unit.change import REPLACE, SETTLED, START, UNPROVEN

_T = TypeVar("_T")


class BatchError(ValueError):
    """A text or number that is no size of a batch."""


def change(
    info: Mapping[str, Any],
    serving: Mapping[str, Any],
    differs: bool,
    unit: str,
    host: Mapping[str, Any],
) -> dict[str, Any]:
    """What a host needs in order to serve `serving`.

    :param info: what ``serve_info`` returned. A server that has other files open than its mounts hold now is replaced: by its own next
        start, if nothing else differs. If somebody edited programs in its container, a new container replaces it
    :param serving: the record that the host shall serve
    :param differs: whether the container differs, or does not run
    :param unit: text of the unit that shall keep it running; empty for none
    :param host: versions of the host, in the form in which they are recorded
    :returns: ``{state: one of the four above, anew: whether the container must be made anew although it does not differ, back:
        whether another record is current, so that a rollback is possible, kept: whether its unit keeps it running as it shall,
        on_record: whether there is nothing to start, to write or to record}``
    """
    current = (info["state"] or {}).get("current")
    recorded = current["serving"] if current else None
    seen = info["container"] or {}
    if differs or seen.get("stale") or seen.get("edited"):
        state = REPLACE if seen.get("status") == "running" else START
    else:
        state = SETTLED if recorded == serving else UNPROVEN
    here = info["unit"]
    kept = (
        state in (SETTLED, UNPROVEN)
        and unit == here["text"]
        and bool(unit) == here["enabled"] == here["watches"]
        and seen["restart_policy"] == "no"
    )
    known = (current or {}).get("gate", {}).get("host") or {}
    return {
        "state": state,
        "anew": bool(seen.get("edited")),
        "back": recorded is not None and recorded != serving,
        "kept": kept,
        "on_record": state == SETTLED and kept and known == host,
    }


def size(value: int | str, total: int) -> int:
    """The number of units in a batch, of `total`: a number, or a share such as ``25%``; at least one.

    :raises BatchError: the value is neither
    """
    text = str(value).strip()
    share = re.fullmatch(r"(\d+(?:\.\d+)?)\s*%", text)
    if share and 0 < float(share[1]) <= 100:
        return max(1, int(total * float(share[1]) / 100))
    if text.isdigit() and int(text) > 0:
        return int(text)
    raise BatchError(f"spark_rollout_batches: expected numbers above 0 or shares up to 100%, got {value!r}")


def batches(hosts: Sequence[_T], sizes: str | Sequence[int | str]) -> list[list[_T]]:
    """`hosts` in their order, cut by `sizes`. The last size repeats until all hosts have their turn.

    :raises BatchError: a size is invalid, or there is none
    """
    sizes = as_list(sizes)
    if not sizes:
        raise BatchError("spark_rollout_batches: expected at least one size, got none")
    counts = [size(value, len(hosts)) for value in sizes]
    cut: list[list[_T]] = []
    left = list(hosts)
    for index in range(len(hosts)):
        if not left:
            break
        count = counts[min(index, len(counts) - 1)]
        cut.append(left[:count])
        left = left[count:]
    return cut


def plan(hosts: Mapping[str, Mapping[str, Any]], sizes: str | Sequence[int | str]) -> list[dict[str, Any]]:
    """The batches of a run. The members of a unit are one item of them, in the place of its head.

    :param hosts: those of the play, in its order, each with ``spark_change`` (as :func:`change` gives it, or ``unit/change.py`` for a
        member of a unit), and with ``spark_failure`` if preparing it failed. A host without a state, or with a failure, has no turn
    :returns: per batch ``{said: text for a person, hosts, earlier: [hosts that must have passed before], traffic: {taken: [those of its
        hosts whose server is stopped], admitted: [those that serve then]}}``. A last one holds the members of units that are not
        whole: they wait for those that have no turn
    :raises BatchError: as :func:`batches`
    """
    changes = {
        host: known["spark_change"]
        for host, known in hosts.items()
        if (known.get("spark_change") or {}).get("state") and not known.get("spark_failure")
    }
    units = [members for host, made in changes.items() if (members := _members(host, made))[0] == host]
    whole = [members for members in units if changes.keys() >= set(members)]
    first = [unit for unit in whole if not any(changes[host]["state"] == REPLACE for host in unit)]
    cut = batches([unit for unit in whole if unit not in first], sizes)
    named = [("hosts with nothing to lose", first)] if first else []
    named += [(f"batch {number} of {len(cut)}", batch) for number, batch in enumerate(cut, 1)]
    made: list[dict[str, Any]] = []
    for name, items in named:
        batch = [host for unit in items for host in unit]
        earlier = [host for done in made for host in done["hosts"]]
        taken = [host for host in batch if changes[host]["state"] == REPLACE]
        admitted = [host for host in batch if not _rank(changes[host])]
        made.append(_batch(name, batch, earlier, taken, admitted))
    turns = {host for batch in made for host in batch["hosts"]}
    if waiting := [host for host in changes if host not in turns]:
        lacking = {member for host in waiting for member in _members(host, changes[host])} - changes.keys()
        made.append(_batch("units that are not whole", waiting, sorted(lacking), [], []))
    return made


def _batch(
    name: str, batch: list[str], earlier: list[str], taken: list[str], admitted: list[str]
) -> dict[str, Any]:
    said = f"{name}: {', '.join(batch)}"
    return {
        "said": said,
        "hosts": batch,
        "earlier": earlier,
        "traffic": {"taken": taken, "admitted": admitted},
    }


def _members(host: str, change: Mapping[str, Any]) -> list[str]:
    """The hosts that have their turn together with `host`, the head first."""
    return list((change.get("unit") or {}).get("members") or [host])


def _rank(change: Mapping[str, Any]) -> int:
    return int((change.get("unit") or {}).get("rank", 0))


def blocking(earlier: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The hosts of earlier batches that have not passed, for whatever reason.

    :param earlier: each with ``spark_proven``, where it got that far
    """
    return [host for host, known in earlier.items() if not known.get("spark_proven")]


def changed(hosts: Mapping[str, Mapping[str, Any]], before: str | Sequence[str] = ()) -> list[str]:
    """The hosts that a rollback would take back to what they served before this change.

    Hosts that did not pass are left out. The run itself took them back, and a rollback would take them back further. A unit goes
    back whole, or not at all.

    :param hosts: those of the play, each with ``spark_change`` (as :func:`change` gives it) and ``spark_proven``, where it got
        that far
    :param before: hosts that an earlier run has changed
    """
    proven = {
        host: known.get("spark_change") or {} for host, known in hosts.items() if known.get("spark_proven")
    }
    now = [
        host
        for host, made in proven.items()
        if made.get("back") and proven.keys() >= set(_members(host, made))
    ]
    return sorted({*as_list(before), *now})


def away(facts: Mapping[str, Any]) -> dict[str, float] | None:
    """:func:`window` of a host, from the facts of its run; None if nothing was changed or nothing has passed.

    :param facts: ``spark_change``, ``spark_started`` and ``spark_gate``, where the host has them
    """
    change, started, gate = (
        facts.get(name) or {} for name in ("spark_change", "spark_started", "spark_gate")
    )
    return window(gate, started.get("stopped_at")) if change.get("state") in (REPLACE, START) else None


def window(gate: Mapping[str, Any], stopped: float | None) -> dict[str, float] | None:
    """How long a host did not serve, in seconds of its own clock; None if nothing was stopped, and of a worker, which answers nobody.

    :param gate: what the gate returned
    :param stopped: when the old server was asked to stop, Unix time
    :returns: ``{start: until the new one was started, ready: until it answered, gate: until it had passed}``, each counted
        from the stop
    """
    if stopped is None or "ready_at" not in gate or "passed_at" not in gate:
        return None
    started = parse_time(gate["container"]["started_at"])
    times = {"start": started, "ready": gate["ready_at"], "gate": gate["passed_at"]}
    return {name: round(time - stopped, 1) for name, time in times.items()}
