# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Gathers what one look needs. Every question is bounded in bytes and in time, and one without an answer does not spoil the others."""

from __future__ import annotations

import os
import re
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from .._common.inspected import CONTAINER, unfit
from .._common.paths import unit_path
from .._common.secrets import is_secret, mask
from .._common.shape import Maybe, wrong
from .._common.terminal import one_line
from .._host import engine_socket, unit
from .._host.engine_socket import EngineError
from .._host.request import ProbeError, run_command
from .._run import run_lock
from .._run.lock_file import LockFile
from .._serve import memory as host_memory
from .._serve import state as serve_state
from .._unit import status as unit_status
from .._vllm.client import Server, ServerError
from .._vllm.metrics import MetricsError
from .._vllm.metrics import parse as parse_metrics
from .seen import Canary, Container, Gpu, Look, Now, Record

METRICS_LIMIT = 4 * 1024 * 1024
"""Characters of /metrics. Those of a server with many series are less than one MiB."""
ENGINE_TIMEOUT = 10.0
SMI_TIMEOUT = 10.0
SHORTEST_SECRET = 8
FIELDS = ("utilization.gpu", "power.draw", "clocks.sm")
REASONS = "clocks_event_reasons.active"
SLOWED = {0x08: "hardware slowdown", 0x20: "heat", 0x40: "heat (hardware)", 0x80: "the power supply"}
"""Bits of that field: NVML's nvmlClocksEventReason constants."""
_GATE = {
    "served_model": str,
    "base_url": str,
    "acceptance_floor": Maybe(float),
    "minimum_drafts": Maybe(int),
}
_SAID = 300


class LookError(Exception):
    """The look itself failed. Says what was expected, what was seen, and what to do."""


@dataclass(frozen=True)
class Host:
    """Where to look. A test puts another host there."""

    state_dir: Path
    socket: str = "/var/run/docker.sock"
    proc: Path = Path("/proc")


def now(host: Host) -> Now:
    try:
        boot = (host.proc / "sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        boot = ""
    return Now(time.time(), time.monotonic(), boot)


def look(host: Host, key: str | None, ask_gpu: bool = True) -> Look:
    """All but the canary.

    :raises LookError: neither the record nor the engine can be asked
    """
    wanted = record(host)
    seen = Look(
        now(host),
        run=run_at_work(host),
        record=wanted,
        available=available(host),
        swapped_in=swapped_in(host),
        gpu=gpu() if ask_gpu else Gpu(),
    )
    if wanted is None:
        return seen
    there = container(host, wanted.container)
    seen = replace(seen, container=there, unit=unit_of(wanted.container))
    if there is None or not there.running:
        return seen
    if wanted.rank is not None:
        seen = replace(seen, member=member(host, seen.now.unix))
        if wanted.rank:
            return seen
    return counted(seen, Server(wanted.base_url, key), key)


def said(text: str, key: str | None) -> str:
    """What others said, on a line, and without the key."""
    return one_line(mask(text, [key] if key else []))[:_SAID]


def run_at_work(host: Host) -> str:
    """Who holds the host; empty for nobody.

    :raises LookError: the lock cannot be read
    """
    lock = LockFile(host.state_dir)
    try:
        there = lock.look()
    except OSError as error:
        raise LookError(f"expected to read {lock.path}, seen: {error}; see to the disk") from error
    return run_lock.holder(there) if run_lock.alive(there) else ""


def record(host: Host) -> Record | None:
    """What is to serve; None for nothing.

    :raises LookError: the record cannot be read
    """
    path = host.state_dir / "state.json"
    try:
        known = serve_state.parse(_text(path))
    except (OSError, ValueError) as error:
        raise LookError(serve_state.unreadable(str(path), error)) from error
    current = (known or {}).get("current")
    if current is None:
        return None
    serving = current["serving"]
    name, gate = serving["container"].get("name"), serving.get("gate")
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,200}", name):
        raise LookError(
            serve_state.unreadable(str(path), ValueError(f"no name of a container: {name!r:.60}"))
        )
    if said := wrong(gate, _GATE, "gate"):
        raise LookError(serve_state.unreadable(str(path), ValueError(said)))
    return Record(
        recipe=str(serving.get("recipe") or ""),
        container=name,
        base_url=gate["base_url"],
        model=gate["served_model"],
        floor=gate.get("acceptance_floor") or 0.0,
        minimum_drafts=gate.get("minimum_drafts") or 0,
        speculates=bool(gate.get("speculation")),
        rank=serve_state.rank_of(serving) if serving.get("unit") else None,
    )


def _text(path: Path) -> str | None:
    try:
        return path.read_text()
    except FileNotFoundError:
        return None


def container(host: Host, name: str) -> Container | None:
    """The container of that name; None without one.

    :raises LookError: the engine does not tell
    """
    try:
        found = engine_socket.get(host.socket, f"/containers/{name}/json", ENGINE_TIMEOUT)
    except EngineError as error:
        if error.status == 404:
            return None
        raise LookError(
            f"expected the engine to tell of {name}, seen: {error}; do: systemctl status docker"
        ) from error
    if said := unfit(name, found, CONTAINER):
        raise LookError(f"{said}; do: docker inspect {name}")
    state = found["State"]
    pairs = (entry.partition("=") for entry in found["Config"].get("Env") or [])
    return Container(
        id=found["Id"],
        status=state["Status"],
        started_at=state["StartedAt"],
        restarts=found.get("RestartCount") or 0,
        secrets=tuple(
            value for word, _sep, value in pairs if is_secret(word) and len(value) >= SHORTEST_SECRET
        ),
    )


def member(host: Host, at: float) -> dict[str, Any]:
    """:raises LookError: the status is there and cannot be read"""
    folder = Path(unit_path(str(host.state_dir)))
    try:
        return unit_status.judged(*unit_status.read(folder), at)
    except OSError as error:
        raise LookError(f"expected to read the status in {folder}, seen: {error}; see to the disk") from error


def unit_of(name: str) -> Mapping[str, Any]:
    found = unit.look(f"{name}.service")
    values = {
        each: value for each, value in asdict(found).items() if each in ("active", "restarts", "gave_up")
    }
    return {"there": found.text is not None, **values}


def counted(seen: Look, server: Server, key: str | None) -> Look:
    """The look with the counters of the server, or with why there are none."""
    try:
        text = server.metrics()
    except ServerError as error:
        answers = error.status is not None and error.status < 500
        return replace(seen, silent=said(str(error), key), answers=answers)
    if len(text) > METRICS_LIMIT:
        silent = f"/metrics answers more than {METRICS_LIMIT} characters"
        return replace(seen, silent=silent, answers=True)
    try:
        return replace(seen, counters=parse_metrics(text), metrics=text, answers=True)
    except MetricsError as error:
        return replace(seen, metrics=text, silent=said(f"/metrics answers {error}", key), answers=True)


def canary(asked: Record, key: str | None, seconds: int) -> Canary:
    """Ask for two tokens, through the served name."""
    began = time.monotonic()
    server = Server(asked.base_url, key, patience=seconds)
    problem, status = "", None
    try:
        if not server.complete(asked.model, "Say yes.", 2).completion_tokens:
            problem, status = "a completion without a token", 200
    except ServerError as error:
        problem, status = said(str(error), key), error.status
    return Canary(problem, status, time.monotonic() - began)


# -- the host


def available(host: Host) -> int | None:
    """Bytes that a new process could have."""
    try:
        return host_memory.meminfo(host.proc)["MemAvailable"]
    except (OSError, ValueError):
        return None


def swapped_in(host: Host) -> int | None:
    try:
        found = re.search(
            r"^pswpin ([0-9]{1,15})$", (host.proc / "vmstat").read_text(errors="replace"), re.MULTILINE
        )
    except OSError:
        return None
    return int(found[1]) * os.sysconf("SC_PAGE_SIZE") if found else None


def gpu() -> Gpu:
    """The first GPU. An older nvidia-smi does not know why clocks are low."""
    for fields in ((*FIELDS, REASONS), FIELDS):
        query = f"--query-gpu={','.join(fields)}"
        answer = ask_gpu([query, "--format=csv,noheader,nounits"])
        if answer is None:
            return Gpu(silent=True)
        if answer:
            return gpu_of(answer)
    return Gpu()


def ask_gpu(words: Sequence[str]) -> str | None:
    """What nvidia-smi prints; empty if it fails, None if it hangs. Where the driver hangs no signal ends it, so nobody waits for it."""
    answers: list[str] = []

    def ask() -> None:
        try:
            answers.append(run_command(["nvidia-smi", *words], SMI_TIMEOUT))
        except ProbeError as error:
            if not isinstance(error.__context__, subprocess.TimeoutExpired):
                answers.append("")

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(SMI_TIMEOUT + 1)
    return answers[0] if answers else None


def gpu_of(line: str) -> Gpu:
    """What nvidia-smi answers. `[N/A]`, and whatever else is no number, is None."""
    cells = [cell.strip() for cell in line[:1000].partition("\n")[0].split(",")]
    cells += [""] * (len(FIELDS) + 1 - len(cells))
    utilization, watts, clock = (
        float(cell) if re.fullmatch(r"[0-9]{1,9}(?:\.[0-9]{1,9})?", cell) else None for cell in cells[:3]
    )
    mask = int(cells[3], 16) if re.fullmatch(r"0x[0-9a-fA-F]{1,16}", cells[3]) else 0
    return Gpu(utilization, watts, clock, tuple(why for bit, why in SLOWED.items() if mask & bit))
