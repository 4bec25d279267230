# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Both ends of the progress file: what a module writes, what the controller reads, and who ends whom."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ansible_collections.sparkfleet.vllm.plugins.module_utils._progress import ENVIRONMENT, Progress
from ansible_collections.sparkfleet.vllm.plugins.plugin_utils._progress import parse_poll

RUNNING = '{"started": true, "finished": false, "ans'


def test_lines_are_rate_limited_and_not_repeated(tmp_path: Path) -> None:
    now = [0.0]
    progress = Progress(str(tmp_path / "p"), clock=lambda: now[0])
    progress.say("loading\n weights")
    progress.say("loading weights")
    progress.say("1 of 2", every=5)
    now[0] = 6
    progress.say("2 of 2", every=5)
    assert (tmp_path / "p").read_text() == "loading weights\n2 of 2\n"


def test_without_a_path_it_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ENVIRONMENT, raising=False)
    Progress.from_environment().say("nobody reads this")


def test_a_removed_file_is_not_made_again(tmp_path: Path) -> None:
    progress = Progress(str(tmp_path / "p"))
    (tmp_path / "p").unlink()
    progress.say("too late")
    assert not (tmp_path / "p").exists()


@pytest.mark.parametrize(
    ("stdout", "expected"),
    [
        (f"sparkfleet-job:{RUNNING}\na\nb\n", (RUNNING, ["a", "b"])),
        (f"Welcome!\r\nsparkfleet-job:{RUNNING}\r\na\r\n", (RUNNING, ["a"])),
        (f"sparkfleet-job:{RUNNING}\na\nhalf a li", (RUNNING, ["a"])),
        ("sparkfleet-job:\n", ("", [])),
        ("Welcome!\n", (None, [])),
    ],
)
def test_answer_of_a_poll(stdout: str, expected: tuple[str | None, list[str]]) -> None:
    assert parse_poll(stdout) == expected


JOB = f"""
import sys, time
sys.path[:0] = {sys.path!r}
from ansible_collections.sparkfleet.vllm.plugins.module_utils._progress import Progress
Progress.from_environment(lease=1.0).say("started")
time.sleep(30)
"""


@pytest.fixture
def job(tmp_path: Path) -> tuple[subprocess.Popen[bytes], Path]:
    path = tmp_path / "p"
    process = subprocess.Popen(
        [sys.executable, "-c", JOB], env={**os.environ, ENVIRONMENT: str(path)}, start_new_session=True
    )
    deadline = time.monotonic() + 10
    while not (path.exists() and path.read_text()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return process, path


def test_a_job_nobody_polls_ends(job: tuple[subprocess.Popen[bytes], Path]) -> None:
    process, path = job
    assert process.wait(timeout=10) == -signal.SIGTERM
    assert not path.exists()


def test_a_polled_job_lives_and_ends_with_its_file(job: tuple[subprocess.Popen[bytes], Path]) -> None:
    process, path = job
    for _ in range(6):
        subprocess.run(["touch", "-ac", str(path)], check=True)
        time.sleep(0.4)
    assert process.poll() is None
    path.unlink()
    assert process.wait(timeout=10) == -signal.SIGTERM
