# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A program of ours that stays on a host, in a folder that is named by the digest of its sources: whole or not there."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from .._common import files, sources
from .request import run_command

COMPILE_TIMEOUT = 120
DAMAGED = "damaged"


def look(programs: Path, expected: str) -> str:
    """Digest of the program that is there: the expected one if it is whole, else any; empty without one.

    :raises OSError: it cannot be read
    """
    there = sorted(each.name for each in programs.glob("[0-9a-f]*")) if programs.is_dir() else []
    if expected not in there:
        return there[0] if there else ""
    folder = programs / expected
    content = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.py")}
    return expected if sources.digest(content) == expected else DAMAGED


def write(programs: Path, digest: str, content: Mapping[str, bytes], python: Path) -> None:
    """Compiled by the Python that runs it, since it starts every few seconds.

    :raises OSError, ProbeError: something refuses
    """
    compiling = [str(python), "-I", "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash"]

    def compiled(draft: Path) -> None:
        # Relative names, so that no trace shows the draft.
        run_command([*compiling, "-s", str(draft), str(draft)], COMPILE_TIMEOUT)

    sources.put(programs / digest, content, compiled)


def remove_others(programs: Path, digest: str) -> None:
    for folder in programs.iterdir():
        if folder.name != digest:
            files.remove(folder)
