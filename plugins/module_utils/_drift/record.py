# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compares the record of what passed, and the unit that keeps it running, with what is wanted. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from .._host.unit import Unit
from .finding import WARNING, Finding

GATE = "playbooks/site.yml holds it against the gate and records it"


def record(
    state: Mapping[str, Any] | None,
    wanted: Mapping[str, Any],
    runs: Callable[[Mapping[str, Any]], bool],
) -> list[Finding]:
    """Whether what runs has passed the gate here.

    Edits of the container have their own findings. This function tells them from a recipe that moved on, and from a server
    that nobody measured.

    :param state: what ``state.json`` holds
    :param wanted: the serving record that recipe and lock add up to
    :param runs: whether the container that runs is the one of a given serving record
    """
    current = (state or {}).get("current")
    if current is None:
        return [_never("nothing on record has passed the gate on this host")]
    if current["serving"] == wanted:
        return []
    if runs(wanted):
        return [_never("it runs as recipe and lock say, and what passed here last was something else")]
    if runs(current["serving"]):
        seen = "the host serves what passed here last; recipe, lock or inventory have changed since"
        return [
            Finding("record", "not-deployed", "what recipe and lock say is deployed", seen, GATE, WARNING)
        ]
    return [_never("what runs is neither what recipe and lock say nor what passed here last")]


def _never(seen: str) -> Finding:
    return Finding("record", "never-passed", "what serves has passed the gate here", seen, GATE)


def broken(path: str, problem: str) -> Finding:
    do = f"move {path} away and run playbooks/site.yml"
    return Finding("record", "record-broken", f"{path} can be read", problem, do)


def boot_unit(name: str, wanted: str, seen: Unit, runs: bool) -> list[Finding]:
    """The unit that starts the container at boot, and again after an unintended end.

    :param name: of the unit, with its suffix
    :param wanted: the text of its file; empty where the server is not to come back by itself
    :param seen: the unit as it is
    :param runs: whether the container runs
    """
    if not wanted:
        return []
    do = "playbooks/site.yml writes and enables it"
    if seen.text is None:
        return [
            Finding(
                "boot", "boot-unit-missing", f"{name} starts the server at boot", "there is no such unit", do
            )
        ]
    found = []
    if seen.text.strip() != wanted.strip():
        found.append(
            Finding(
                "boot",
                "boot-unit-changed",
                f"{name} as the role wrote it",
                "the file holds something else",
                do,
            )
        )
    for path in seen.drop_ins:
        undo = f"systemctl revert {name}"
        found.append(
            Finding("boot", "boot-unit-changed", f"{name} as the role wrote it", f"{path} changes it", undo)
        )
    if seen.enabled != "enabled":
        found.append(
            Finding("boot", "boot-unit-disabled", f"{name} is enabled", f"it is {seen.enabled or 'not'}", do)
        )
    # A unit that waits for its next start will watch again.
    if runs and not seen.watches and seen.active != "activating" and not found:
        expected = f"{name} starts the server again after an end that nobody asked for"
        found.append(
            Finding("boot", "boot-unit-inactive", expected, f"it is {seen.active or 'not there'}", do)
        )
    return found
