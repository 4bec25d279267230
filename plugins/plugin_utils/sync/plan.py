# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Plans which host brings which snapshot from where, so that a fleet fetches each one once. Pure.

A *plan* is plain data and holds everything that a run of the role remembers. After each step of the role on all hosts, :func:`note`
gives the next plan:

    fleet     {host: what is known of it, `standing` below}
    hosts     {host: {fetch, seed, receive, share, later, describe: [commit]; problem: why it is not whole, or ""}};
              `share` is what it seeds and what it receives
    peers     {host: address} of the hosts that take part in the next transfer
    describe  {commit: the host that describes it}
    suspects  hosts that sent others wrong bytes. They must be hashed in full before they count as a source
    can_fetch, can_transfer   whether another fetch, or either a fetch or a transfer, can bring something
    incomplete        whether any host is not whole
    round             how often the fleet was looked at
    check             whether this is check mode: then nothing follows the look
    worth_reporting   whether there is anything to tell: something came, went wrong, or is still missing
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

LEAST_SEEDS = 4
"""Hosts that seed, if that many are whole. More only for more receivers, since each costs a start and a stop."""

Results = Mapping[str, Mapping[str, Any]]
"""{host: what its last task of a kind returned}; a task that was not run is missing or holds `skipped`."""


def standing() -> dict[str, Any]:
    return {
        "address": "",
        "snapshots": {},  # {commit: {repository, bytes, whole, missing, kept}}
        "excluded": "",  # why it takes no part any more
        "problem": "",  # the last thing that went wrong on it
        "refused": {},  # {commit: why it could not fetch it from the Hub}
        "suspect": False,
        "repaired": False,
        "hub_bytes": 0,
        "from": {},  # {host: bytes}
        "to": {},
        "seconds": 0.0,
        "remarks": [],
    }


def note(
    plan: Mapping[str, Any], step: str, results: Mapping[str, Results], batch: Sequence[str], fan_out: bool
) -> dict[str, Any]:
    """The plan after a step.

    :param plan: the plan before it; empty at the beginning
    :param step: `look`, `fetch`, `describe` or `transfer`
    :param results: {name of the task: its results}: `look` and `hash`; `fetch`; `describe`; `start`, `wait` and `stop`
    :param batch: hosts that still take part, in the order of the inventory
    :param fan_out: False: each host fetches for itself
    """
    fleet = {host: {**standing(), **_copy(known)} for host, known in (plan.get("fleet") or {}).items()}
    described: dict[str, str] = {}
    if step == "look":
        _note_looks(fleet, results, batch)
    elif step == "fetch":
        _note_fetches(fleet, results["fetch"], plan["hosts"])
    elif step == "describe":
        described = _note_descriptions(fleet, results["describe"], plan["describe"])
    elif step == "transfer":
        _note_transfers(fleet, results)
    for host, known in fleet.items():
        if host not in batch and not known["excluded"]:
            known["excluded"] = "did not answer"
    check = bool(plan.get("check")) or any(one.get("check_mode") for one in results.get("look", {}).values())
    after = _plan(fleet, fan_out, described if step == "describe" else None, check)
    return after | {"round": int(plan.get("round", 0)) + (step == "look"), "check": check}


def _copy(value: Any) -> Any:
    """Plain dicts and lists, in place of a controller's own kinds of them."""
    if isinstance(value, Mapping):
        return {key: _copy(one) for key, one in value.items()}
    return [_copy(one) for one in value] if isinstance(value, list) else value


# -- what the steps showed


def _ran(results: Results, host: str) -> Mapping[str, Any]:
    """The result of the task on this host; empty if it did not run there."""
    result = results.get(host) or {}
    return {} if result.get("skipped") else result


def _note_looks(
    fleet: dict[str, dict[str, Any]], results: Mapping[str, Results], batch: Sequence[str]
) -> None:
    everyone = [*batch, *(host for host in results["look"] if host not in batch)]
    for host in everyone:
        looked, hashed = _ran(results["look"], host), _ran(results["hash"], host)
        if not looked:
            continue
        known = fleet.setdefault(host, standing())
        for result in (looked, hashed):
            if result.get("failed") or result.get("unreachable"):
                known["excluded"] = (
                    "did not answer" if result.get("unreachable") else str(result.get("msg", "?"))
                )
        if known["excluded"]:
            continue
        seen = hashed or looked
        known["address"] = looked["address"]
        if known["suspect"] and (hashed or not looked["unchecked"]):
            known["suspect"] = False
            known["remarks"].append("hashed again")
        known["snapshots"] = {
            look["commit"]: {
                "repository": look["repository"],
                "bytes": look["bytes"],
                "whole": look["whole"],
                "missing": look["missing_bytes"],
                "kept": look["kept_bytes"],
            }
            for look in seen["look"]
        }


def _note_fetches(
    fleet: dict[str, dict[str, Any]], results: Results, planned: Mapping[str, Mapping[str, Any]]
) -> None:
    for host, known in fleet.items():
        result = _ran(results, host)
        asked = (planned.get(host) or {}).get("fetch") or []
        if not result or not asked or result.get("unreachable"):
            continue
        if result.get("failed"):
            reason = str(result.get("msg", "?"))
            known["problem"] = reason
            known["refused"].update(dict.fromkeys(asked, reason))
            known["remarks"].append(f"could not fetch: {short(reason)}")
            continue
        _take(known, result["snapshots"])
        known["hub_bytes"] += sum(one["fetched_bytes"] for one in result["snapshots"])
        known["seconds"] += sum(one["seconds"] for one in result["snapshots"])


def _note_descriptions(
    fleet: dict[str, dict[str, Any]], results: Results, planned: Mapping[str, str]
) -> dict[str, str]:
    described = {}
    for commit, host in planned.items():
        result = _ran(results, host)
        if commit in (result.get("torrents") or {}):
            described[commit] = host
            continue
        if not result.get("unreachable"):
            reason = str(result.get("msg", "it gave no description"))
            fleet[host]["suspect"] = True
            fleet[host]["problem"] = reason
            fleet[host]["remarks"].append(f"could not describe what it holds: {short(reason)}")
    return described


def _note_transfers(fleet: dict[str, dict[str, Any]], results: Mapping[str, Results]) -> None:
    for host, known in fleet.items():
        started = _ran(results["start"], host)
        if started.get("failed"):
            known["problem"] = str(started.get("msg", "?"))
            known["remarks"].append(f"could not take part: {short(known['problem'])}")
        waited, stopped = _ran(results["wait"], host), _ran(results["stop"], host)
        # The peer's last status. If the host no longer answered, the status from the wait.
        status = stopped.get("status") or waited.get("status")
        if status:
            _note_status(fleet, host, status)
        if waited and not waited.get("settled") and waited.get("problem"):
            known["problem"] = str(waited["problem"])
            known["remarks"].append(short(known["problem"]))


def _note_status(fleet: dict[str, dict[str, Any]], host: str, status: Mapping[str, Any]) -> None:
    known = fleet[host]
    _take(known, status.get("snapshots") or [])
    for way in ("from", "to"):
        for other, count in (status.get(way) or {}).items():
            if count:
                known[way][other] = known[way].get(other, 0) + count
    if status.get("from"):
        known["seconds"] += status.get("seconds") or 0.0
    for other in status.get("corrupt_from") or []:
        if other not in fleet:
            continue
        if other == host:  # a peer hashes what it gives, and names itself
            seen, remark = "found that files it holds are no longer the lock's", "found its own files damaged"
        else:
            seen, remark = f"gave {host} bytes that are not the lock's", f"sent wrong bytes to {host}"
        fleet[other]["suspect"] = True
        fleet[other]["problem"] = (
            f"{other}: expected the files of the lock, seen that it {seen}; run again with verification of every file "
            "(model_sync_verify=full), and look at its disk and memory"
        )
        fleet[other]["remarks"].append(remark)


def _take(known: dict[str, Any], reports: Sequence[Mapping[str, Any]]) -> None:
    """Note what a host has brought and verified."""
    for report in reports:
        if snapshot := known["snapshots"].get(report["commit"]):
            snapshot.update(whole=True, missing=0, kept=0)
        known["repaired"] = known["repaired"] or report["state"] == "repaired"


# -- what follows


def _plan(
    fleet: dict[str, dict[str, Any]], fan_out: bool, described: Mapping[str, str] | None, check: bool
) -> dict[str, Any]:
    """:param described: the only snapshots with a description; None: they are still to be described"""
    active = [host for host in fleet if not fleet[host]["excluded"]]
    order = {host: number for number, host in enumerate(active)}
    hosts: dict[str, dict[str, Any]] = {
        host: {
            "fetch": [],
            "seed": [],
            "receive": [],
            "share": [],
            "later": [],
            "describe": [],
            "problem": "",
        }
        for host in fleet
    }
    describe: dict[str, str] = {}
    meeting: set[str] = set()

    def has(host: str, commit: str) -> tuple[int, int, int]:
        """Rank of a host as the one to fetch: most of this snapshot, then of everything, then the inventory's order."""
        here = fleet[host]["snapshots"][commit]
        return _there(here), sum(_there(one) for one in fleet[host]["snapshots"].values()), -order[host]

    for commit in dict.fromkeys(commit for host in active for commit in fleet[host]["snapshots"]):
        concerned = [host for host in active if commit in fleet[host]["snapshots"]]
        wanting = [host for host in concerned if not fleet[host]["snapshots"][commit]["whole"]]
        able = [host for host in wanting if commit not in fleet[host]["refused"]]
        holders = [
            host
            for host in concerned
            if host not in wanting and fleet[host]["address"] and not fleet[host]["suspect"]
        ]
        if not wanting:
            continue
        if not fan_out:
            for host in able:
                hosts[host]["fetch"].append(commit)
        elif not holders:
            if able:
                first = max(able, key=lambda host: has(host, commit))
                hosts[first]["fetch"].append(commit)
                for host in wanting:
                    if host != first:
                        hosts[host]["later"].append(commit)
        elif described is None or commit in described:
            receivers = [host for host in wanting if fleet[host]["address"]]
            describing = described[commit] if described else holders[0]
            others = [host for host in holders if host != describing]
            seeds = [describing, *others][: max(LEAST_SEEDS, len(receivers))]
            for name, some in (("seed", seeds), ("receive", receivers)):
                for host in some if receivers else []:
                    hosts[host][name].append(commit)
                    meeting.add(host)
            if receivers:
                describe[commit] = describing
                hosts[describing]["describe"].append(commit)
    for host in active:
        hosts[host]["share"] = hosts[host]["seed"] + hosts[host]["receive"]
        hosts[host]["problem"] = _problem(fleet, host)
    can_fetch = any(hosts[host]["fetch"] for host in active)
    return {
        "fleet": fleet,
        "hosts": hosts,
        "peers": {host: fleet[host]["address"] for host in active if host in meeting},
        "describe": describe,
        "suspects": [host for host in active if fleet[host]["suspect"]],
        "can_fetch": can_fetch,
        "can_transfer": not check and (can_fetch or any(hosts[host]["receive"] for host in active)),
        "incomplete": any(hosts[host]["problem"] for host in active),
        "worth_reporting": any(
            known["hub_bytes"]
            or known["from"]
            or known["remarks"]
            or known["excluded"]
            or hosts[host]["problem"]
            for host, known in fleet.items()
        ),
    }


def _there(snapshot: Mapping[str, Any]) -> int:
    return min(int(snapshot["bytes"]), int(snapshot["bytes"] - snapshot["missing"] + snapshot["kept"]))


def _problem(fleet: Mapping[str, Mapping[str, Any]], host: str) -> str:
    """Why the host is not whole, for a person; empty when it is."""
    known = fleet[host]
    missing = {commit: one for commit, one in known["snapshots"].items() if not one["whole"]}
    if not missing:
        return str(known["problem"]) if known["suspect"] else ""
    if known["problem"]:
        return str(known["problem"])
    commit, snapshot = next(iter(missing.items()))
    what = f"{snapshot['repository']} at {commit}: expected it from the Hub or from a host of the fleet"
    if not known["address"] and any(
        fleet[other]["snapshots"].get(commit, {}).get("whole") for other in fleet
    ):
        return (
            f"{what}, seen no one address to meet the others on (several interfaces, no default route); "
            "name it: model_sync_interface or model_sync_address"
        )
    refusals = [
        f"{other}: {reason}" for other in fleet if (reason := fleet[other]["refused"].get(commit)) is not None
    ]
    if refusals:
        return f"{what}, seen no host that has it or could fetch it. {' '.join(refusals)}"
    return f"{what}, seen neither within the rounds allowed; run again (what was verified is kept)"


def short(text: str, length: int = 70) -> str:
    """The beginning of a text, cut between words."""
    line = " ".join(text.split())
    return line if len(line) <= length else f"{line[:length].rpartition(' ')[0] or line[:length]} …"
