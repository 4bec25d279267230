# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The images that this collection brought to a host. Only these may one day be removed from it. Pure.

{"version": 1, "images": ["vllm/vllm-openai@sha256:…", …]}
"""

from __future__ import annotations

import json
from collections.abc import Iterable

from .._common import json_text

VERSION = 1


class LedgerError(ValueError):
    """The ledger cannot be read, or another version of this collection wrote it."""


def parse(text: str | None) -> list[str]:
    """The images of a ledger, by digest. No text is an empty ledger.

    :raises LedgerError: it is not one of this version
    """
    if text is None:
        return []
    try:
        content = json_text.read(text, "the ledger")
    except json_text.JsonError as error:
        raise LedgerError(f"expected JSON, seen {error.reason}") from None
    version = content.get("version") if isinstance(content, dict) else None
    if version != VERSION:
        raise LedgerError(f"expected a ledger of version {VERSION}, seen version {version}")
    images = content.get("images")
    if not isinstance(images, list) or not all(isinstance(image, str) for image in images):
        raise LedgerError("expected a list of images, seen something else")
    return images


def render(images: Iterable[str]) -> str:
    return json.dumps({"version": VERSION, "images": sorted(set(images))}, indent=2) + "\n"
