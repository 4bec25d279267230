# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Private to the role image_sync: whether a host of the play lacks the image. Once for all hosts, on the controller.

Option C(looks): name of the variable in which each host keeps what C(image_pull) returned when it only looked.
"""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase
from ansible_collections.sparkfleet.vllm.plugins.plugin_utils._image_plan import plan


class ActionModule(ActionBase):
    BYPASS_HOST_LOOP = True
    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        _spec, options = self.validate_argument_spec(
            argument_spec={"looks": {"type": "str", "required": True}}
        )
        variables = task_vars or {}
        hostvars = variables["hostvars"]
        return result | plan(
            hostvars[host].get(options["looks"]) or {} for host in variables["ansible_play_hosts"]
        )
