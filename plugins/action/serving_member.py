# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Private to the role vllm_serve: what a host is in its unit. See plugin_utils/unit/members.py."""

from __future__ import annotations

from typing import Any, ClassVar

from ..module_utils._common import paths, sources
from ..module_utils._unit import install
from ..plugin_utils.compute import Compute, of_hosts
from ..plugin_utils.unit import members


class ActionModule(Compute):
    ARGUMENT_SPEC: ClassVar[dict[str, Any]] = {
        "nodes": {"type": "int", "required": True},
        "among": {"type": "list", "elements": "str", "required": True},
        "store": {"type": "str", "required": True},
    }
    REFUSALS = (members.UnitError, sources.SourceError)

    def compute(self, options: dict[str, Any], variables: dict[str, Any]) -> dict[str, Any]:
        nodes = options["nodes"]
        if nodes == 1:
            return {"member": {}}
        # The host gets the program from the same sources, so its place is known without a look.
        program = paths.supervisor_path(options["store"], sources.sha256(sources.files(install.ENTRY)))
        known = of_hosts(variables, options["among"], members.NAMES)
        played = variables["ansible_play_hosts_all"]
        return {
            "member": members.member(variables["inventory_hostname"], known, nodes, played, program),
        }
