# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Private to the role speculation_sweep: the sweep so far, with the result of the candidate whose turn it was.

Options: C(so_far), the sweep before; C(speculation), none for off; C(state); C(because), why it was not measured; C(measurement).
"""

from __future__ import annotations

from typing import Any, ClassVar

from ..plugin_utils.bench import statistics, sweep
from ..plugin_utils.compute import Compute


class ActionModule(Compute):
    ARGUMENT_SPEC: ClassVar[dict[str, Any]] = {
        "so_far": {"type": "dict", "required": True},
        "speculation": {"type": "dict"},
        "state": {"type": "str", "choices": [statistics.MEASURED, statistics.FAILED], "required": True},
        "because": {"type": "str", "default": ""},
        "measurement": {"type": "dict"},
    }

    def compute(self, options: dict[str, Any], variables: dict[str, Any]) -> dict[str, Any]:
        so_far = options.pop("so_far")
        return {
            "wanted": so_far["wanted"],
            "candidates": [*so_far["candidates"], sweep.entry(**options)],
        }
