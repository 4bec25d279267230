# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The drift report as series, for the textfile collector of a node exporter. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from ...module_utils._drift.finding import DRIFT
from ...module_utils._series.text import Sample, text
from .report import HELD, UNKNOWN

HELPS = {
    "sparkfleet_drift_findings": "Differences of a host from recipe and lock, without warnings. A host that was not judged has no series.",
    "sparkfleet_drift_timestamp_seconds": "When the hosts were compared, Unix time.",
}


def of_report(made: Mapping[str, Any]) -> str:
    """:param made: a report, as :mod:`report` makes it"""
    at = datetime.fromisoformat(made["made"].replace("Z", "+00:00")).timestamp()
    found = [
        Sample(
            "sparkfleet_drift_findings",
            sum(finding["severity"] == DRIFT for finding in host["findings"]),
            {"spark": name},
        )
        for name, host in made["hosts"].items()
        if host["verdict"] not in (UNKNOWN, HELD)
    ]
    return text([Sample("sparkfleet_drift_timestamp_seconds", at), *found], HELPS)
