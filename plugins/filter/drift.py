# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters of the drift report: thin fronts of module_utils."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible_collections.sparkfleet.vllm.plugins.module_utils import _drift_host


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {
            "drift_host": _drift_host.host,
            "drift_models": _drift_host.models,
            "drift_patches": _drift_host.patches,
        }
