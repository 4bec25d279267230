# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Playbooks that run while a test looks on or kills them, and hosts that lose their power."""

from __future__ import annotations

import functools
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from testing import PLAYBOOKS, docker, on, until

BOOT = 300.0
"""Seconds that a host may take to boot."""


def power_off(*names: str) -> float:
    """As the network sees it: silence. A kill alone would have the kernel close its connections.

    :return: a time at which all of them were silent
    """
    for name in names:
        on(name, "ip link set eth0 down")
    silent = time.time()
    docker("kill", *(f"sparkfleet-lab-{name}" for name in names))
    return silent


def restart(*names: str) -> None:
    """As an admin does it: everything is asked to stop before."""
    docker("stop", "-t60", *(f"sparkfleet-lab-{name}" for name in names))
    power_on(*names)


def power_on(*names: str) -> None:
    """Started, and reachable."""
    docker("start", *(f"sparkfleet-lab-{name}" for name in names))
    for name in names:
        # Nobody is let in before it has booted.
        until(functools.partial(booted, name), BOOT)
        until(
            functools.partial(on, name, "(: </dev/tcp/127.0.0.1/22) 2>/dev/null && echo yes", check=False),
            BOOT,
        )


def booted(name: str) -> bool:
    return on(name, "systemctl is-system-running --wait", check=False).strip() in ("running", "degraded")


class Run:
    """One run of a playbook."""

    def __init__(self, playbook: str, inventories: Sequence[Path], *options: str, **extra: Any) -> None:
        command = [
            str(Path(sys.executable).with_name("ansible-playbook")),
            str(PLAYBOOKS / f"{playbook}.yml"),
        ]
        command += [f"--inventory={path}" for path in inventories]
        # ssh gives up at once a host that is gone: what becomes of the run is under test, not ssh.
        command += [f"--extra-vars={json.dumps({'ansible_ssh_timeout': 5, **extra})}", *options]
        self.began = time.time()
        self._lines: list[str] = []
        self._more = threading.Condition()
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            env=os.environ | {"ANSIBLE_FORCE_COLOR": "0", "COLUMNS": "300"},
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._more:
                self._lines.append(line)
                self._more.notify_all()
        with self._more:
            self._more.notify_all()

    @property
    def output(self) -> str:
        return "".join(self._lines)

    def says(self, pattern: str, within: float = 600) -> None:
        """Waits for a line."""

        def said() -> bool:
            return any(re.search(pattern, line) for line in self._lines)

        with self._more:
            came = self._more.wait_for(lambda: said() or not self._reader.is_alive(), within)
            assert came and said(), f"never said {pattern!r}:\n{self.output}"

    def when(self, condition: Callable[[], Any], within: float = 600) -> None:
        def over() -> bool:
            assert self.process.poll() is None, f"over before it came to that:\n{self.output}"
            return bool(condition())

        until(over, within, every=0.05)

    def kill(self) -> None:
        """The whole process group, at once."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def end(self, within: float = 900) -> Run:
        self.process.wait(timeout=within)
        self.ended = time.time()
        self._reader.join(timeout=10)
        self.failed = self.process.returncode != 0
        return self

    def row(self, name: str) -> str:
        """The host's line of the last table."""
        rows = [line for line in self._lines if re.match(rf"{name}\s", line) and "ok=" not in line]
        assert rows, f"no line of {name} in a table:\n{self.output}"
        return rows[-1].rstrip()

    def window(self, name: str) -> float:
        """Seconds that the table says the host did not serve."""
        titles = next(line for line in reversed(self._lines) if re.match(r"host\s", line))
        start = titles.index("away")
        return float(self.row(name)[start:].split()[0])


def runs(inventory: Path) -> Iterator[Callable[..., Run]]:
    """For a fixture. Starts playbooks on the hosts of an inventory; none outlives its test."""
    started: list[Run] = []

    def start(playbook: str, *options: str, inventories: Sequence[Path] = (), **extra: Any) -> Run:
        started.append(Run(playbook, [inventory, *inventories], *options, **extra))
        return started[-1]

    yield start
    for run in started:
        if run.process.poll() is None:
            run.kill()
