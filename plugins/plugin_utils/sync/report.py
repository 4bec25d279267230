# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The sync of a fleet for people: who gave how much, how often to say so, and at the end one row per host. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...module_utils._common.progress import volume
from ...module_utils._swarm.shares import shares
from .plan import short

COLUMNS = ("host", "state", "from the Hub", "from the fleet", "of whom", "sent", "seconds", "MB/s", "remarks")


def pace(hosts: int) -> float:
    """Seconds between two lines of a host, so that a fleet of any size stays readable: about two lines a second."""
    return max(5.0, hosts / 2)


def rows(plan: Mapping[str, Any], hosts: Sequence[str], check: bool) -> list[dict[str, Any]]:
    """The result of each host, in numbers; in check mode the expected one.

    :param plan: the last plan of `sync/plan.py`
    :param hosts: all hosts of the play
    """
    return [_row(plan, host, check) for host in hosts]


def excluded(problem: str) -> dict[str, Any]:
    """A plan's entry for a host of which nothing is known but a problem."""
    nothing = {"snapshots": {}, "hub_bytes": 0, "from": {}, "to": {}, "seconds": 0.0, "remarks": []}
    return {**nothing, "repaired": False, "excluded": problem}


def _row(plan: Mapping[str, Any], host: str, check: bool) -> dict[str, Any]:
    known = plan["fleet"].get(host)
    if known is None:
        return _numbers(host, "took no part", 0, {}, {}, 0.0, [], "")
    planned = plan["hosts"][host]
    sizes = {commit: one["missing"] for commit, one in known["snapshots"].items()}
    hub, received, problem = known["hub_bytes"], dict(known["from"]), planned["problem"]
    if known["excluded"]:
        problem = known["excluded"]
        state = problem if problem == "did not answer" else f"FAILED: {short(problem)}"
    elif check:
        problem = ""
        hub = sum(sizes[commit] for commit in planned["fetch"])
        received = _expected(plan, host, sizes)
        words = ["would fetch"] * bool(hub or planned["fetch"]) + ["would receive"] * bool(received)
        state = ", ".join(words) or "present"
    elif problem:
        state = f"FAILED: {short(problem)}"
    else:
        words = ["fetched"] * bool(hub) + ["received"] * bool(received)
        state = ", ".join(["repaired"] if known["repaired"] else words) or "present"
    return _numbers(host, state, hub, received, known["to"], known["seconds"], known["remarks"], problem)


def _expected(plan: Mapping[str, Any], host: str, sizes: Mapping[str, int]) -> dict[str, int]:
    """In check mode: {host: bytes} of the givers, with each snapshot in equal shares."""
    found: dict[str, int] = {}
    for role, commits in (("seed", plan["hosts"][host]["receive"]), ("fetch", plan["hosts"][host]["later"])):
        for commit in commits:
            givers = [other for other, does in plan["hosts"].items() if commit in does[role]]
            for giver in givers:
                found[giver] = found.get(giver, 0) + sizes[commit] // len(givers)
    return found


def _numbers(
    host: str,
    state: str,
    hub: int,
    received: Mapping[str, int],
    sent: Mapping[str, int],
    seconds: float,
    remarks: Sequence[str],
    problem: str,
) -> dict[str, Any]:
    return {
        "host": host,
        "state": state,
        "hub_bytes": hub,
        "from": dict(received),
        "to": dict(sent),
        "seconds": round(seconds, 1),
        "bytes_per_second": round((hub + sum(received.values())) / seconds) if seconds else 0,
        "remarks": list(remarks),
        "problem": problem,
    }


def texts(row: Mapping[str, Any]) -> dict[str, str]:
    """A row as text, keyed by :data:`COLUMNS`. `-` stands for what did not happen."""
    received, sent = sum(row["from"].values()), sum(row["to"].values())
    return {
        "host": row["host"],
        "state": row["state"],
        "from the Hub": volume(row["hub_bytes"]) if row["hub_bytes"] else "-",
        "from the fleet": volume(received) if received else "-",
        "of whom": shares(row["from"]) if received else "-",
        "sent": volume(sent) if sent else "-",
        "seconds": f"{row['seconds']:.1f}" if row["seconds"] else "-",
        "MB/s": f"{row['bytes_per_second'] / 1e6:.1f}" if row["bytes_per_second"] else "-",
        "remarks": "; ".join(row["remarks"]) or "-",
    }
