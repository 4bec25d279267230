# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""For the modules without their own action that change a host under the lock of their run; meta/runtime.yml lists them."""

from __future__ import annotations

from typing import Any

from ..plugin_utils.under_lock import UnderLock


class ActionModule(UnderLock):
    TRANSFERS_FILES = False
    _supports_check_mode = True
    _supports_async = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        return result | self._execute_module(task_vars=task_vars, wrap_async=self._task.async_val)
