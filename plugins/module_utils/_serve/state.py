# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a Spark is known to serve well: the records that passed the gate. Pure functions of data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from .._common import json_text

VERSION = 1
KEPT = ("current", "last_good")


def record(
    state: Mapping[str, Any] | None, serving: Mapping[str, Any], evidence: Mapping[str, Any]
) -> dict[str, Any]:
    """The state after `serving` has passed the gate.

    The same spec again keeps its first evidence, so a second run writes nothing, unless it passed on another driver, toolkit or
    engine (``evidence["host"]``) since. Another spec becomes ``current``, and the former one ``last_good``, to which a rollback returns.

    :param state: the state so far, or None
    :param serving: container spec with what it was made of (recipe, image, models, patches); no secret
    :param evidence: what the gate measured
    """
    current = (state or {}).get("current")
    if current is not None and current["serving"] == serving:
        if current["gate"].get("host") == evidence.get("host"):
            return dict(state or {})
        return {**(state or {}), "current": {"serving": dict(serving), "gate": dict(evidence)}}
    return {
        "version": VERSION,
        "current": {"serving": dict(serving), "gate": dict(evidence)},
        "last_good": current if current is not None else None,
    }


def parse(text: str | None) -> dict[str, Any] | None:
    """The state that a file holds; None for no file.

    :raises ValueError: its version is not known here, or it is not well formed
    """
    if text is None:
        return None
    state = json_text.read(text, "the file")
    if not isinstance(state, dict) or state.get("version") != VERSION:
        raise ValueError(f"version {state.get('version') if isinstance(state, dict) else None!r}")
    for which in KEPT:
        if state.get(which) is not None and (wrong := _wrong(state[which])):
            raise ValueError(f"{which}: {wrong}")
    return state


def _wrong(entry: Any) -> str | None:
    """What in a record is not as its readers expect; None for a good one."""
    serving = entry.get("serving") if isinstance(entry, dict) else None
    if not isinstance(serving, dict) or not isinstance(entry.get("gate"), dict):
        return "expected serving and gate"
    container, models, files = (serving.get(name) for name in ("container", "models", "files"))
    if not isinstance(container, dict) or not isinstance(container.get("image"), str):
        return "serving.container: expected an image"
    if not isinstance(models, dict) or not all(_has(model, "path") for model in models.values()):
        return "serving.models: expected a path of each"
    if not isinstance(files, list) or not all(_has(file, "path", "sha256") for file in files):
        return "serving.files: expected path and sha256 of each"
    return None


def _has(entry: Any, *names: str) -> bool:
    return isinstance(entry, dict) and all(isinstance(entry.get(name), str) for name in names)


def port_of(serving: Mapping[str, Any]) -> int | None:
    """The TCP port of a record's server; None where it names none."""
    gate = serving.get("gate")
    try:
        return urlsplit(gate["base_url"]).port if isinstance(gate, Mapping) else None
    except (KeyError, ValueError, TypeError, AttributeError):
        return None


def rank_of(serving: Mapping[str, Any]) -> int:
    """The rank of a record's server in its unit; 0 of a head, and of one that serves alone. Only those answer requests."""
    unit = serving.get("unit")
    rank = unit.get("rank") if isinstance(unit, Mapping) else None
    return rank if isinstance(rank, int) else 0


def unit_of(serving: Mapping[str, Any]) -> tuple[list[str], list[int]]:
    """The addresses of the members of a record's unit, and its ports; both empty where it has none."""
    unit = serving.get("unit")
    members = unit.get("members") if isinstance(unit, Mapping) else None
    if not isinstance(unit, Mapping) or not isinstance(members, list):
        return [], []
    addresses = [each["address"] for each in members if _has(each, "address")]
    given = [unit.get(name) for name in ("port", "master_port")]
    ports = [port for port in given if isinstance(port, int) and not isinstance(port, bool)]
    return addresses, ports


def unreadable(path: str, error: Exception) -> str:
    """The message about a file that :func:`parse` refuses."""
    return (
        f"{path}: expected a state of version {VERSION}, seen: {error}; move the file away and deploy again"
    )
