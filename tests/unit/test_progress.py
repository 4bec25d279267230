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
from ansible.errors import AnsibleConnectionFailure
from ansible_collections.sparkfleet.vllm.plugins.module_utils._progress import ENVIRONMENT, Progress
from ansible_collections.sparkfleet.vllm.plugins.plugin_utils import _progress
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


class Action:
    """Of a host that hangs, answers, and hangs again: what each poll does, in turn."""

    def __init__(self, *answers: str | None) -> None:
        self.answers, self.resets = list(answers), 0
        self._connection = self

    def reset(self) -> None:
        self.resets += 1

    def _low_level_execute_command(self, command: str) -> dict[str, str]:
        answer = self.answers.pop(0)
        if answer is None:
            time.sleep(30)
        return {"stdout": str(answer)}


@pytest.fixture
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_progress, "ANSWER", 0.05)
    monkeypatch.setattr(_progress, "FIRST_POLL", 0.001)


def test_a_poll_that_hangs_is_a_lost_connection_and_is_waited_out(hurry: None) -> None:
    before = signal.getsignal(signal.SIGALRM)
    action = Action(None, "one", None, None, "two")
    found = _progress.polls(action, lambda: "x", time.monotonic() + 20, longest=0.01)  # type: ignore[arg-type]
    assert [next(found), next(found)] == ["one", "two"]
    assert action.resets == 3
    assert signal.getsignal(signal.SIGALRM) is before and signal.getitimer(signal.ITIMER_REAL) == (0, 0)


def test_a_host_that_hangs_for_good_is_given_up(hurry: None) -> None:
    with pytest.raises(AnsibleConnectionFailure, match="seen none"):
        list(_progress.polls(Action(*[None] * 99), lambda: "x", time.monotonic() + 20, 0.01, 0.2))  # type: ignore[arg-type]


def test_the_alarm_of_a_task_with_a_timeout_is_left_alone(hurry: None) -> None:
    rang: list[int] = []
    before = signal.signal(signal.SIGALRM, lambda number, _: rang.append(number))
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    try:
        with _progress.answered_within(0.01):
            time.sleep(0.3)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert rang == [signal.SIGALRM]
