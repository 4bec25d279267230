# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which host gave how much of what another received, in words. Pure."""

from __future__ import annotations

from collections.abc import Mapping

NAMED = 4
"""Hosts that a line names; the others are summed up."""


def shares(counts: Mapping[str, int]) -> str:
    """The givers' shares: `spark-1 55 %, spark-2 45 %`, the largest first. A giver of next to nothing is left out."""
    total = sum(counts.values())
    if not total:
        return "nobody"
    largest = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    largest = [(host, count) for host, count in largest if 200 * count >= total]
    named = [f"{host} {100 * count / total:.0f} %" for host, count in largest[:NAMED]]
    if rest := sum(count for _host, count in largest[NAMED:]):
        named.append(f"{len(largest) - NAMED} more {100 * rest / total:.0f} %")
    return ", ".join(named)
