# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Progress front of the module of the same name."""

from __future__ import annotations

from ..plugin_utils.with_progress import WithProgress


class ActionModule(WithProgress):
    MODULE, TIMEOUT, WHAT = "sparkfleet.vllm.image_pull", 14400, "the image"
