# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A member of a unit, by what its supervisor says. Pure. Whether the members fit together shows only when hosts are compared."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .._unit import words
from .finding import Finding

LOG = "see the container's log, then run playbooks/site.yml, which starts the unit again"


def findings(look: Mapping[str, Any]) -> list[Finding]:
    """:param look: the status of the supervisor, as `_unit/status.py` judges it"""
    if not look["phase"]:
        expected = "a supervisor that says how its server is"
        return [Finding("server", "unit-silent", expected, look["problem"], LOG)]
    if look["phase"] == words.DOWN:
        seen = f"the unit ended {look['restarts']} times within an hour, and stays down: {look['why']}"
        return [Finding("server", "unit-down", "a unit that serves", seen, LOG)]
    return []


def known(look: Mapping[str, Any], unit: Mapping[str, Any], current: Mapping[str, Any]) -> dict[str, Any]:
    """What the other members are compared with.

    :param unit: of the record that the host shall serve
    :param current: the record that passed here last; empty for none
    """
    return {
        "unit": unit["name"],
        "rank": unit["rank"],
        "phase": look["phase"],
        "generation": look["generation"],
        "recorded": {
            "recipe": current.get("recipe"),
            "image": (current.get("container") or {}).get("image"),
            "models": {role: model["path"] for role, model in (current.get("models") or {}).items()},
            "patches": sorted(file["sha256"] for file in current.get("files") or []),
        },
    }
