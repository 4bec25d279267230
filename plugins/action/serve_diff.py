# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Shows what would change in a host's container, one thing per line. On the controller; connects to nothing."""

from __future__ import annotations

from typing import Any, ClassVar

from ansible.errors import AnsibleActionFail

from ..plugin_utils.compute import Compute
from ..plugin_utils.serving import diff


class ActionModule(Compute):
    ARGUMENT_SPEC: ClassVar[dict[str, Any]] = {
        "compared": {"type": "dict", "required": True},
        "container": {"type": "dict"},
        "name": {"type": "str", "default": "container"},
    }

    def compute(self, options: dict[str, Any], variables: dict[str, Any]) -> dict[str, Any]:
        if "diff" not in options["compared"]:
            raise AnsibleActionFail(
                "compared: expected a result of community.docker.docker_container with its diff, seen none; run "
                "that task with diff: true (and no_log: true, for what it shows by itself)"
            )
        sides = options["compared"]["diff"]
        was, wanted = sides.get("before") or {}, sides.get("after") or {}
        if was.get("exists") is False and options["container"]:
            was, wanted = {}, diff.whole(options["container"])
        before, after = diff.lines(was, wanted)
        host = variables.get("inventory_hostname", "")
        return {
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
