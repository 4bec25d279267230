# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a module printed, as a controller takes it."""

from __future__ import annotations

import json
from typing import Any


def result(text: str) -> dict[str, Any]:
    """Since ansible-core 2.22 what the controller is to mask comes along, and goes no further."""
    found: dict[str, Any] = json.loads(text)
    found.pop("_ansible_new_secrets", None)
    return found
