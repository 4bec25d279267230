# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Puts the program that writes a host's series on it, with its timer, or removes both."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from .._common import files
from .._host import program, unit
from .._host.request import run_command
from .program import GPU, SPARK

ENTRY = "_series.program"
PROGRAMS = Path("/opt/sparkfleet/series")
SERVICE, TIMER = "sparkfleet-series.service", "sparkfleet-series.timer"
SYSTEMCTL_TIMEOUT = 60
INTERVAL = (5, 3600)
"""Least and most seconds."""

# No private devices: nvidia-smi needs those of the GPU.
_SERVICE = """\
# Written by sparkfleet.vllm.host_series.
[Unit]
Description=Write the series of this host for the node exporter

[Service]
Type=oneshot
ExecStart={python} -I {program} {state_dir} {folder}
TimeoutStartSec=30
LogLevelMax=notice
Nice=10
CPUWeight=20
IOWeight=20
MemoryMax=128M
TasksMax=32
CapabilityBoundingSet=CAP_DAC_OVERRIDE
ReadWritePaths={folder}
PrivateNetwork=yes
RestrictAddressFamilies=AF_UNIX
{confined}"""


class SeriesError(ValueError):
    """An option that no unit is made of; says what was expected, what was seen, and what to do."""


@dataclass(frozen=True)
class State:
    program: str = ""  # its digest; empty without one
    units: Mapping[str, str] = field(default_factory=dict)  # {name: text}
    started: bool = False  # the timer, now and at boot


def wanted(digest: str, *, python: str, state_dir: str, folder: str, interval: int) -> State:
    """:raises SeriesError: no unit is made of it"""
    for name, path in (("python", python), ("state_dir", state_dir), ("folder", folder)):
        if wrong := unit.path_complaint(path):
            raise SeriesError(f"{name}: {wrong}")
    if not INTERVAL[0] <= interval <= INTERVAL[1]:
        raise SeriesError(
            f"interval: expected {INTERVAL[0]} to {INTERVAL[1]} seconds, seen {interval}; correct it"
        )
    service = _SERVICE.format(
        python=python, program=PROGRAMS / digest, state_dir=state_dir, folder=folder, confined=unit.CONFINED
    )
    again = unit.timer(
        "sparkfleet.vllm.host_series", "Write the series of this host again and again", 1, interval
    )
    return State(digest, {SERVICE: service, TIMER: again}, True)


def look(digest: str) -> State:
    """What is there.

    :raises OSError: it cannot be read
    """
    paths = {name: unit.UNITS / name for name in (SERVICE, TIMER)}
    timer = unit.look(TIMER)
    return State(
        program.look(PROGRAMS, digest),
        {name: path.read_text(errors="replace") for name, path in paths.items() if path.is_file()},
        timer.text is not None and (timer.enabled, timer.active) == ("enabled", "active"),
    )


def differences(before: State, after: State) -> list[dict[str, str]]:
    """Each as a diff of Ansible's."""

    def shown(state: State) -> dict[str, str]:
        started = f"{TIMER} started\n" if state.started else ""
        return {"program": f"{state.program}\n" if state.program else "", "timer": started, **state.units}

    old, new = shown(before), shown(after)
    return [
        {
            "before_header": name,
            "after_header": name,
            "before": old.get(name, ""),
            "after": new.get(name, ""),
        }
        for name in sorted({*old, *new})
        if old.get(name, "") != new.get(name, "")
    ]


def apply(before: State, after: State, content: Mapping[str, bytes], python: Path) -> None:
    """:raises OSError, ProbeError: something refuses"""
    if before.program != after.program:
        program.write(PROGRAMS, after.program, content, python)
    for name, text in after.units.items():
        if before.units.get(name) != text:
            files.write(unit.UNITS / name, text.encode())
    if before.units != after.units:
        _systemctl("daemon-reload")
    if not before.started:
        _systemctl("enable", TIMER)
    if before != after:
        _systemctl("restart", TIMER)
    program.remove_others(PROGRAMS, after.program)


def remove(before: State, folder: Path) -> None:
    """:raises OSError, ProbeError: something refuses"""
    for name in before.units:
        _systemctl("disable", "--now", name)
        files.remove(unit.UNITS / name)
    if before.units:
        _systemctl("daemon-reload")
    # A file that nobody writes any more would be told for ever.
    for path in (PROGRAMS, folder / SPARK, folder / GPU):
        files.remove(path)


def _systemctl(*words: str) -> None:
    run_command(["systemctl", *words], SYSTEMCTL_TIMEOUT)
