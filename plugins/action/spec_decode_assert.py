# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Progress front of the module of the same name."""

from __future__ import annotations

from typing import Any

from ansible.utils.vars import merge_hash
from ansible_collections.sparkfleet.vllm.plugins.plugin_utils._progress import run_with_progress, seconds
from ansible_collections.sparkfleet.vllm.plugins.plugin_utils._under_lock import UnderLock

READY, MEASURE, SLACK = 1200, 900, 300
"""Defaults of the module's two limits, and what the rest of it may take, in seconds."""


class ActionModule(UnderLock):
    _supports_check_mode = True
    _supports_async = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        args = self._task.args
        limit = seconds(args, "ready_timeout", READY) + seconds(args, "measure_timeout", MEASURE) + SLACK
        answer = run_with_progress(self, "sparkfleet.vllm.spec_decode_assert", args, task_vars, limit)
        return merge_hash(result, answer)
