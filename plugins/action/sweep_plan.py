# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Private to the role speculation_sweep: the sweep of a host before its first turn, and what it will measure, for a person.

The options are those of C(wanted) in plugins/plugin_utils/bench/sweep.py. The result is a sweep so far: C(wanted), all candidates
in their order, and C(candidates), those that had their turn. C(lines) are the text.
"""

from __future__ import annotations

from typing import Any, ClassVar

from ..plugin_utils.bench import sweep
from ..plugin_utils.compute import Compute


class ActionModule(Compute):
    ARGUMENT_SPEC: ClassVar[dict[str, Any]] = {
        "serving": {"type": "dict", "required": True},
        "recipe": {"type": "dict", "required": True},
        "candidates": {"type": "raw", "required": True},
        "depths": {"type": "raw", "required": True},
        "methods": {"type": "dict", "required": True},
        "loads": {"type": "raw", "required": True},
        "decides": {"type": "raw", "required": True},
    }
    REFUSALS = (sweep.SweepError,)

    def compute(self, options: dict[str, Any], variables: dict[str, Any]) -> dict[str, Any]:
        wanted = sweep.wanted(**options)
        lines = sweep.describe(wanted, options["serving"], options["loads"])
        return {"wanted": wanted, "candidates": [], "lines": lines}
