# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The valid name that a misspelled one probably means. Pure."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(name: str, valid: Iterable[str]) -> str | None:
    """The valid name a writer most likely meant, whatever its case, dashes or underscores."""

    def plain(text: str) -> str:
        return text.lower().strip("-_").replace("_", "-")

    names = {plain(item): item for item in sorted(valid)}
    close = difflib.get_close_matches(plain(name), names, n=1, cutoff=0.5)
    return names[close[0]] if close else None
