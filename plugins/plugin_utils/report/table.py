# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The fleet at a glance: one row per host, from what was locked and what the gate measured."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping, Sequence
from typing import Any

from ...module_utils._common.terminal import one_line

COLUMNS = (
    "host",
    "image",
    "body",
    "draft",
    "patch md5",
    "drafts",
    "accepted at 0",
    "tok/s",
    "away",
    "verdict",
)

UNIT = "unit"
"""Column of a fleet with units."""
LONGEST = 500
"""Characters of a cell that are shown; a file of the report has all of them."""
PASS = "pass"  # noqa: S105
"""Verdict of the gate on a host that serves as it should."""
UNTOUCHED = "untouched"
"""Diagnosis of a host whose turn never came."""


def _digest(value: str | None) -> str:
    return (value or "").split("sha256:")[-1][:12] or "-"


def _percent(rate: float | None) -> str:
    return "-" if rate is None else f"{rate:.1%}"


def _speed(gate: Mapping[str, Any]) -> str:
    """The rate that the gate measured. If there is none, the gate has a warning that says why."""
    speed = gate.get("decode_tokens_per_second")
    if speed is None:
        return "not measurable" if gate.get("rate") else "-"
    return f"{speed:.1f}"


def _md5(files: Sequence[Mapping[str, Any]]) -> str:
    return ", ".join(file["md5"] for file in files) or "none"


def known(variables: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a host's facts that :func:`row` shows."""
    names = {"lock": "recipe_lock", "gate": "spark_gate", "served": "spark_served"}
    found = {key: variables.get(name) or {} for key, name in names.items()}
    record = found["served"] or (variables.get("spark_candidate") or {}).get("serving") or {}
    return found | {
        "unit": record.get("unit"),
        "failure": variables.get("spark_failure"),
        "rollback": variables.get("spark_rollback") or {},
    }


def row(
    host: str,
    lock: Mapping[str, Any],
    gate: Mapping[str, Any],
    failure: Mapping[str, Any] | None,
    served: Mapping[str, Any] | None = None,
    window: Mapping[str, float] | None = None,
    rollback: Mapping[str, Any] | None = None,
    unit: Mapping[str, Any] | None = None,
) -> dict[str, str]:
    """One host as text, keyed by :data:`COLUMNS`, and its place in a unit. `-` stands for what was not measured.

    :param gate: what the gate returned when it passed, else empty
    :param failure: the failed result with the name of its task, if the host failed; a refusal of the gate holds
        its diagnosis and what was measured until then
    :param served: the record that passed the gate; without one, the lock tells what should have been served
    :param window: how long nothing served, as ``plugin_utils/serving/rollout.py`` counts it
    :param rollback: ``{passed, outcome}`` of a host that was brought back
    :param unit: as the record of a member has it
    """
    models = (served or {}).get("models") or {}
    commits = {role: posixpath.basename(model["path"]) for role, model in models.items()} or {
        role: model["commit"] for role, model in (lock.get("models") or {}).items()
    }
    image = ((served or {}).get("container") or {}).get("image") or (lock.get("image") or {}).get("digest")
    verdict = gate.get("verdict", "not measured")
    if failure is not None:
        gate = failure
        verdict = f"FAILED: {failure.get('diagnosis') or failure['task']}"
        if failure.get("diagnosis") == UNTOUCHED:
            verdict = UNTOUCHED
    if rollback:
        verdict += "; rolled back, and that passes" if rollback["passed"] else "; THE ROLLBACK FAILED, TOO"
    drafts, rate = gate.get("drafts"), gate.get("acceptance_rate")
    return {
        "host": host,
        UNIT: f"{unit['name']}, rank {unit['rank']}" if unit else "-",
        "image": _digest(image),
        "body": commits.get("body", "")[:12] or "-",
        "draft": commits.get("draft", "")[:12] or "-",
        "patch md5": _md5(gate.get("files") or lock.get("patches") or []),
        "drafts": "-" if drafts is None else str(drafts),
        "accepted at 0": _percent(rate),
        "tok/s": _speed(gate),
        "away": "-" if not window else f"{window['gate']:.0f} s",
        "verdict": verdict,
    }


def columns(rows: Sequence[Mapping[str, str]]) -> tuple[str, ...]:
    """Those of a fleet: the unit only where there is one."""
    host, *others = COLUMNS
    return (host, *([UNIT] if any(row[UNIT] != "-" for row in rows) else []), *others)


def render(rows: Sequence[Mapping[str, str]], columns: Sequence[str] = COLUMNS) -> list[str]:
    """Rows as aligned lines under a heading. A cell may hold the words of a host: it stays in its line."""
    shown = [{name: one_line(row[name][:LONGEST]) for name in columns} for row in rows]
    width = {name: max([len(name), *(len(row[name]) for row in shown)]) for name in columns}
    lines = [
        "  ".join(name.ljust(width[name]) for name in columns),
        "  ".join("-" * width[name] for name in columns),
    ]
    return [
        line.rstrip()
        for line in lines + ["  ".join(row[name].ljust(width[name]) for name in columns) for row in shown]
    ]
