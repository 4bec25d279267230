# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""JSON that other programs write, read as they read it themselves."""

from __future__ import annotations

import json
from typing import Any


class JsonError(ValueError):
    """The text is no JSON. The message names the file."""


def read(text: bytes, name: str) -> Any:
    """The value of a file or an answer. A byte order mark is none of it, and a key whose value is null is absent.

    :raises JsonError: it cannot be read, whatever the reason
    """
    try:
        return json.loads(text.decode("utf-8-sig"), object_pairs_hook=_without_null)
    except (ValueError, RecursionError) as error:
        raise JsonError(f"{name} cannot be read: {error}") from None


def _without_null(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    return {key: value for key, value in pairs if value is not None}
