# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What keeps ports of a host, put there: files, their unit, and the rules of the kernel between them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from .._common import files
from . import unit
from .guard import Guard
from .request import run_command

SYSTEMD = 60
"""Seconds for systemctl."""


def look(rules: Mapping[Any, tuple[str, ...]], paths: Iterable[Path], service: str) -> Guard:
    """:param rules: those of the kernel"""
    seen = unit.look(service)
    return Guard(
        rules,
        {path: path.read_text(errors="replace") for path in (*paths, unit.UNITS / service) if path.is_file()},
        # Of a unit that is not there, systemd says that it is inactive.
        *(("", "") if seen.text is None else (seen.enabled, seen.active)),
    )


def apply(seen: Guard, after: Guard, service: str, directory: Path, load: Callable[[], None]) -> None:
    """
    :param load: puts the rules into the kernel
    :raises ProbeError, OSError: something refuses; and what `load` raises
    """
    keeps = bool(after.files)
    for path, text in after.files.items():
        if seen.files.get(path) != text:
            files.write(path, text.encode())
    load()
    if not keeps and unit.UNITS / service in seen.files:
        run_command(["systemctl", "disable", "--now", service], SYSTEMD)
    for path in set(seen.files) - set(after.files):
        path.unlink(missing_ok=True)
    if seen.files.get(unit.UNITS / service) != after.files.get(unit.UNITS / service):
        run_command(["systemctl", "daemon-reload"], SYSTEMD)
    if keeps and (seen.enabled, seen.active) != (after.enabled, after.active):
        run_command(["systemctl", "enable", "--now", service], SYSTEMD)
    if not keeps:
        for folder in (directory, directory.parent):
            with contextlib.suppress(OSError):  # it is not there, or holds what is not ours
                folder.rmdir()


def not_followed(service: str, error: Exception) -> str:
    """The message about a systemd that refuses the unit."""
    return (
        f"expected systemd to follow {service}, seen: {error}; do: systemctl status {service}, and run again. "
        "The kernel has the rules as they should be"
    )
