# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a job hands on: a controller keeps it as the job's artifacts, and gives it to the next node of a workflow as extra
variables. As the action C(ansible.builtin.set_stats) does it, in the result of the action that knows.
"""

from __future__ import annotations

from typing import Any

PREFIX = "sparkfleet_"
"""Of names that no role takes as an input: an extra variable of a later job must not change what that job is asked for."""


def artifacts(**hosts: list[str]) -> dict[str, Any]:
    """Part of an action's result: lists of host names under names of their own, one for the whole run."""
    data = {f"{PREFIX}{name}": listed for name, listed in hosts.items()}
    return {"ansible_stats": {"data": data, "per_host": False, "aggregate": False}}
