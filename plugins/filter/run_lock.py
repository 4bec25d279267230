# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter of the task file that takes the lock of every host: a thin front of module_utils."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..module_utils._run import run_lock


def run_lock_refusals(hosts: Sequence[str], hostvars: Mapping[str, Any], register: str) -> list[str]:
    return run_lock.refusals({host: hostvars[host].get(register) or {} for host in hosts})


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"run_lock_refusals": run_lock_refusals}
