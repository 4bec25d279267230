# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The vocabulary of a drift report: subjects, findings, and the part that one role gives for one host. Pure.

A part is ``{subjects, findings, unknown, known}``: the subjects to look at, what differs, why a subject (by its name) could
not be judged, and values that only the whole fleet can judge.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

OF_SPARK = ("host", "engine", "models", "patches", "container", "server", "boot", "watchdog", "record")
OF_GATEWAY = ("gateway",)
SUBJECTS = (*OF_SPARK, *OF_GATEWAY)
DRIFT, WARNING = "drift", "warning"


@dataclass(frozen=True)
class Finding:
    """One thing that is not as recipe and lock say. `kind` is stable: docs/drift.md lists them."""

    subject: str
    kind: str
    expected: str
    seen: str
    do: str
    severity: str = DRIFT


def part(
    subjects: Sequence[str],
    findings: Iterable[Finding] = (),
    unknown: Mapping[str, str] | None = None,
    known: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """What a role found, as data."""
    return {
        "subjects": list(subjects),
        "findings": [asdict(finding) for finding in findings],
        "unknown": dict(unknown or {}),
        "known": dict(known or {}),
    }
