# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Both ends of the progress file: what a module writes, what the controller reads, and who ends whom."""

from __future__ import annotations

import ast
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.action import ActionBase
from ansible.plugins.shell.sh import ShellModule
from ansible_collections.sparkfleet.vllm.plugins.module_utils._progress import ENVIRONMENT, Progress, scratch
from ansible_collections.sparkfleet.vllm.plugins.plugin_utils import _progress
from ansible_collections.sparkfleet.vllm.plugins.plugin_utils._progress import Answer, parse_poll


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


ENDED = "sparkfleet-job:ended 3\n{}\nsparkfleet-output:\n{{}}\n\nsparkfleet-error:\noh\n"


@pytest.mark.parametrize(
    ("stdout", "expected"),
    [
        ("sparkfleet-job:running\na\nb\n", Answer("running", ("a", "b"))),
        ("Welcome!\r\nsparkfleet-job:running\r\na\r\n", Answer("running", ("a",))),
        ("sparkfleet-job:running\na\nhalf a li", Answer("running", ("a",))),
        ("sparkfleet-job:running\n", Answer("running")),
        ("sparkfleet-job:gone\n", Answer("gone")),
        (ENDED.format(""), Answer("ended", (), 3, "{}\n", "oh\n")),
        (ENDED.format("a\nb\n"), Answer("ended", ("a", "b"), 3, "{}\n", "oh\n")),
        (ENDED.format("a\nb\n").replace("\n", "\r\n"), Answer("ended", ("a", "b"), 3, "{}\n", "oh\n")),
        (ENDED.format("a\nhalf a li"), Answer("ended", ("a",), 3, "{}\n", "oh\n")),
        (ENDED.format("").replace("ended 3", "ended "), Answer("ended", (), None, "{}\n", "oh\n")),
        (ENDED.format("a\n").partition("{}")[0], Answer()),
        ("sparkfleet-job:runn", Answer()),
        ("Welcome!\n", Answer()),
    ],
)
def test_answer_of_a_poll(stdout: str, expected: Answer) -> None:
    assert parse_poll(stdout) == expected


def test_what_is_needed_for_a_while_goes_with_the_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(ENVIRONMENT, raising=False)
    assert scratch("/own") == Path("/own")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv(ENVIRONMENT, "~/.ansible_async/sparkfleet-1/said")
    assert scratch("/own") == tmp_path / ".ansible_async/sparkfleet-1"


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


# -- both ends together: a host that is this machine


class Host(ActionBase):
    """Runs what it is told in a shell, as ssh and sudo do, and counts. `module` is the command of the module."""

    def __init__(self, home: Path, module: str, piped: str | None = None, **task: Any) -> None:
        self.home, self.module, self.piped = home, module, piped
        self.executions: list[str] = []
        self.before: Callable[[str], None] = lambda cmd: None
        self._task = SimpleNamespace(
            **{"async_val": 0, "check_mode": False, "environment": [], "delegate_to": None, **task}
        )
        self._connection = SimpleNamespace(_shell=ShellModule(), reset=lambda: None)

    def run(self, tmp: Any = None, task_vars: Any = None) -> dict[str, Any]:
        return _progress.run_with_progress(self, "x", {}, {"inventory_hostname": "spark-1"}, self.limit)

    limit = 60

    def get_shell_option(self, option: str, default: Any = None) -> Any:
        return default

    def _low_level_execute_command(self, cmd: str, in_data: Any = None, **_: Any) -> dict[str, Any]:
        self.before(cmd)
        self.executions.append(cmd)
        done = subprocess.run(
            ["sh", "-c", cmd],
            input=in_data,
            capture_output=True,
            text=True,
            env=os.environ | {"HOME": str(self.home)},
        )
        return {"rc": done.returncode, "stdout": "motd\n" + done.stdout, "stderr": done.stderr}

    def _execute_module(
        self, module_name: Any = None, module_args: Any = None, **options: Any
    ) -> dict[str, Any]:
        if options.get("wrap_async") or self._task.check_mode:
            return {"plain": options.get("wrap_async", False)}
        self._low_level_execute_command("echo prepared")
        said = "".join(f"{name}={value} " for each in self._task.environment for name, value in each.items())
        return self._low_level_execute_command(said + self.module, in_data=self.piped)

    @property
    def left(self) -> list[str]:
        return sorted(os.listdir(self.home / ".ansible_async"))


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    found: list[str] = []
    monkeypatch.setattr(_progress, "Display", lambda: SimpleNamespace(display=found.append))
    return found


def speak(between: str = ":") -> str:
    """A module that says two lines, prints one on each stream, and leaves with 3."""
    return (
        "sh -c 'said=$(eval echo $SPARKFLEET_PROGRESS); echo one >>$said; echo out; echo err >&2; "
        f"{between}; echo two >>$said; exit 3'"
    )


def test_a_job_that_is_done_at_once_costs_one_execution(tmp_path: Path, lines: list[str]) -> None:
    host = Host(tmp_path, speak())
    done = host.run()
    assert (done["rc"], done["stdout"], done["stderr"]) == (3, "out\n", "err\n")
    assert lines == ["spark-1: one", "spark-1: two"]
    assert len(host.executions) == 2 and host.executions[0] == "echo prepared"
    assert host.left == [] and host._task.environment == []
    assert "_low_level_execute_command" not in vars(host)


def test_a_longer_one_costs_a_poll_each_time_and_nothing_else(
    tmp_path: Path, lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_progress, "WATCH", 0.2)
    monkeypatch.setattr(_progress, "FIRST_POLL", float("inf"))  # the host waits, not the controller
    go = tmp_path / "go"
    host = Host(tmp_path, speak(f"while ! [ -e {go} ]; do sleep 0.05; done"))
    host.before = lambda cmd: go.touch() if len(host.executions) == 3 else None
    done = host.run()
    assert (done["rc"], done["stdout"]) == (3, "out\n")
    assert lines == ["spark-1: one", "spark-1: two"]
    assert len(host.executions) == 4
    assert host.left == []


def test_what_a_module_leaves_running_is_not_waited_for(tmp_path: Path, lines: list[str]) -> None:
    host = Host(tmp_path, f"sh -c 'setsid sleep 60 & echo $! >{tmp_path}/pid; exit 3' >/dev/null 2>&1")
    try:
        assert host.run()["rc"] == 3
        assert len(host.executions) == 2
    finally:
        os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)


def test_what_is_piped_reaches_the_module_and_is_not_kept(tmp_path: Path, lines: list[str]) -> None:
    kept = tmp_path / "kept"
    host = Host(tmp_path, "python3", f"import os\nopen({str(kept)!r}, 'w').write(str(os.listdir(os.path.dirname(os.path"
                f".expanduser(os.environ['{ENVIRONMENT}'])))))\nprint('ran')\n")  # fmt: skip
    assert host.run()["stdout"] == "ran\n"
    assert sorted(ast.literal_eval(kept.read_text())) == ["err", "lock", "out", "said"]


def test_a_job_is_ended_at_its_limit_with_all_that_it_started(tmp_path: Path, lines: list[str]) -> None:
    host = Host(tmp_path, f"sh -c 'sleep 60 & echo $! >{tmp_path}/pid; wait' x")
    host.limit = 1
    assert json.loads(host.run()["stdout"]) == {"failed": True, "msg": "Timeout exceeded"}
    status = Path("/proc", (tmp_path / "pid").read_text().strip(), "status")
    assert not status.exists() or "State:\tZ" in status.read_text()
    assert host.left == []


def test_a_start_that_is_repeated_starts_nothing(
    tmp_path: Path, lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Twice(Host):
        def _low_level_execute_command(self, cmd: str, in_data: Any = None, **_: Any) -> dict[str, Any]:
            if "setsid" in cmd:
                monkeypatch.setattr(_progress, "WATCH", 0.1)
                super()._low_level_execute_command(cmd, in_data)
            return super()._low_level_execute_command(cmd, in_data)

    monkeypatch.setattr(_progress, "WATCH", 0.1)
    assert Twice(tmp_path, f"sh -c 'echo ran >>{tmp_path}/count; sleep 1'").run()["rc"] == 0
    assert (tmp_path / "count").read_text() == "ran\n"


@pytest.mark.parametrize(
    "harm",
    [
        "import os, shutil; shutil.rmtree(os.path.dirname(os.path.expanduser(os.environ['SPARKFLEET_PROGRESS'])))",
        "import os; os.kill(os.getsid(0), 9)",
    ],
    ids=["its folder is removed", "its shell is killed"],
)
def test_a_job_without_a_result_is_told(tmp_path: Path, lines: list[str], harm: str) -> None:
    host = Host(tmp_path, f"{sys.executable} -", harm)
    said = json.loads(host.run()["stdout"])
    assert said["failed"] and "something removed it or killed its shell" in said["msg"]
    assert host.left == []


def test_a_host_that_has_no_room_says_why(tmp_path: Path, lines: list[str]) -> None:
    (tmp_path / ".ansible_async").write_text("in the way")
    said = json.loads(Host(tmp_path, "true").run()["stdout"])
    assert "~/.ansible_async" in said["msg"] and "mkdir" in said["msg"]


def test_a_controller_that_is_interrupted_takes_the_job_along(
    tmp_path: Path, lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_progress, "WATCH", 0.1)
    host = Host(tmp_path, f"{sys.executable} -", JOB.replace("lease=1.0", "lease=60"))

    def interrupt(cmd: str) -> None:
        if len(host.executions) > 2 and not cmd.startswith("rm "):
            raise KeyboardInterrupt

    host.before = interrupt
    with pytest.raises(KeyboardInterrupt):
        host.run()
    assert host.left == []
    assert "_low_level_execute_command" not in vars(host)


def test_check_mode_and_a_task_with_its_own_async_are_plain_runs(tmp_path: Path) -> None:
    assert Host(tmp_path, "true", check_mode=True).run() == {"plain": False}
    assert Host(tmp_path, "true", async_val=30).run() == {"plain": True}


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
