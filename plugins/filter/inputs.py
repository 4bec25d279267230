# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The filter for the inputs of a run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..plugin_utils import inputs


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"answered": inputs.answered}
