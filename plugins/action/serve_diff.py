# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Shows what would change in a host's container, thing by thing. On the controller; connects to nothing."""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase
from ansible_collections.sparkfleet.vllm.plugins.module_utils import _spec_diff


class ActionModule(ActionBase):
    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        _validated, options = self.validate_argument_spec(
            {
                "compared": {"type": "dict", "required": True},
                "container": {"type": "dict"},
                "name": {"type": "str", "default": "container"},
            }
        )
        if "diff" not in options["compared"]:
            return result | {
                "failed": True,
                "msg": "compared: expected a result of community.docker.docker_container with its diff, seen none; run "
                "that task with diff: true (and no_log: true, for what it shows by itself)",
            }
        sides = options["compared"]["diff"]
        was, wanted = sides.get("before") or {}, sides.get("after") or {}
        if was.get("exists") is False and options["container"]:
            was, wanted = {}, _spec_diff.whole(options["container"])
        before, after = _spec_diff.lines(was, wanted)
        host = (task_vars or {}).get("inventory_hostname", "")
        return result | {
            "changed": bool(before or after),
            "before": before,
            "after": after,
            "diff": {
                "before_header": f"{host}: {options['name']} as it is",
                "after_header": f"{host}: {options['name']} as it shall be",
                "before": "".join(f"{line}\n" for line in before),
                "after": "".join(f"{line}\n" for line in after),
            },
        }
