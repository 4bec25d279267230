# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Controller side of C(hf_snapshot): one short look, and only if something is to be done a run that says how far it is."""

from __future__ import annotations

from typing import Any

from ..plugin_utils.drift import host as findings
from ..plugin_utils.look_then_run import LookThenRun


class ActionModule(LookThenRun):
    MODULE, TIMEOUT, WHAT = "sparkfleet.vllm.hf_snapshot", 14400, "the models"

    def look_then_run(self, task_vars: dict[str, Any] | None) -> dict[str, Any]:
        if self._task.args.get("settled_only"):
            # Check mode can be a play's or a block's, which no variable tells.
            look = {
                **self._execute_module(self.MODULE, task_vars=task_vars),
                "check_mode": self._task.check_mode,
            }
        else:
            look = super().look_then_run(task_vars)
        if self._task.check_mode and "look" in look:
            look["drift"] = findings.models(look["look"])
        return look
