# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Progress front of the modules that ask a running server: first until it is ready, then to measure it."""

from __future__ import annotations

from typing import Any, ClassVar

from ansible.utils.vars import merge_hash

from .background import run_with_progress, seconds
from .under_lock import UnderLock


class AsksServer(UnderLock):
    _supports_check_mode = True
    _supports_async = True

    MODULE: ClassVar[str]
    READY: ClassVar[int] = 1200
    MEASURE: ClassVar[int]
    """Defaults of the module's options ready_timeout and measure_timeout, in seconds."""
    SLACK: ClassVar[int]
    """Seconds that the rest of the task may take."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        args = self._task.args
        limits = (("ready_timeout", self.READY), ("measure_timeout", self.MEASURE))
        limit = sum(seconds(args, name, default) for name, default in limits) + self.SLACK
        answer: dict[str, Any] = run_with_progress(self, self.MODULE, args, task_vars, limit)
        merged: dict[str, Any] = merge_hash(result, answer)
        return merged
