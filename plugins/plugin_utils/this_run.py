# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The run on its controller: which process it is, and whether another one lives."""

from __future__ import annotations

import getpass
import multiprocessing
import os
import socket
import subprocess
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible import context

PROC = Path("/proc")
FIRST_NAMESPACE = "pid:[4026531836]"
"""The process namespace that ends with the machine: PROC_PID_INIT_INO in Linux, include/linux/proc_ns.h."""


def identity() -> str:
    """Boot and process namespace, which make a process id unique. Empty if the system does not tell (not Linux)."""
    try:
        boot = (PROC / "sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {(PROC / 'self/ns/pid').readlink()}"
    except OSError:
        return ""


def lasting() -> bool:
    """Whether what a run leaves behind outlives the run. It does not in a container that exists for the run."""
    where = identity()
    return not where or where.endswith(FIRST_NAMESPACE)


def started(pid: int) -> str:
    """The start of a process, in any unit that tells it from another process with that id; empty if it has ended.

    :raises OSError: the system does not tell
    """
    if identity():
        try:
            # The name of the program comes second, in brackets, and may hold anything.
            fields = (PROC / str(pid) / "stat").read_text(errors="replace").rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            os.kill(pid, 0)
            raise
        return "" if fields[0] in "ZX" else fields[19]
    shown = subprocess.run(
        ["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    return shown.stdout.strip()


def lives(pid: int, start: str) -> bool | None:
    """Whether the process with that start still runs; None if the system hides it."""
    try:
        return started(pid) == start
    except ProcessLookupError:
        return False
    except OSError:
        return None


def run_pid() -> int:
    """The process of the run: the parent of the task's worker, even if that parent has ended."""
    parent = multiprocessing.parent_process()
    return parent.pid if parent and parent.pid else os.getpid()


def run_id() -> str:
    """An id that is the same in all tasks and for all hosts of the run, and differs from any other run's."""
    pid = run_pid()
    return str(uuid.uuid5(uuid.NAMESPACE_OID, f"{identity()} {socket.gethostname()} {pid} {started(pid)}"))


def this_run(variables: Mapping[str, Any]) -> dict[str, Any]:
    """The record of this run for its lock; the same in all tasks and for all hosts.

    :param variables: of the task; an automation controller names its job and user in them
    """
    pid = run_pid()
    where, host = identity(), socket.gethostname()
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = f"uid {os.getuid()}"
    job = variables.get("awx_job_id") or variables.get("tower_job_id") or ""
    user = variables.get("awx_user_name") or variables.get("tower_user_name") or user
    playbooks = [Path(str(name)).name for name in context.CLIARGS.get("args") or ()]
    return {
        "id": run_id(),
        "holder": f"{user}@{host}",
        "controller": where,
        "pid": pid,
        "started": started(pid),
        "playbook": " ".join(playbooks),
        "job": str(job),
    }
