# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters of the drift report: thin fronts of plugin_utils/drift."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..plugin_utils.drift import host


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {
            "drift_host": host.host,
            "drift_models": host.models,
            "drift_patches": host.patches,
        }
