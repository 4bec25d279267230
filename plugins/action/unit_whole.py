# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Private to the role vllm_serve: fails if a run has only some of the members of a unit. Option C(serving): the record of the host."""

from __future__ import annotations

from typing import Any, ClassVar

from ..plugin_utils.compute import Compute
from ..plugin_utils.unit import change


class ActionModule(Compute):
    ARGUMENT_SPEC: ClassVar[dict[str, Any]] = {"serving": {"type": "dict", "required": True}}
    REFUSALS = (change.UnitError,)

    def compute(self, options: dict[str, Any], variables: dict[str, Any]) -> dict[str, Any]:
        change.check_whole(options["serving"], variables["ansible_play_hosts_all"])
        return {}
