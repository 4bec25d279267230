# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Progress front of the module of the same name."""

from __future__ import annotations

from typing import Any

from ansible.errors import AnsibleActionFail

from ..plugin_utils.with_progress import WithProgress

OF_A_LOOK = ("settled_only", "pair", "interface", "address")
"""Options that this module had before hf_snapshot_info took over the looks."""


class ActionModule(WithProgress):
    MODULE, TIMEOUT, WHAT = "sparkfleet.vllm.hf_snapshot", 14400, "the models"

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        if looks := [name for name in OF_A_LOOK if name in self._task.args]:
            raise AnsibleActionFail(
                f"expected options of a run that brings snapshots, seen {', '.join(looks)}; do: look with "
                "sparkfleet.vllm.hf_snapshot_info, which takes the rest of them and is settled_only by itself"
            )
        return super().run(tmp, task_vars)
