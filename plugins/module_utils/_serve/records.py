# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The records of a host, for a module that does its work with or without them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from . import state


def servings(state_dir: str | None, which: Iterable[str] = state.KEPT) -> list[dict[str, Any]]:
    """What the host is known to serve well. A file that cannot be read has nothing: whoever needs it says so."""
    if state_dir is None:
        return []
    try:
        known = state.parse((Path(state_dir) / "state.json").read_text())
    except (OSError, ValueError):
        return []
    return [known[name]["serving"] for name in which if known and known.get(name)]


def ports(state_dir: str | None) -> list[int]:
    """Those of the servers on record."""
    return [port for serving in servings(state_dir) if (port := state.port_of(serving))]
