# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What must not be shown: which variables hold it, and a text without it."""

from __future__ import annotations

import re
from collections.abc import Sequence

_SECRET_NAME = re.compile(r"KEY|TOKEN|SECRET|PASSWORD", re.IGNORECASE)
_HUB_TOKEN = re.compile(r"hf_[A-Za-z0-9]{16,}")


def is_secret(name: str) -> bool:
    """Whether a variable of that name holds what must not be shown."""
    return bool(_SECRET_NAME.search(name))


def mask(text: str, secrets: Sequence[str]) -> str:
    """`text` without the given secrets and without anything that looks like a Hub token."""
    for secret in secrets:
        text = text.replace(secret, "***")
    return _HUB_TOKEN.sub("hf_***", text)
