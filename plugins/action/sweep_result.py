# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Private to the role speculation_sweep: the whole sweep of one host, in the form that C(bench_report) takes.

The options are those of C(made) in plugins/plugin_utils/bench/sweep.py.
"""

from __future__ import annotations

from typing import Any, ClassVar

from ..plugin_utils.bench import sweep
from ..plugin_utils.compute import Compute


class ActionModule(Compute):
    ARGUMENT_SPEC: ClassVar[dict[str, Any]] = {
        "candidates": {"type": "list", "elements": "dict", "required": True},
        "serving": {"type": "dict", "required": True},
        "recipe": {"type": "dict", "required": True},
        "info": {"type": "dict", "required": True},
        "concurrency": {"type": "int", "required": True},
        "margin": {"type": "float", "required": True},
        "propose": {"type": "bool", "required": True},
    }

    def compute(self, options: dict[str, Any], variables: dict[str, Any]) -> dict[str, Any]:
        return sweep.made(**options, host=variables["inventory_hostname"])
