# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Private to the role speculation_sweep: the next candidate, and the record that serves it.

Options: C(so_far), the sweep so far; C(serving), the record of what serves; C(early), whether to leave out candidates that can no longer
win; C(concurrency), the load that decides; C(margin), the least share by which a gain counts. The result is the sweep so far with those
that are left out now, and C(speculation), none for off, C(serving), C(done).
"""

from __future__ import annotations

from typing import Any, ClassVar

from ..plugin_utils.bench import statistics, sweep
from ..plugin_utils.compute import Compute
from ..plugin_utils.serving import record


class ActionModule(Compute):
    ARGUMENT_SPEC: ClassVar[dict[str, Any]] = {
        "so_far": {"type": "dict", "required": True},
        "serving": {"type": "dict", "required": True},
        "early": {"type": "bool", "required": True},
        "concurrency": {"type": "int", "required": True},
        "margin": {"type": "float", "required": True},
    }
    REFUSALS = (statistics.TuneError,)

    def compute(self, options: dict[str, Any], variables: dict[str, Any]) -> dict[str, Any]:
        so_far, serving = options.pop("so_far"), options.pop("serving")
        turn = sweep.turn(so_far["candidates"], so_far["wanted"], **options)
        return turn | {
            "wanted": so_far["wanted"],
            "serving": None if turn["done"] else record.variant(serving, turn["speculation"]),
        }
