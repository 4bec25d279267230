# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Controller side of C(spark_info): the module looks at the host, and this action judges what it saw."""

from __future__ import annotations

import traceback
from typing import Any

from ansible.plugins.action import ActionBase

from ..plugin_utils.drift import host as findings
from ..plugin_utils.host.judge import judge
from ..plugin_utils.host.requirements import RequirementError, VersionError

DAEMON_JSON: dict[str, Any] = {"registry_mirrors": [], "fleet_registry": "", "daemon_config": {}}
"""The wanted daemon.json if the task does not say."""


class ActionModule(ActionBase):
    TRANSFERS_FILES = False
    _supports_check_mode = True
    # Nobody would judge the result that an async job brings later.
    _supports_async = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        seen = self._execute_module("sparkfleet.vllm.spark_info", task_vars=task_vars)
        asked = seen.pop("to_judge", None)
        return result | seen | (self._judged(seen, **asked) if asked else {})

    def _judged(self, seen: dict[str, Any], wanted: dict[str, Any], daemon: dict[str, Any]) -> dict[str, Any]:
        # The wanted daemon.json may hold a password, so it does not come back from the host.
        everything = DAEMON_JSON | dict(self._task.args.get("wanted") or {}) | wanted
        try:
            judged = judge(seen, wanted, daemon)
            return judged | {"drift": findings.host(seen | judged, everything)}
        except (RequirementError, VersionError) as error:
            return {"failed": True, "msg": f"wanted: {error}"}
        except Exception as error:
            # The judge did not foresee such a host. What was seen is worth more than a traceback alone.
            return {
                "failed": True,
                "msg": f"cannot judge what was seen: {error!r}",
                "exception": traceback.format_exc(),
            }
