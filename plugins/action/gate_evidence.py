# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Private to the role vllm_gate: the part of a gate's result that is recorded.

Options: C(gate), what the gate returned; C(host), the versions of the host.
"""

from __future__ import annotations

from typing import Any, ClassVar

from ..plugin_utils.compute import Compute
from ..plugin_utils.serving import record


class ActionModule(Compute):
    ARGUMENT_SPEC: ClassVar[dict[str, Any]] = {
        "gate": {"type": "dict", "required": True},
        "host": {"type": "dict", "required": True},
    }

    def compute(self, options: dict[str, Any], variables: dict[str, Any]) -> dict[str, Any]:
        return {"evidence": record.gate_evidence(options["gate"], options["host"])}
