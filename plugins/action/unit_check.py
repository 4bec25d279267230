# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Private to the role vllm_serve: fails on every member of a unit if one of them failed, or if they differ. See plugin_utils/unit/equal.py."""

from __future__ import annotations

from typing import Any, ClassVar

from ..plugin_utils.compute import Compute, of_hosts
from ..plugin_utils.unit import equal, members


class ActionModule(Compute):
    ARGUMENT_SPEC: ClassVar[dict[str, Any]] = {"unit": {"type": "dict", "required": True}}
    REFUSALS = (members.UnitError,)

    def compute(self, options: dict[str, Any], variables: dict[str, Any]) -> dict[str, Any]:
        unit = options["unit"]
        hosts = [each["host"] for each in unit["members"]]
        equal.check(unit["name"], of_hosts(variables, hosts, equal.NAMES))
        return {}
