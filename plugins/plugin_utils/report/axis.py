# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An axis from 0 with round numbers. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence

TICKS = 5


def axis(values: Sequence[float | None], ticks: int = TICKS) -> tuple[float, float]:
    """Where the axis ends and how far its ticks are apart: round numbers, at most so many of them and 0."""
    most = max((value for value in values if value), default=1.0)
    rough = most / ticks
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(unit * factor for factor in (1, 2, 2.5, 5, 10) if unit * factor >= rough * (1 - 1e-9))
    return step * math.ceil(most / step - 1e-9), step
