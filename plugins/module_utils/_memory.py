# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Unified memory of a Spark: what is there, and what stands in the way. Sizes in bytes."""

from __future__ import annotations

from pathlib import Path

GIB = 1024**3


def meminfo(proc: Path) -> dict[str, int]:
    """``/proc/meminfo`` in bytes, by name (``MemTotal``, ``MemAvailable``, …)."""
    sizes = {}
    for line in (proc / "meminfo").read_text().splitlines():
        name, _, rest = line.partition(":")
        words = rest.split()
        if words:
            sizes[name] = int(words[0]) * (1024 if words[1:] == ["kB"] else 1)
    return sizes


def largest(proc: Path, count: int = 3) -> list[tuple[str, int]]:
    """The processes with the most resident memory: (name, bytes), largest first."""
    found = []
    for status in proc.glob("[0-9]*/status"):
        try:
            fields = dict(line.split(":", 1) for line in status.read_text().splitlines() if ":" in line)
        except OSError:  # the process has gone
            continue
        if "VmRSS" in fields:
            found.append((fields["Name"].strip(), int(fields["VmRSS"].split()[0]) * 1024))
    return sorted(found, key=lambda item: -item[1])[:count]


def required(total: int, *, fraction: float | None, minimum: int | None) -> int:
    """Bytes that must be available: a fixed minimum if one is given, else a fraction of the total."""
    return minimum if minimum is not None else int(total * (fraction or 0))


def shortage(available: int, needed: int, processes: list[tuple[str, int]]) -> str | None:
    """None if there is enough, else what was expected, what was seen and what to do."""
    if available >= needed:
        return None
    holders = ", ".join(f"{name} {size / GIB:.1f} GiB" for name, size in processes) or "none readable"
    return (
        f"expected {needed / GIB:.1f} GiB of available memory before vLLM starts, seen {available / GIB:.1f} GiB "
        f"(largest processes: {holders}); stop what holds it, or lower gpu-memory-utilization in the recipe"
    )
