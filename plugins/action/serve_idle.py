# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Progress front of the module of the same name."""

from __future__ import annotations

from typing import Any

from ..plugin_utils.background import run_with_progress, seconds
from ..plugin_utils.under_lock import UnderLock

SLACK = 60
"""Seconds that a last look may take."""


class ActionModule(UnderLock):
    TRANSFERS_FILES = False
    _supports_check_mode = True
    _supports_async = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        args = self._task.args
        limit = seconds(args, "timeout", 600) + SLACK
        return result | run_with_progress(self, "sparkfleet.vllm.serve_idle", args, task_vars, limit)
