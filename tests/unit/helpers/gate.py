# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A container that is made up and serves as it should, and time that passes only when somebody sleeps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from ansible_collections.sparkfleet.vllm.plugins.module_utils._gate.container import (
    FileSeen,
    LogLine,
    State,
    parse_time,
)

STATE = State(
    "a" * 64,
    "running",
    "2026-11-23T21:00:00.000000000Z",
    pid=42,
    image="vllm@sha256:1",
    argv=("vllm", "serve", "/models/body", "--speculative-config", "{}"),
)
MTP = {"method": "mtp", "num_speculative_tokens": 1}
GOOD_LOG = [
    "(APIServer pid=1) INFO 11-23 21:00:01 [model.py:733] Resolved architecture: Gemma4ForCausalLM",
    "(APIServer pid=1) INFO 11-23 21:00:02 [model.py:733] Resolved architecture: Gemma4MTPModel",
    "(EngineCore pid=2) INFO 11-23 21:00:03 [core.py:133] Initializing a V1 LLM engine (v0.32.0) with config: "
    "speculative_config=SpeculativeConfig(method='mtp', model='/d', num_spec_tokens=1)",
]


class FakeContainer:
    """A container whose state is a function of how often it was looked at."""

    def __init__(self, log: Sequence[str] = GOOD_LOG) -> None:
        self.looks = 0
        self.states: Callable[[int], State | None] = lambda look: STATE
        self.files: dict[str, FileSeen] = {}
        self.lines = [
            LogLine(f"2026-11-23T21:00:{second:02d}.000000000Z", text) for second, text in enumerate(log)
        ]

    def inspect(self) -> State | None:
        self.looks += 1
        return self.states(self.looks)

    def log(self, since: float, until: float | None = None, tail: int | None = None) -> Sequence[LogLine]:
        return [
            line
            for line in self.lines
            if parse_time(line.time) >= since and parse_time(line.time) <= (until or 1e12)
        ]

    def file(self, state: State, path: str) -> FileSeen:
        return self.files.get(path, FileSeen(error="no such file"))

    def host_file(self, path: str) -> FileSeen:
        return self.files.get(f"host:{path}", FileSeen(error="no such file"))


class Clock:
    """Time that passes only when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def process_with_links(tmp_path: Path) -> Path:
    """/proc with one process, whose root holds a package behind an absolute link."""
    root = tmp_path / "proc/42/root"
    (root / "usr/lib/python3.12/vllm").mkdir(parents=True)
    (root / "usr/lib/python3.12/vllm/p.py").write_text("inside")
    (root / "opt").mkdir()
    (root / "opt/vllm").symlink_to("/usr/lib/python3.12/vllm")
    (root / "opt/up").symlink_to("../../../../usr/lib/python3.12/vllm")
    (root / "opt/loop").symlink_to("loop")
    return tmp_path / "proc"
