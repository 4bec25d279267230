# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter for recipes: a thin front of module_utils."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..module_utils._recipe import measured


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"recipe_tuned": measured.tuned}
