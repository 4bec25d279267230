# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Progress front of the module of the same name."""

from __future__ import annotations

from typing import Any

from ..plugin_utils.with_progress import WithProgress


class ActionModule(WithProgress):
    MODULE, TIMEOUT, WHAT = "sparkfleet.vllm.hf_snapshot", 14400, "the models"

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        # Check mode can be a play's or a block's, which no variable tells.
        return (
            {**result, "check_mode": self._task.check_mode} if self._task.args.get("settled_only") else result
        )
