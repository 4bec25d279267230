# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Controller side of C(hf_snapshot): one short look, and only if something is to be done a run that says how far it is."""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase
from ansible_collections.sparkfleet.vllm.plugins.plugin_utils._progress import run_with_progress

MODULE = "sparkfleet.vllm.hf_snapshot"
TIMEOUT = 14400
TIMED_OUT = "Timeout exceeded"
"""What Ansible's async_wrapper says of a job that it ended."""


class ActionModule(ActionBase):
    TRANSFERS_FILES = False
    _supports_check_mode = True
    _supports_async = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        if arguments.get("settled_only"):
            # Check mode can be a play's or a block's, which no variable tells.
            return result | self._execute_module(MODULE, task_vars=task_vars) | {"check_mode": self._task.check_mode}
        if not self._task.check_mode and not self._task.async_val:
            look = self._execute_module(MODULE, {**arguments, "settled_only": True}, task_vars=task_vars)
            if look.get("failed") or look.get("settled"):
                return result | look
        # The look has validated the options.
        timeout = int(arguments.get("timeout") or TIMEOUT)
        result |= run_with_progress(self, MODULE, arguments, task_vars, timeout)
        if result.get("msg") == TIMED_OUT:
            result.pop("exception", None)
            result["msg"] = (
                f"expected the models within {timeout} s, seen a run that was not done by then and was ended; "
                "run again, since what was fetched is kept, or allow more time (timeout)"
            )
        return result
