# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Controller side of C(patch_pin): reads each patch and holds it against the lock before any host is touched."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

from ansible_collections.sparkfleet.vllm.plugins.module_utils._patch import PatchError, check_content
from ansible_collections.sparkfleet.vllm.plugins.plugin_utils._under_lock import UnderLock


class ActionModule(UnderLock):
    TRANSFERS_FILES = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        try:
            arguments["patches"] = [self._with_content(patch) for patch in arguments.get("patches") or []]
        except (OSError, KeyError, PatchError) as error:
            reason = f"missing key {error}" if isinstance(error, KeyError) else str(error)
            return result | {"failed": True, "msg": f"patches: {reason}"}
        return result | self._execute_module(
            "sparkfleet.vllm.patch_pin", module_args=arguments, task_vars=task_vars
        )

    @staticmethod
    def _with_content(patch: dict[str, Any]) -> dict[str, Any]:
        content = Path(patch["src"]).expanduser().read_bytes()
        check_content(patch, content)
        return dict(patch) | {"content": base64.b64encode(content).decode()}
