# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a fleet lacks an image, from what each host showed. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any


def plan(looks: Iterable[Mapping[str, Any]]) -> dict[str, bool]:
    """What is to be done for an image in a fleet.

    :param looks: what ``image_pull`` returned of each host of the play when it only looked; empty of a host that is not set up yet
    :returns: ``{bring: whether any host has something to do, fetch: whether the fleet's registry needs the image, because a host
        lacks it and engines ask a mirror for it}``
    """
    known = list(looks)
    return {
        "bring": any(not look.get("settled") for look in known),
        "fetch": any(look.get("mirrored") and not look.get("id") for look in known),
    }
