# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a Spark serves, what the gate and the watchdog said of it, and whether a run has it. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any

from .._serve import verdict as gate_verdict
from .._serve import watched
from .text import Sample

HELPS = {
    "sparkfleet_served_info": "Always 1. What passed here last: recipe, served model, digest of the image, digest of all that the lock names.",
    "sparkfleet_acceptance_floor": "Share of drafts that the recipe wants accepted at position 0, from 0 to 1.",
    "sparkfleet_gate_passed": "Whether the gate passed when it was asked last, 1 or 0.",
    "sparkfleet_gate_timestamp_seconds": "When the gate was asked last, Unix time.",
    "sparkfleet_gate_passed_timestamp_seconds": "When it passed last, Unix time.",
    "sparkfleet_gate_acceptance_ratio": "Share of drafts accepted at position 0 when the gate was asked last, from 0 to 1.",
    "sparkfleet_gate_drafts": "Drafts of that measurement.",
    "sparkfleet_gate_tokens_per_second": "Tokens per second of one stream in that measurement.",
    "sparkfleet_watchdog_verdict": "1 for the verdict of the watchdog's last look, 0 for the others.",
    "sparkfleet_watchdog_finding": "Whether the last look found this kind of fault, 1 or 0.",
    "sparkfleet_watchdog_looked_timestamp_seconds": "When the watchdog looked last, Unix time.",
    "sparkfleet_watchdog_acts": "Whether the watchdog may restart the server, 1 or 0.",
    "sparkfleet_watchdog_restarts": "Restarts by the watchdog within the last hour.",
    "sparkfleet_watchdog_agent_up": "What the watchdog tells the gateways, 1 for up and 0 for down.",
    "sparkfleet_watchdog_acceptance_ratio": "Share of drafts accepted in the watchdog's last window, from 0 to 1.",
    "sparkfleet_run_held": "Whether a run has this host, 1 or 0.",
    "sparkfleet_run_since_timestamp_seconds": "Since when the run has it, Unix time.",
}
HOUR = 3600.0


def of_state(state: Mapping[str, Any] | None) -> list[Sample]:
    """:param state: as `_serve/state.py` reads it; None where nothing passed yet"""
    current = (state or {}).get("current")
    if not current:
        return []
    serving = current["serving"]
    gate = serving.get("gate")
    gate = gate if isinstance(gate, dict) else {}
    found = [
        Sample(
            "sparkfleet_served_info",
            1,
            {
                "recipe": str(serving.get("recipe") or ""),
                "model": str(gate.get("served_model") or ""),
                "image": serving["container"]["image"].rpartition("@")[2],
                "lock": locked(serving),
            },
        )
    ]
    floor = gate.get("acceptance_floor")
    if gate.get("speculation") and isinstance(floor, (int, float)):
        found.append(Sample("sparkfleet_acceptance_floor", floor))
    return found


def locked(serving: Mapping[str, Any]) -> str:
    """Digest of all that the lock names of what serves, the same on every host with it: image, commits of models, files."""
    names = {
        "image": serving["container"]["image"],
        "models": {role: str(model["path"]).split("/")[-2:] for role, model in serving["models"].items()},
        "files": sorted([file["path"], file["sha256"]] for file in serving["files"]),
    }
    return hashlib.sha256(json.dumps(names, sort_keys=True).encode()).hexdigest()[:16]


def of_gate(said: Mapping[str, Any] | None) -> list[Sample]:
    """:param said: as `_serve/verdict.py` reads it; None where the gate was never asked"""
    if said is None:
        return []
    numbers = {
        "sparkfleet_gate_passed": said["verdict"] == gate_verdict.PASSED,
        "sparkfleet_gate_timestamp_seconds": said["at"],
        "sparkfleet_gate_passed_timestamp_seconds": said["passed_at"],
        "sparkfleet_gate_acceptance_ratio": said["acceptance_rate"],
        "sparkfleet_gate_drafts": said["drafts"],
        "sparkfleet_gate_tokens_per_second": said["tokens_per_second"],
    }
    return [Sample(name, float(value)) for name, value in numbers.items() if value is not None]


def of_watchdog(said: Mapping[str, Any] | None, now: float) -> list[Sample]:
    """:param said: as `_serve/watched.py` reads it; None without a watchdog"""
    if said is None:
        return []
    kinds = {finding["kind"] for finding in said["findings"]}
    found = [
        Sample("sparkfleet_watchdog_verdict", float(said["verdict"] == each), {"verdict": each})
        for each in watched.VERDICTS
    ]
    found += [
        Sample("sparkfleet_watchdog_finding", float(each in kinds), {"kind": each}) for each in watched.KINDS
    ]
    found += [
        Sample("sparkfleet_watchdog_looked_timestamp_seconds", said["looked_at"]),
        Sample("sparkfleet_watchdog_acts", float(said["mode"] == "act")),
        Sample("sparkfleet_watchdog_restarts", sum(now - each <= HOUR for each in said["restarts"])),
        Sample("sparkfleet_watchdog_agent_up", float(said["agent"] == "up")),
    ]
    rate = (said.get("speculation") or {}).get("acceptance_rate")
    return found if rate is None else [*found, Sample("sparkfleet_watchdog_acceptance_ratio", rate)]


def of_run(run: Mapping[str, Any] | None) -> list[Sample]:
    """:param run: the run that has the host, with its C(since) in ISO 8601; None without one"""
    found = [Sample("sparkfleet_run_held", float(run is not None))]
    try:
        since = datetime.strptime(str((run or {}).get("since")), "%Y-%m-%dT%H:%M:%SZ")
    except ValueError:
        return found
    at = since.replace(tzinfo=timezone.utc).timestamp()
    return [*found, Sample("sparkfleet_run_since_timestamp_seconds", at)]
