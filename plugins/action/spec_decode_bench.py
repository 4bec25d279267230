# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Progress front of the module of the same name."""

from __future__ import annotations

from ..plugin_utils.asks_server import AsksServer


class ActionModule(AsksServer):
    MODULE = "sparkfleet.vllm.spec_decode_bench"
    # When the time to measure is over, the module still waits for the running requests.
    MEASURE, SLACK = 3600, 900
