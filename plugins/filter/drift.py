# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The filter that brings a report's verdict from the hosts of one play to those of another."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

REPORT = "drift_report"
"""In which variable drift.yml registers the report, on each host of the play that made it."""


def drift_refusals(hosts: Iterable[str], hostvars: Mapping[str, Any]) -> dict[str, str]:
    """Why hosts of the report do not count as they should be, by name; nothing without a report."""
    return next((dict(hostvars[host][REPORT]["refused"]) for host in hosts if REPORT in hostvars[host]), {})


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"drift_refusals": drift_refusals}
