# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Secrets: which variables hold one, and a text without them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

_SECRET_NAME = re.compile(
    r"KEY|TOKEN|SECRET|PASSW|PASSPHRASE|CREDENTIAL|(?:^|_)AUTH(?:$|_|ORIZATION)|(?:^|_)DSN$", re.IGNORECASE
)
_SECRET_OPTION = re.compile(r"(?:^|[._-])(?:api[._-]?key|token|secret|password|passphrase)$", re.IGNORECASE)
_HUB_TOKEN = re.compile(r"hf_[A-Za-z0-9]{16,}")
_USER = re.compile(r"://[^\s/@]{1,500}@")
MASK = "********"
"""In place of a secret in a result, as Ansible has it."""


def is_secret(name: str) -> bool:
    """Whether a variable of that name holds a secret."""
    return bool(_SECRET_NAME.search(name))


def is_secret_option(name: str) -> bool:
    """Whether an option of that name holds a secret: ``api-key`` and ``ssl-keyfile-password`` do, ``tokenizer`` does not."""
    return bool(_SECRET_OPTION.search(name))


def mask(text: str, secrets: Sequence[str]) -> str:
    """`text` without the given secrets, without anything that looks like a Hub token, and without the user of an address."""
    for secret in secrets:
        text = text.replace(secret, "***")
    return _USER.sub("://***@", _HUB_TOKEN.sub("hf_***", text))


def masked(value: Any, secrets: Iterable[str]) -> Any:
    """A result of a module with none of the secrets in its texts, however deep. Keys stay as they are."""
    found = sorted(filter(None, secrets), key=len, reverse=True)
    return _masked(value, found) if found else value


def _masked(value: Any, secrets: Sequence[str]) -> Any:
    if isinstance(value, str):
        for secret in secrets:
            value = value.replace(secret, MASK)
        return value
    if isinstance(value, Mapping):
        return {key: _masked(entry, secrets) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_masked(entry, secrets) for entry in value]
    return value
