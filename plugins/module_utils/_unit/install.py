# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Puts on a host what the container of a unit's member needs: the program in the store, a folder of its own, the key."""

from __future__ import annotations

import secrets
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from .._common import files, sources
from .supervisor import main
from .wire import WireError, read_key

ENTRY = f"_unit.{main.__module__.rpartition('.')[2]}"
KEY = "key"
MOUNT = "/opt/sparkfleet/unit"
"""Where the container has the program. `python3 /opt/sparkfleet/unit` runs it."""
RUN = "/run/sparkfleet/unit"
"""Where it has the folder."""
_FOLDER_MODE, _KEY_MODE = 0o700, 0o600
PROGRAM, FOLDER = "program", "folder"


class KeyProblem(ValueError):
    """There is no key; the text says what was expected, seen, and what to do."""


@dataclass(frozen=True, repr=False)
class State:
    """What is there, or should be."""

    program: str
    """Digest; empty without a whole one."""
    folder: bool
    key: str
    """Empty without a good one that only root reads."""


def look(program: Path, content: Mapping[str, bytes], folder: Path) -> State:
    """:raises OSError: it cannot be read"""
    whole = _content(program) == dict(content)
    private = folder.is_dir() and stat.S_IMODE(folder.stat().st_mode) == _FOLDER_MODE
    return State(program.name if whole else "", private, _key(folder / KEY))


def _content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def _key(path: Path) -> str:
    try:
        if stat.S_IMODE(path.stat().st_mode) != _KEY_MODE:
            return ""
        return read_key(path.read_text()).hex()
    except (FileNotFoundError, ValueError):
        return ""


def wanted(before: State, program: str, key: str | None, generate: bool) -> State:
    """What should be there.

    :param key: the unit's key; none: the one that is there
    :param generate: make one if there is none
    :raises KeyProblem: the key is none, or there is none
    """
    if key:
        try:
            given = read_key(key).hex()
        except WireError as error:
            raise KeyProblem(
                f"expected a key of a unit, seen {error}; do: give the one that the head returned"
            ) from None
        return State(program, True, given)
    if not before.key and not generate:
        raise KeyProblem(
            "expected the key of the unit, seen none; do: set up the head first, and give its key"
        )
    return State(program, True, before.key or secrets.token_hex(32))


def differences(before: State, after: State) -> list[dict[str, str]]:
    """For the diff of Ansible. The key is never in it."""
    there = {True: "there", False: ""}
    key = "another one" if before.key and before.key != after.key else there[bool(after.key)]
    rows = [
        (PROGRAM, before.program, after.program),
        (FOLDER, there[before.folder], there[after.folder]),
        (KEY, there[bool(before.key)], key),
    ]
    return [
        {
            "before_header": name,
            "after_header": name,
            "before": f"{old}\n" if old else "",
            "after": f"{new}\n",
        }
        for name, old, new in rows
        if old != new
    ]


def apply(before: State, after: State, program: Path, content: Mapping[str, bytes], folder: Path) -> None:
    """Make the host as `after`. Removes no other program: a container or a record may need it.

    :raises OSError: something refuses
    """
    if before.program != after.program:
        sources.put(program, content)
    if not before.folder:
        folder.mkdir(mode=_FOLDER_MODE, parents=True, exist_ok=True)
        folder.chmod(_FOLDER_MODE)
    if before.key != after.key:
        files.write(folder / KEY, f"{after.key}\n".encode(), _KEY_MODE)
