# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Private to the role vllm_serve: what must be done so that a host serves what it should. See plugin_utils/serving/rollout.py."""

from __future__ import annotations

from typing import Any, ClassVar

from ..plugin_utils.compute import Compute
from ..plugin_utils.serving import rollout


class ActionModule(Compute):
    ARGUMENT_SPEC: ClassVar[dict[str, Any]] = {
        "info": {"type": "dict", "required": True},
        "serving": {"type": "dict", "required": True},
        "differs": {"type": "bool", "required": True},
        "unit": {"type": "str", "required": True},
        "host": {"type": "dict", "required": True},
    }

    def compute(self, options: dict[str, Any], variables: dict[str, Any]) -> dict[str, Any]:
        return rollout.change(**options)
