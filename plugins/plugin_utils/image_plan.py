# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a fleet lacks an image, from each host's look. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any


def plan(looks: Iterable[Mapping[str, Any]]) -> dict[str, bool]:
    """What must be done for an image in a fleet.

    :param looks: by each host of the play, the result of ``image_pull`` when it only looked; empty if the host is not set up yet
    :returns: ``{bring: whether any host has something to do, fetch: whether the fleet's registry needs the image, because a host
        lacks it and engines ask a mirror for it}``
    """
    known = list(looks)
    return {
        "bring": any(not look.get("settled") for look in known),
        "fetch": any(look.get("mirrored") and not look.get("id") for look in known),
    }
