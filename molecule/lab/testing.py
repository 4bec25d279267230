# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the tests of the scenarios share: lab Sparks reached without ssh, and playbooks run as by a user."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

ROOT = Path(__file__).parents[2]
PLAYBOOKS = ROOT / "playbooks"
T = TypeVar("T")


def docker(*arguments: str, stdin: str | None = None, check: bool = True) -> str:
    """The output of this machine's engine. It must succeed, unless `check` is false."""
    done = subprocess.run(["docker", *arguments], input=stdin, capture_output=True, text=True, check=False)
    assert not check or done.returncode == 0, done.stderr + done.stdout
    return done.stdout


def on(host: str, script: str, check: bool = True) -> str:
    """The output of a bash script, as root on a lab Spark. The script ends at the first command that fails."""
    return docker("exec", f"sparkfleet-lab-{host}", "bash", "-euo", "pipefail", "-c", script, check=check)


def look(host: str, program: Path, *arguments: str) -> Any:
    """The JSON that a Python program prints, as root on a lab Spark. The program is a file of this machine."""
    inside = ["exec", "--interactive", f"sparkfleet-lab-{host}", "python3", "-", *arguments]
    return json.loads(docker(*inside, stdin=program.read_text()))


def until(condition: Callable[[], T], within: float = 60, every: float = 0.2) -> T:
    """The first value that is true. The limit is for a value that never comes, not for a slow one."""
    deadline = time.monotonic() + within
    while not (value := condition()):
        assert time.monotonic() < deadline, f"it never came to that within {within} s"
        time.sleep(every)
    return value


def boot(host: str) -> None:
    """Restart a lab Spark, and wait until it takes ssh."""
    docker("restart", "-t60", f"sparkfleet-lab-{host}")
    up = "systemctl is-system-running --wait | grep -Eq 'running|degraded'; (: </dev/tcp/127.0.0.1/22) 2>/dev/null"
    until(lambda: on(host, f"if {up}; then echo up; fi", check=False))


def command(playbook: Path, inventory: Path, *options: str, **extra: Any) -> list[str]:
    """The command that a user types; `extra` are extra variables."""
    return [
        str(Path(sys.executable).with_name("ansible-playbook")),
        f"--inventory={inventory}",
        f"--extra-vars={json.dumps(extra)}",
        *options,
        str(playbook),
    ]


def play(playbook: Path, inventory: Path, *options: str, **extra: Any) -> subprocess.CompletedProcess[str]:
    """Run to the end, without colours. The test judges whether it succeeded."""
    plain = {"ANSIBLE_FORCE_COLOR": "0", "ANSIBLE_NOCOLOR": "1"}
    return subprocess.run(
        command(playbook, inventory, *options, **extra),
        capture_output=True, text=True, env=os.environ | plain, check=False,
    )  # fmt: skip
