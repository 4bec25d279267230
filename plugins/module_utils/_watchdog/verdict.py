# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The verdict as others read it: a file, the line for the gateways, and a line of the journal. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from .._serve.watched import DOWN, HELD, UNKNOWN, VERSION
from .judge import Judgement
from .memory import Memory
from .seen import Look, Now
from .settings import ACT, Settings


def document(judgement: Judgement, look: Look, settings: Settings, kept: Sequence[str]) -> dict[str, Any]:
    """What verdict.json holds."""
    return {
        "version": VERSION,
        "looked_at": look.now.unix,
        "mode": settings.mode,
        "recipe": look.record.recipe if look.record else None,
        "container": look.container.id if look.container else None,
        "verdict": judgement.verdict,
        "reason": judgement.reason,
        "findings": [
            dataclasses.asdict(each) | {"since": judgement.memory.since.get(each.kind, look.now.unix)}
            for each in judgement.findings
        ],
        "speculation": judgement.speculation,
        "restarts": [each["unix"] for each in judgement.memory.recent(look.now)],
        "agent": agent(judgement, settings).partition(" ")[0],
        "evidence": list(kept),
    }


def failed(reason: str, now: Now, memory: Memory, mode: str, kept: Sequence[str]) -> dict[str, Any]:
    """What it holds when the look itself failed."""
    look = Look(now)
    return document(Judgement(UNKNOWN, reason, memory), look, Settings(mode=mode), kept)


def agent(judgement: Judgement, settings: Settings) -> str:
    """The line for the gateways. What the watchdog does not act on keeps no requests away.

    HAProxy 2.6 takes no notice of a word that a sharp follows without a space, whatever its manual says.
    """
    if settings.mode != ACT or judgement.verdict in (HELD, UNKNOWN):
        return "up"
    if judgement.verdict == DOWN:
        return f"down #{DOWN}"
    return f"down #{judgement.worst.kind}" if judgement.worst else "up"
