# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The fleet at a glance: one row a host, from what was locked and what the gate measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

COLUMNS = ("host", "image", "body", "draft", "patch md5", "drafts", "accepted at 0", "tok/s", "verdict")


def _digest(value: str | None) -> str:
    return (value or "").split("sha256:")[-1][:12] or "-"


def _percent(rate: float | None) -> str:
    return "-" if rate is None else f"{rate:.1%}"


def _md5(files: Sequence[Mapping[str, Any]]) -> str:
    return ", ".join(file["md5"] for file in files) or "none"


def row(
    host: str, lock: Mapping[str, Any], gate: Mapping[str, Any], failure: Mapping[str, Any] | None
) -> dict[str, str]:
    """One host as text, keyed by :data:`COLUMNS`. What was not measured is `-`.

    :param gate: what the gate returned when it passed, else empty
    :param failure: the failed result with the name of its task, if the host failed; a refusal of the gate holds
        its diagnosis and what was measured until then
    """
    models = lock.get("models") or {}
    commits = {role: model["commit"][:12] for role, model in models.items()}
    verdict = gate.get("verdict", "not measured")
    if failure is not None:
        gate = failure
        verdict = f"FAILED: {failure.get('diagnosis') or failure['task']}"
    drafts, rate, speed = (
        gate.get("drafts"),
        gate.get("acceptance_rate"),
        gate.get("decode_tokens_per_second"),
    )
    return {
        "host": host,
        "image": _digest((lock.get("image") or {}).get("digest")),
        "body": commits.get("body", "-"),
        "draft": commits.get("draft", "-"),
        "patch md5": _md5(gate.get("files") or lock.get("patches") or []),
        "drafts": "-" if drafts is None else str(drafts),
        "accepted at 0": _percent(rate),
        "tok/s": "-" if speed is None else f"{speed:.1f}",
        "verdict": verdict,
    }


def render(rows: Sequence[Mapping[str, str]], columns: Sequence[str] = COLUMNS) -> list[str]:
    """Rows as aligned lines under a heading."""
    width = {name: max([len(name), *(len(row[name]) for row in rows)]) for name in columns}
    lines = [
        "  ".join(name.ljust(width[name]) for name in columns),
        "  ".join("-" * width[name] for name in columns),
    ]
    return [
        line.rstrip()
        for line in lines + ["  ".join(row[name].ljust(width[name]) for name in columns) for row in rows]
    ]
