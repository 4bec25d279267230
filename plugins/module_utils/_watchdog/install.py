# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Puts the watchdog on a host, or removes it: program, settings, key, units."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .._common import files
from .._host import program as host_program
from .._host import unit
from .._host.request import run_command
from . import units
from .settings import Places, Settings, config

PROGRAMS = Path("/opt/sparkfleet/watchdog")
RUN = Path("/run")
SYSTEMCTL_TIMEOUT = 60
_STARTED = (units.TIMER, units.SOCKET)
"""Units that are enabled and started. They start the others."""
PROGRAM, SETTINGS, KEY, EVIDENCE = "program", "settings", "key", "evidence"


@dataclass(frozen=True)
class State:
    """The watchdog of a host, as it is or should be."""

    program: str = ""
    """Digest of the program; empty without one."""
    settings: str = ""
    key: bytes = b""
    units: Mapping[str, str] = field(default_factory=dict)
    """{name: text}"""
    active: frozenset[str] = frozenset()
    """Those that are enabled and started."""
    leftovers: bool = False
    """Whether there is a folder with what looks have written, though nothing looks."""


def wanted(settings: Settings, key: str | None, texts: Mapping[str, str], program: str) -> State:
    return State(
        program=program,
        settings=json.dumps(config(settings), indent=2) + "\n",
        key=(key or "").encode(),
        units=texts,
        active=frozenset(name for name in _STARTED if name in texts),
    )


def look(places: Places, program: str) -> State:
    """What is there.

    :param program: digest of the program that should be there
    :raises OSError: it cannot be read
    """
    there = {name: found for name in units.ALL if (found := _content(unit.UNITS / name)) is not None}
    active = [name for name in _STARTED if name in there and _started(name)]
    return State(
        program=host_program.look(PROGRAMS, program),
        settings=(_content(places.config) or b"").decode(errors="replace"),
        key=_content(places.key) or b"",
        units={name: text.decode(errors="replace") for name, text in there.items()},
        active=frozenset(active),
        leftovers=not there and places.directory.exists(),
    )


def _started(name: str) -> bool:
    found = unit.look(name)
    return found.enabled == "enabled" and found.active == "active"


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def changes(before: State, after: State) -> list[str]:
    """What differs, in words."""
    found = [
        name
        for name, old, new in (
            (PROGRAM, before.program, after.program),
            (SETTINGS, before.settings, after.settings),
            (KEY, before.key, after.key),
            (EVIDENCE, before.leftovers and not after.program, False),
        )
        if old != new
    ]
    return found + [
        name
        for name in units.ALL
        if before.units.get(name) != after.units.get(name)
        or (name in before.active) != (name in after.active)
    ]


def differences(before: State, after: State) -> list[dict[str, str]]:
    """For the diff of Ansible. The key is never in it."""

    def shown(state: State) -> dict[str, str]:
        key = "there" if state.key else ""
        told = {PROGRAM: state.program, SETTINGS: state.settings, KEY: key, **state.units}
        return told | {f"{name} started": "yes" for name in state.active}

    old, new = shown(before), shown(after)
    if before.key and after.key and before.key != after.key:
        new[KEY] = "another one"
    return [
        {
            "before_header": name,
            "after_header": name,
            "before": _line(old.get(name)),
            "after": _line(new.get(name)),
        }
        for name in sorted({*old, *new})
        if old.get(name, "") != new.get(name, "")
    ]


def _line(text: str | None) -> str:
    return f"{text}\n" if text and not text.endswith("\n") else text or ""


def apply(places: Places, before: State, after: State, content: dict[str, bytes], python: Path) -> None:
    """Make the host as `after`, which has a program.

    :raises OSError, ProbeError: something refuses
    """
    if before.program != after.program:
        host_program.write(PROGRAMS, after.program, content, python)
    places.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    places.directory.chmod(0o700)
    if before.settings != after.settings:
        files.write(places.config, after.settings.encode(), 0o600)
    if not after.key:
        files.remove(places.key)
    elif before.key != after.key:
        files.write(places.key, after.key, 0o600)
    gone = [name for name in before.units if name not in after.units]
    for name in gone:
        _remove(name)
    changed = [name for name, text in after.units.items() if before.units.get(name) != text]
    for name in changed:
        files.write(unit.UNITS / name, after.units[name].encode())
    if changed or gone:
        _systemctl("daemon-reload")
    for name in sorted(after.active):
        if name not in before.active:
            _systemctl("enable", name)
        if name in changed or name not in before.active:
            _systemctl("restart", name)
    host_program.remove_others(PROGRAMS, after.program)


def remove(places: Places, before: State) -> None:
    """:raises OSError, ProbeError: something refuses"""
    for name in before.units:
        _remove(name)
    if before.units:
        _systemctl("daemon-reload")
    for folder in (PROGRAMS, places.directory, RUN / units.RUNTIME):
        files.remove(folder)
    with contextlib.suppress(OSError):  # it is not there, or holds what is not ours
        PROGRAMS.parent.rmdir()


def _remove(name: str) -> None:
    """Stop, disable and remove a unit. A look that is at work is ended."""
    if "@" not in name:
        _systemctl("disable", "--now", name)
    files.remove(unit.UNITS / name)


def _systemctl(*words: str) -> Any:
    return run_command(["systemctl", *words], SYSTEMCTL_TIMEOUT)
