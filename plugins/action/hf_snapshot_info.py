# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A look is one plain execution. Only hashing takes long, and reports progress. Differences are findings, not failures."""

from __future__ import annotations

from typing import Any

from ansible.module_utils.parsing.convert_bool import boolean
from ansible.plugins.action import ActionBase

from ..plugin_utils.drift import host as findings
from ..plugin_utils.with_progress import WithProgress


class ActionModule(WithProgress):
    MODULE, TIMEOUT, WHAT = "sparkfleet.vllm.hf_snapshot_info", 14400, "every file hashed"

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        if boolean(self._task.args.get("hash", False), strict=False):
            result = super().run(tmp, task_vars)
        else:
            result = ActionBase.run(self, tmp, task_vars) | self._execute_module(
                self.MODULE, task_vars=task_vars
            )
        return result | ({"drift": findings.models(result["look"])} if "look" in result else {})
