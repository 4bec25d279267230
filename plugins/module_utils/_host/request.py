# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the probes look at, and how they read a file or run a command. Standard library only."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .._common.addresses import addresses

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class ProbeError(RuntimeError):
    """A probe that cannot tell."""


class CommandAbsentError(ProbeError):
    """The command is not on this host."""


def run_command(argv: Sequence[str], timeout: float, given: str = "") -> str:
    """Standard output of a command that reads `given`. ProbeError when it is not there, fails or takes too long."""
    environment = {"PATH": PATH, "LC_ALL": "C.UTF-8"}
    try:
        # AnsibleModule.run_command has no time limit.
        done = subprocess.run(  # pylint: disable=ansible-bad-function
            argv, env=environment, input=given, capture_output=True, text=True, timeout=timeout, check=False
        )
    except FileNotFoundError:
        raise CommandAbsentError(f"{argv[0]} is not there") from None
    except subprocess.TimeoutExpired:
        raise ProbeError(f"{argv[0]} took more than {timeout:g} s") from None
    except OSError as error:
        raise ProbeError(f"{argv[0]}: {error.strerror}") from None
    if done.returncode:
        raise ProbeError(f"{argv[0]} exited {done.returncode}: {_said(done.stdout, done.stderr)}")
    return done.stdout


def _said(out: str, err: str) -> str:
    """Why a command failed: the last line of its errors (Python's reason), or all that it answered (nvidia-smi has two lines)."""
    if err.strip():
        return err.strip().splitlines()[-1]
    return "; ".join(line.strip() for line in out.splitlines() if line.strip())[:500] or "no message"


@dataclass(frozen=True)
class Request:
    """What to look at. `root`, `run` and `addresses` let a test put another host there."""

    store: str = "/srv/sparkfleet"
    directories: tuple[str, ...] = ()
    environment: str = "/opt/sparkfleet/venv"
    daemon_config: str = "/etc/docker/daemon.json"
    data_root: str | None = None  # where Docker will keep its images, if it is not there yet
    socket: str = "/var/run/docker.sock"
    timeout: float = 10.0
    root: Path = Path("/")
    run: Callable[[Sequence[str], float], str] = field(default=run_command)
    addresses: Callable[[], dict[str, str]] = field(default=addresses)

    def at(self, path: str) -> Path:
        return self.root / path.lstrip("/")

    def text(self, path: str) -> str | None:
        """Content of a small file; None if it is not there."""
        try:
            return self.at(path).read_text(errors="replace")
        except (FileNotFoundError, NotADirectoryError):
            return None

    def which(self, name: str, path: str = PATH) -> str | None:
        """Where a program is found in the directories of a PATH."""
        for directory in path.split(":"):
            candidate = self.at(f"{directory}/{name}")
            if directory and candidate.is_file() and os.access(candidate, os.X_OK):
                return f"{directory}/{name}"
        return None
