# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Front of a module with C(settled_only): one short look, and only if something is to be done a run that says how far it is."""

from __future__ import annotations

from typing import Any, ClassVar

from ansible_collections.sparkfleet.vllm.plugins.plugin_utils._progress import TIMED_OUT, run_with_progress
from ansible_collections.sparkfleet.vllm.plugins.plugin_utils._under_lock import UnderLock


class LookThenRun(UnderLock):
    TRANSFERS_FILES = False
    _supports_check_mode = True
    _supports_async = True

    MODULE: ClassVar[str]
    TIMEOUT: ClassVar[int]
    """Default of the module's option timeout, in seconds."""
    WHAT: ClassVar[str]
    """Of what a run that ran out of time says that it is not there."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        return result | self.look_then_run(task_vars)

    def has_to_run(self) -> bool:
        """Whether the module has something to do in any case, so that there is nothing to look for."""
        return False

    def look_then_run(self, task_vars: dict[str, Any] | None) -> dict[str, Any]:
        """The result of the module with the task's arguments."""
        arguments = dict(self._task.args)
        plain = self._task.check_mode or self._task.async_val or arguments.get("settled_only")
        if not plain and not self.has_to_run():
            seen: dict[str, Any] = self._execute_module(
                self.MODULE, {**arguments, "settled_only": True}, task_vars=task_vars
            )
            if seen.get("failed") or seen.get("settled"):
                return seen
        limit = int(arguments.get("timeout") or self.TIMEOUT)
        result = run_with_progress(self, self.MODULE, arguments, task_vars, limit)
        if result.get("msg") == TIMED_OUT:
            result.pop("exception", None)
            result["msg"] = (
                f"expected {self.WHAT} within {limit} s, seen a run that was not done by then and was ended; "
                "run again, since what was fetched is kept, or allow more time (timeout)"
            )
        return result
