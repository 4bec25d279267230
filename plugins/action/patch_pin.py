# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Controller side of C(patch_pin): reads each patch and compares it with the lock before any host is touched."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

from ..module_utils._serve.patch import PatchError, check_content
from ..plugin_utils.drift import host as findings
from ..plugin_utils.under_lock import UnderLock


class ActionModule(UnderLock):
    TRANSFERS_FILES = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        patches = arguments.get("patches") or []
        answer = self._pinned(arguments, patches, task_vars)
        if self._task.check_mode:
            answer["drift"] = findings.patches(answer, patches)
        return result | answer

    def _pinned(
        self, arguments: dict[str, Any], patches: list[dict[str, Any]], task_vars: dict[str, Any] | None
    ) -> dict[str, Any]:
        if arguments.get("patches") == []:
            return {"changed": False, "patches": []}
        try:
            arguments["patches"] = [self._with_content(patch) for patch in patches]
        except (OSError, KeyError, PatchError) as error:
            reason = f"missing key {error}" if isinstance(error, KeyError) else str(error)
            return {"failed": True, "msg": f"patches: {reason}"}
        answer: dict[str, Any] = self._execute_module(
            "sparkfleet.vllm.patch_pin", module_args=arguments, task_vars=task_vars
        )
        return answer

    @staticmethod
    def _with_content(patch: dict[str, Any]) -> dict[str, Any]:
        content = Path(patch["src"]).expanduser().read_bytes()
        check_content(patch, content)
        return dict(patch) | {"content": base64.b64encode(content).decode()}
