# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One Spark as it is now: what is on record, what the server counts, the last look of the watchdog, memory and GPU.

Each part is looked at by itself. One that cannot be read is null and has its reason in `problems`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from .._host.request import ProbeError, run_command
from .._run.lock_file import look_alive
from .._series import program
from .._serve import memory, state, verdict, watched
from .._vllm import client, metrics

LARGEST = 4 * 1024 * 1024
"""Bytes of a file that are read."""
LONGEST = 500
"""Characters of a text that somebody else wrote."""
GPU = {
    "utilisation": ("sparkfleet_gpu_utilisation_ratio", 100.0),
    "power": ("sparkfleet_gpu_power_watts", 1.0),
    "temperature": ("sparkfleet_gpu_temperature_celsius", 1.0),
    "clock": ("sparkfleet_gpu_clock_hertz", 1e-6),
}
"""What is shown of the GPU: the series that has it, and how many of its units make one."""


def look(
    directory: Path,
    proc: Path,
    interval: float,
    run: program.Run = run_command,
    pause: Callable[[float], None] = time.sleep,
) -> dict[str, Any]:
    """Everything about one Spark.

    :param directory: where `state.json`, `run.json` and `watchdog` are
    :param interval: seconds between the two looks at the counters of the server
    """
    problems: dict[str, str] = {}
    served = _part(problems, "record", lambda: record(directory))
    return {
        "at": round(time.time()),
        "record": served,
        "gate": _part(problems, "gate", lambda: gate(directory)),
        "server": _part(problems, "server", lambda: server(served, interval, pause)),
        "watchdog": _part(problems, "watchdog", lambda: watchdog(directory)),
        "run": look_alive(directory, time.time()),
        "memory": _part(problems, "memory", lambda: of_memory(proc)),
        "gpu": _part(problems, "gpu", lambda: of_gpu(run)),
        "problems": problems,
    }


def _part(
    problems: dict[str, str], name: str, part: Callable[[], dict[str, Any] | None]
) -> dict[str, Any] | None:
    try:
        return part()
    except (OSError, ValueError, ProbeError, client.ServerError) as error:
        problems[name] = str(error)[:LONGEST]
        return None


def text_of(path: Path) -> str | None:
    """A file of the state directory; None if it is not there.

    :raises ValueError: it is larger than any of them
    """
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST + 1)
    except FileNotFoundError:
        return None
    if len(content) > LARGEST:
        raise ValueError(f"{path}: expected at most {LARGEST} bytes, seen more")
    return content.decode("utf-8", "replace")


def record(directory: Path) -> dict[str, Any] | None:
    """What passed the gate here last, and what before it; None if nothing did."""
    path = directory / "state.json"
    kept = state.parse(text_of(path))
    if not kept or not kept.get("current"):
        return None
    return {**of_entry(kept["current"]), "since": round(path.stat().st_mtime), "before": _before(kept)}


def _before(kept: Mapping[str, Any]) -> dict[str, Any] | None:
    entry = kept.get("last_good")
    return {name: of_entry(entry)[name] for name in ("recipe", "image")} if entry else None


def of_entry(entry: Mapping[str, Any]) -> dict[str, Any]:
    """What is shown of a record (`_serve/state.py`), with the limits of the gate. What is not as expected is null."""
    serving = entry["serving"]
    limits = serving["gate"] if isinstance(serving.get("gate"), dict) else {}
    return {
        "recipe": _text(serving.get("recipe")),
        "image": _text(serving["container"]["image"]),
        "served_model": _text(limits.get("served_model")),
        "base_url": _text(limits.get("base_url")),
        "speculation": bool(limits.get("speculation")),
        "floor": _number(limits.get("acceptance_floor")),
        "minimum_drafts": _number(limits.get("minimum_drafts")),
        "unit": _unit(serving),
    }


def _unit(serving: Mapping[str, Any]) -> dict[str, Any] | None:
    """Name and rank of a member of a unit; None of a server that serves alone."""
    unit = serving.get("unit")
    return (
        {"name": _text(unit.get("name")), "rank": state.rank_of(serving)} if isinstance(unit, dict) else None
    )


def _text(value: Any) -> str | None:
    return value[:LONGEST] if isinstance(value, str) else None


def _number(value: Any) -> float | None:
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def server(
    served: Mapping[str, Any] | None, interval: float, pause: Callable[[float], None]
) -> dict[str, Any] | None:
    """What the server counts, from two looks; None if nothing is on record.

    :raises ServerError: it does not answer
    :raises ValueError: its answer holds no counters
    """
    if not served or not served["base_url"]:
        return None
    asked = client.Server(served["base_url"])
    began = time.monotonic()
    first = metrics.parse(asked.metrics())
    pause(interval)
    second = metrics.parse(asked.metrics())
    return counted(first, second, time.monotonic() - began)


def counted(first: metrics.Counters, second: metrics.Counters, seconds: float) -> dict[str, Any]:
    """Rates of two looks that lie `seconds` apart. Over a restart of the server there is no rate of tokens.

    Acceptance and the wait for the first token are means since the start of the server: of a moment there are too few of both.
    """
    life = metrics.delta(metrics.Counters(), second)
    gained = None
    if not metrics.was_reset(first, second):
        gained = metrics.delta(first, second).generated
    waited = None
    if second.first_tokens and second.first_token_seconds is not None:
        waited = second.first_token_seconds / second.first_tokens
    return {
        "started": second.process_start,
        "running": second.running or 0,
        "waiting": second.waiting or 0,
        "kv_cache_usage": second.kv_cache_usage,
        "tokens_per_second": None if gained is None or seconds <= 0 else round(gained / seconds, 1),
        "first_token_seconds": None if waited is None else round(waited, 3),
        "drafts": life.drafts,
        "acceptance_rate": round(life.acceptance_rate, 4) if life.drafts else None,
    }


def watchdog(directory: Path) -> dict[str, Any] | None:
    """The last look of the watchdog; None without one.

    :raises ValueError: the file is no verdict of a version that is known here
    """
    text = text_of(directory / watched.FILE)
    if text is None:
        return None
    said = watched.parse(text)
    return {
        "looked_at": said["looked_at"],
        "mode": said["mode"][:LONGEST],
        "verdict": said["verdict"][:LONGEST],
        "reason": said["reason"][:LONGEST],
        "findings": [
            {name: each[name][:LONGEST] for name in ("kind", "severity", "expected", "seen", "do")}
            | {"since": each["since"]}
            for each in said["findings"][:20]
        ],
        "speculation": said.get("speculation"),
        "restarts": said["restarts"][:20],
    }


def gate(directory: Path) -> dict[str, Any] | None:
    """What the gate said last, whether the server passed or not; None if it was never asked."""
    text = text_of(directory / verdict.FILE)
    if text is None:
        return None
    said = verdict.parse(text)
    return {name: value[:LONGEST] if isinstance(value, str) else value for name, value in said.items()}


def of_gpu(run: program.Run) -> dict[str, Any]:
    """The first GPU at work: percent, watts, degrees Celsius, MHz, and why it slows itself down. What it does not tell is None.

    :raises ProbeError: nvidia-smi does not answer
    """
    said: list[str] = []
    samples = [sample for sample in program.of_gpu(run, said.append) if sample.labels["gpu"] == "0"]
    if said and not samples:
        raise ProbeError(said[0])
    found = {(sample.name, sample.labels.get("reason", "")): sample.value for sample in samples}
    return {
        **{name: _scaled(found.get((series, "")), factor) for name, (series, factor) in GPU.items()},
        "slowed_by": [reason for (_name, reason), value in found.items() if reason and value],
    }


def _scaled(value: float | None, factor: float) -> float | None:
    return None if value is None else round(value * factor, 1)


def of_memory(proc: Path) -> dict[str, int]:
    """Bytes of memory and swap."""
    sizes = memory.meminfo(proc)
    swap = sizes.get("SwapTotal", 0)
    return {
        "total": sizes["MemTotal"],
        "available": sizes["MemAvailable"],
        "swap_total": swap,
        "swap_used": swap - sizes.get("SwapFree", swap),
    }
