# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""For the modules without their own action that run on a gateway; meta/runtime.yml lists them."""

from __future__ import annotations

from ..plugin_utils.at_gateway import AtGateway


class ActionModule(AtGateway):
    pass
