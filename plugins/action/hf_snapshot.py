# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Controller side of C(hf_snapshot): one short look, and only if something is to be done a run that says how far it is."""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase
from ansible_collections.sparkfleet.vllm.plugins.plugin_utils._settled import look_then_run

MODULE = "sparkfleet.vllm.hf_snapshot"
TIMEOUT = 14400


class ActionModule(ActionBase):
    TRANSFERS_FILES = False
    _supports_check_mode = True
    _supports_async = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        if self._task.args.get("settled_only"):
            # Check mode can be a play's or a block's, which no variable tells.
            look = self._execute_module(MODULE, task_vars=task_vars)
            return result | look | {"check_mode": self._task.check_mode}
        return result | look_then_run(self, MODULE, task_vars, timeout=TIMEOUT, what="the models")
