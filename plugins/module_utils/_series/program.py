# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The program that a timer runs on a Spark: writes the series of the Spark for the node exporter. Standard library only.

What cannot be read has no series, and the journal says why: a file of yesterday would look like news.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from .._common import files
from .._host.request import CommandAbsentError, ProbeError, run_command
from .._run import lock_file
from .._serve import state, verdict, watched
from . import gpu, spark
from .text import Sample, text

SPARK, GPU = "sparkfleet.prom", "sparkfleet-gpu.prom"
"""Names of the files."""
STATE = 4 * 1024 * 1024
"""Bytes of state.json."""
SECONDS = 5.0
"""For each question to nvidia-smi. The next look comes soon."""
Run = Callable[[Sequence[str], float], str]


def of_spark(folder: Path, now: float, say: Callable[[str], None]) -> list[Sample]:
    """The series from the files of a state directory."""

    def known(name: str, limit: int, parse: Callable[[str], Any]) -> Any:
        try:
            with (folder / name).open("rb") as file:
                content = file.read(limit + 1)
            if len(content) > limit:
                raise ValueError(f"more than {limit} bytes")
            return parse(content.decode())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            say(f"{folder / name}: {error}; it has no series until that is mended")
            return None

    return [
        *spark.of_state(known("state.json", STATE, state.parse)),
        *spark.of_gate(known(verdict.FILE, verdict.LIMIT, verdict.parse)),
        *spark.of_watchdog(known(watched.FILE, watched.LIMIT, watched.parse), now),
        *spark.of_run(lock_file.look_alive(folder, now)),
    ]


def of_gpu(run: Run, say: Callable[[str], None]) -> list[Sample]:
    """The series from what nvidia-smi answers. A question with a field that it does not know costs only that question."""
    found: list[Sample] = []
    for fields in gpu.QUERIES:
        try:
            found += gpu.parse(run(gpu.command(fields), SECONDS), fields)
        except CommandAbsentError as error:
            say(str(error))
            break
        except ProbeError as error:
            say(str(error))
    return found


def main(argv: Sequence[str], run: Run = run_command) -> int:
    """:param argv: after the program, the state directory and the folder of the node exporter"""
    source, target = map(Path, argv[1:])

    def say(text: str) -> None:
        sys.stderr.write(f"{text}\n")

    try:
        files.write(target / SPARK, text(of_spark(source, time.time(), say), spark.HELPS).encode())
        files.write(target / GPU, text(of_gpu(run, say), gpu.HELPS).encode())
    except OSError as error:
        say(files.unwritable(error.filename or target, error))
        return 1
    return 0
