# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether all hosts that change together have come as far as one of them. Pure.

Only what a host has said of itself counts. One that failed or was lost has said nothing of this step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...module_utils._unit import words

READY, STARTED, RUNNING, PROVEN, RESTORED = "ready", "started", "running", "proven", "restored"
STEPS = {
    READY: "be ready for the stop",
    STARTED: "start its container",
    RUNNING: "run as a member of the unit",
    PROVEN: "pass the gate",
    RESTORED: "start what passed before",
}
LONGEST = 600
"""Characters of a reason that another host shows, too."""
SILENT = "it gave no answer"


def refusal(
    hosts: Sequence[str],
    peers: Sequence[str],
    step: str,
    reached: Mapping[str, Mapping[str, Any]],
    reasons: Mapping[str, str],
) -> str:
    """Why not all hosts have come as far as `step`; empty if they have.

    :param hosts: those that change together
    :param peers: the members of the unit, the head first; none for a host that serves alone
    :param reached: by host, ``{step, look, before}`` of the last step that it has come to: what C(unit_look) returned, and the
        generation of the step before. Nothing of a host that is lost
    :param reasons: by host, why it failed last
    """
    if behind := [name for name in hosts if (reached.get(name) or {}).get("step") != step]:
        told = "; ".join(f"{name}: {(reasons.get(name) or SILENT)[:LONGEST]}" for name in behind)
        return _text(f"all of {', '.join(hosts)} to {STEPS[step]}", told, "mend that host and run again")
    if step not in (RUNNING, PROVEN) or not peers:
        return ""
    looks = {name: reached[name].get("look") or {} for name in peers}
    if idle := {name: look for name, look in looks.items() if look.get("phase") != words.RUNNING}:
        told = "; ".join(f"{name} {_phase(look)}" for name, look in idle.items())
        return _text(f"all of {', '.join(peers)} to {STEPS[RUNNING]}", told, "see the log of each container")
    generations = {name: str(look["generation"]) for name, look in looks.items()}
    head = generations[peers[0]]
    if any(generation != head for generation in generations.values()):
        told = ", ".join(f"{name} in {generation[:12]}" for name, generation in generations.items())
        return _text("every member in the generation of the head", told, "see the log of each container")
    if step == PROVEN and (anew := [name for name in peers if reached[name].get("before") != head]):
        return _text(
            "one generation from the first look to the last",
            f"another one on {', '.join(anew)}: the unit ended and started again during the gate",
            "see which member ended first, in the log of each container",
        )
    return ""


def _phase(look: Mapping[str, Any]) -> str:
    """What a member that does not run says of itself."""
    said = look.get("phase") or f"says nothing ({look.get('problem') or 'no status'})"
    container = look.get("container") or "absent"
    told = said if container == words.RUNNING else f"{said}, and its container is {container}"
    return f"{told}; {look['why']}" if look.get("why") else told


def _text(expected: str, seen: str, do: str) -> str:
    return f"expected {expected}, seen {seen}; do: {do}"
