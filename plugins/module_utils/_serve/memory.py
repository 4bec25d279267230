# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Unified memory of a Spark: how much there is, and what holds it. Sizes in bytes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

GIB = 1024**3
_NUMBER = re.compile(r"\s*([0-9]{1,19})(?: (kB))?\s*$")
"""A size in a file of /proc, behind its name."""
_ANONYMOUS = re.compile(r"^Pss_Anon:\s*([0-9]{1,19}) kB$", re.MULTILINE)


class MeminfoError(ValueError):
    """``/proc/meminfo`` does not say how much memory there is; the text says what was expected, seen, and what to do."""


def meminfo(proc: Path) -> dict[str, int]:
    """``/proc/meminfo`` in bytes, by name: ``MemTotal``, ``MemAvailable``, and whatever else is there.

    :raises MeminfoError: one of the two is not there
    """
    sizes = {}
    for line in (proc / "meminfo").read_text(errors="replace").splitlines():
        name, _sep, rest = line.partition(":")
        if size := _NUMBER.match(rest):
            sizes[name] = int(size[1]) * (1024 if size[2] else 1)
    if absent := [name for name in ("MemTotal", "MemAvailable") if name not in sizes]:
        raise MeminfoError(
            f"{proc / 'meminfo'}: expected {absent[0]}, seen none; see what is mounted at {proc}"
        )
    return sizes


def largest(proc: Path, count: int = 3) -> list[tuple[str, int]]:
    """The processes with the most resident memory: (name, bytes), largest first."""
    found = []
    for status in proc.glob("[0-9]*/status"):
        try:
            # A name is any 15 bytes: every user can set one, and the kernel cuts in the middle of a letter.
            text = status.read_text(errors="replace")
            fields = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
        except OSError:  # the process has gone
            continue
        if size := _NUMBER.match(fields.get("VmRSS", "")):
            found.append((fields.get("Name", "").strip(), int(size[1]) * 1024))
    return sorted(found, key=lambda item: -item[1])[:count]


def holders(proc: Path) -> dict[int, tuple[str, int]]:
    """What each process holds and cannot give back: pid -> (its cgroups, bytes).

    That is its own pages (``Pss_Anon`` of ``smaps_rollup``), with each shared one counted once. Two things do not count: the
    page cache, and what the GPU holds for a process, since unified memory shows that in no process.
    """
    held = {}
    for directory in proc.glob("[0-9]*"):
        try:
            groups = (directory / "cgroup").read_text(errors="surrogateescape")
            rollup = (directory / "smaps_rollup").read_text(errors="replace")
        except OSError:  # the process has gone, or is a kernel thread
            continue
        size = _ANONYMOUS.search(rollup)
        held[int(directory.name)] = (groups, int(size[1]) * 1024 if size else 0)
    return held


def usable(sizes: Mapping[str, int]) -> int:
    """The memory that a server can have at all. Huge pages that somebody reserved are not for servers."""
    return sizes["MemTotal"] - sizes.get("Hugetlb", 0)


def ceiling(total: int, held: Mapping[int, tuple[str, int]], leaving: int | None) -> int:
    """The most that can be available once the container with the main process `leaving` is gone.

    That is everything but what the others hold. Adding up what the container holds would miss its GPU memory. Processes in
    the cgroups of `leaving` belong to it. Where its cgroups are not known, nothing is ruled out.
    """
    if leaving and leaving not in held:
        return total
    group = held[leaving][0] if leaving else None
    return total - sum(size for groups, size in held.values() if groups != group)


def out_of_reach(reachable: int, needed: int, processes: Sequence[tuple[str, int]]) -> str | None:
    """None if stopping the old server can make enough room. Else the message why not, and that it was left alone."""
    if reachable >= needed:
        return None
    return (
        f"expected {needed / GIB:.1f} GiB of available memory before vLLM starts, but with the old server stopped "
        f"and all caches dropped there would be {reachable / GIB:.1f} GiB at most (largest processes: "
        f"{_named(processes)}); nothing was stopped. Stop what holds it, or lower gpu-memory-utilization in the recipe"
    )


def _named(processes: Sequence[tuple[str, int]]) -> str:
    return ", ".join(f"{name} {size / GIB:.1f} GiB" for name, size in processes) or "none readable"


def required(total: int, *, fraction: float | None, minimum: int | None) -> int:
    """Bytes that must be available: a fixed minimum if one is given, else a fraction of the total."""
    return minimum if minimum is not None else int(total * (fraction or 0))


def shortage(available: int, needed: int, processes: Sequence[tuple[str, int]]) -> str | None:
    """None if there is enough, else what was expected, what was seen and what to do."""
    if available >= needed:
        return None
    return (
        f"expected {needed / GIB:.1f} GiB of available memory before vLLM starts, seen {available / GIB:.1f} GiB "
        f"(largest processes: {_named(processes)}); stop what holds it, or lower gpu-memory-utilization in the recipe"
    )
