# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where a playbook has which role."""

from __future__ import annotations

from typing import Any

import yaml
from helpers.recipe import ROOT


def places(name: str) -> list[str]:
    """The roles that a file of playbooks has, with their entry points, in their order."""
    found = []

    def walk(tasks: list[dict[str, Any]]) -> None:
        for task in tasks:
            used = task.get("ansible.builtin.import_role") or task.get("ansible.builtin.include_role")
            if used:
                found.append(f"{used['name'].rpartition('.')[2]}/{used.get('tasks_from', 'main')}")
            walk(task.get("block") or [])

    for each in yaml.safe_load((ROOT / "playbooks" / name).read_text()):
        walk(each["tasks"] if "hosts" in each else [each])
    return found
