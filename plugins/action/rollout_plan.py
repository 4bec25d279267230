# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Private to the role rollout: the batches of a run, of all hosts of the play. Once, on the controller."""

from __future__ import annotations

from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.sparkfleet.vllm.plugins.module_utils import _rollout


class ActionModule(ActionBase):
    BYPASS_HOST_LOOP = True
    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        _spec, options = self.validate_argument_spec(
            argument_spec={"sizes": {"type": "raw", "required": True}}
        )
        variables = task_vars or {}
        try:
            batches = _rollout.plan(variables["hostvars"], variables["ansible_play_hosts"], options["sizes"])
        except _rollout.BatchError as error:
            raise AnsibleActionFail(str(error)) from error
        return result | {"batches": batches, "said": [batch["said"] for batch in batches]}
