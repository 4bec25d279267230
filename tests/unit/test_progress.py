# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Both ends of the progress file: what a module writes, what the controller reads, and who ends whom."""

from __future__ import annotations

import json
import os
import shlex
import shutil
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
from ansible_collections.sparkfleet.vllm.plugins.module_utils import _background, _run_lock
from ansible_collections.sparkfleet.vllm.plugins.module_utils._progress import ENVIRONMENT, Progress, scratch
from ansible_collections.sparkfleet.vllm.plugins.plugin_utils import _progress
from ansible_collections.sparkfleet.vllm.plugins.plugin_utils._progress import Answer, parse_poll


def test_lines_are_rate_limited_and_not_repeated(tmp_path: Path) -> None:
    now = [0.0]
    (tmp_path / "p").touch()
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
    progress.say("too late")
    assert not (tmp_path / "p").exists()


@pytest.mark.parametrize(
    ("stdout", "expected"),
    [
        ("sparkfleet-job:running\na\nb\n", Answer("running", ("a", "b"))),
        ("Welcome!\r\nsparkfleet-job:running\r\na\r\n", Answer("running", ("a",))),
        ("sparkfleet-job:running\na\nhalf a li", Answer("running", ("a",))),
        ("sparkfleet-job:running\n", Answer("running")),
        ("sparkfleet-job:gone\n", Answer("gone")),
        ("sparkfleet-job:ended\na\nhalf a li", Answer("ended", ("a",))),
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


# -- both ends together: a host that is this machine


class Host(ActionBase):
    """Runs what it is told in a shell, as ssh and sudo do, and counts. `work` is what its module does in the background."""

    def __init__(self, home: Path, work: str, limit: int = 60, **task: Any) -> None:
        self.home, self.limit = home, limit
        self.module = home / "module.py"
        self.module.write_text(MODULE.format(paths=sys.path, settings=SETTINGS, work=work))
        self.executions: list[str] = []
        self.before: Callable[[str], None] = lambda cmd: None
        self._task = SimpleNamespace(
            **{"async_val": 0, "check_mode": False, "environment": None, "delegate_to": None, **task}
        )
        self._connection = SimpleNamespace(_shell=ShellModule(), reset=lambda: None)

    def run(self, tmp: Any = None, task_vars: Any = None) -> dict[str, Any]:
        return _progress.run_with_progress(
            self, "x", {"secret": "s3cr3t"}, {"inventory_hostname": "spark-1"}, self.limit
        )

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
        said = "".join(
            f"{name}={shlex.quote(value)} "
            for each in self._task.environment or []
            for name, value in each.items()
        )
        # Piped, as with pipelining: the arguments are in no file.
        text = self.module.read_text().replace("ARGUMENTS", repr(module_args))
        answer = self._low_level_execute_command(f"{said}{sys.executable} -", in_data=text)
        lines = [line for line in answer["stdout"].splitlines() if line.startswith("{")]
        return json.loads(lines[0]) if lines else {"failed": True, "msg": answer["stdout"] + answer["stderr"]}

    @property
    def left(self) -> list[str]:
        folder = self.home / ".ansible_async"
        return sorted(os.listdir(folder)) if folder.exists() else []


MODULE = """
import json, os, signal, subprocess, sys, time
sys.path[:0] = {paths!r}
from ansible_collections.sparkfleet.vllm.plugins.module_utils import _background
from ansible_collections.sparkfleet.vllm.plugins.module_utils._progress import Progress
vars(_background).update({settings!r})
arguments = ARGUMENTS
unpacked = __import__("tempfile").mkdtemp(dir=os.environ["HOME"], prefix="unpacked")
def main():
    _background.in_background()
    say = Progress.from_environment().say
    job = os.path.dirname(os.environ["SPARKFLEET_PROGRESS"])
    {work}
    print("noise")
    print(json.dumps(dict(changed=True, said=arguments["secret"])))
    print("noise", file=sys.stderr)
    sys.exit(3)
try:
    main()
finally:
    import shutil
    shutil.rmtree(unpacked, ignore_errors=True)
"""
"""As Ansible runs one: what it unpacked is removed by whoever leaves in an orderly way."""
SETTINGS: dict[str, float] = {}
"""Times of the host's side."""


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    found: list[str] = []
    monkeypatch.setattr(_progress, "Display", lambda: SimpleNamespace(display=found.append))
    return found


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fronts and polls answer soon, and the guard looks often."""
    monkeypatch.setattr(_background, "WATCH", 0.3)
    monkeypatch.setitem(SETTINGS, "WATCH", 0.1)
    monkeypatch.setitem(SETTINGS, "LOOK", 0.1)
    monkeypatch.setattr(_progress, "FIRST_POLL", float("inf"))  # the host waits, not the controller


def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.02)


def lives(path: Path) -> bool:
    """Whether the process still runs whose id a job has left in this file."""
    try:
        status = Path("/proc", path.read_text().strip(), "status").read_text()
    except OSError:
        return False
    return "State:\tZ" not in status


SPEAK = 'say("one"); say("two")'
RESULT = {"changed": True, "said": "s3cr3t"}


def test_a_job_that_is_done_at_once_costs_one_execution(tmp_path: Path, lines: list[str]) -> None:
    host = Host(tmp_path, SPEAK)
    assert host.run() == RESULT
    assert lines == ["spark-1: one", "spark-1: two"]
    assert len(host.executions) == 1
    assert host.left == [] and host._task.environment is None
    until(lambda: not list(tmp_path.glob("unpacked*")))


def test_a_longer_one_costs_a_poll_each_time_and_one_execution_for_its_result(
    tmp_path: Path, lines: list[str], quick: None
) -> None:
    go = tmp_path / "go"
    host = Host(
        tmp_path, f'say("one")\n    while not os.path.exists({str(go)!r}): time.sleep(0.02)\n    say("two")'
    )
    host.before = lambda cmd: go.touch() if len(host.executions) == 2 else None
    assert host.run() == RESULT
    assert lines == ["spark-1: one", "spark-1: two"]
    kinds = ["module" if "SPARKFLEET_JOB" in command else "poll" for command in host.executions]
    polls = kinds[1:-1]
    assert (kinds[0], {*polls}, kinds[-1]) == ("module", {"poll"}, "module") and len(polls) > 1
    assert host.left == []
    until(lambda: not list(tmp_path.glob("unpacked*")))


def test_what_a_module_leaves_running_is_not_waited_for(tmp_path: Path, lines: list[str]) -> None:
    pid = tmp_path / "pid"
    host = Host(tmp_path, f'left = subprocess.Popen(["sleep", "60"], start_new_session=True)\n'
                f"    open({str(pid)!r}, 'w').write(str(left.pid))")  # fmt: skip
    try:
        assert host.run() == RESULT and lives(pid)
    finally:
        os.kill(int(pid.read_text()), signal.SIGKILL)


def test_the_arguments_are_in_no_file_and_in_no_command_line(tmp_path: Path, lines: list[str]) -> None:
    kept = tmp_path / "kept"
    host = Host(
        tmp_path,
        "found = dict((name, open(os.path.join(job, name)).read()) for name in os.listdir(job))\n"
        "    found['argv'] = open('/proc/self/cmdline').read()\n"
        "    found['parent'] = open(f'/proc/{os.getppid()}/cmdline').read()\n"
        "    found['mode'] = oct(os.stat(job).st_mode)\n"
        "    found['children'] = str(sorted(name for name in os.environ if 'SPARKFLEET' in name))\n"
        f"    json.dump(found, open({str(kept)!r}, 'w'))",
    )
    assert host.run() == RESULT
    found = json.loads(kept.read_text())
    assert {*found} == {"err", "lock", "out", "said", "argv", "parent", "mode", "children"}
    assert "s3cr3t" not in str(found)
    assert (found["mode"], found["children"]) == ("0o40700", "['SPARKFLEET_PROGRESS']")
    assert all("s3cr3t" not in command for command in host.executions)


WAITS = 'child = subprocess.Popen(["sleep", "60"])\n    open({path!r}, "w").write(str(child.pid))\n    {then}'


@pytest.mark.parametrize("then", ["child.wait()", "[x for x in iter(int, 1)]"], ids=["waits", "computes"])
def test_a_job_is_ended_at_its_limit_with_all_that_it_started(
    tmp_path: Path, lines: list[str], then: str
) -> None:
    host = Host(tmp_path, WAITS.format(path=str(tmp_path / "pid"), then=then), limit=1)
    assert host.run() == {"failed": True, "msg": "Timeout exceeded"}
    assert not lives(tmp_path / "pid")
    assert host.left == []
    until(lambda: not list(tmp_path.glob("unpacked*")))


def test_one_that_will_not_end_is_made_to(
    tmp_path: Path, lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SETTINGS, "KILL_AFTER", 0.5)
    stubborn = "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n    while True: time.sleep(0.1)"
    host = Host(tmp_path, stubborn, limit=1)
    assert host.run() == {"failed": True, "msg": "Timeout exceeded"}


def test_a_start_that_is_repeated_starts_nothing(tmp_path: Path, lines: list[str], quick: None) -> None:
    class Twice(Host):
        def _low_level_execute_command(self, cmd: str, in_data: Any = None, **_: Any) -> dict[str, Any]:
            if in_data and not self.executions:
                super()._low_level_execute_command(cmd, in_data)
            return super()._low_level_execute_command(cmd, in_data)

    host = Twice(tmp_path, f'open({str(tmp_path / "count")!r}, "a").write("ran"); time.sleep(1)')
    assert host.run() == RESULT
    assert (tmp_path / "count").read_text() == "ran"


@pytest.mark.parametrize(
    "harm",
    ["__import__('shutil').rmtree(job); time.sleep(60)", "os.kill(os.getppid(), 9); time.sleep(60)"],
    ids=["its folder is removed", "its guard is killed"],
)
def test_a_job_without_a_result_is_told_and_leaves_nothing_at_work(
    tmp_path: Path, lines: list[str], harm: str
) -> None:
    pid = tmp_path / "pid"
    host = Host(tmp_path, f'open({str(pid)!r}, "w").write(str(os.getpid())); {harm}')
    said = host.run()
    assert said["failed"] and "something removed it or killed its guard" in said["msg"]
    assert host.left == []
    until(lambda: not lives(pid))


def test_a_folder_that_is_removed_between_polls_is_told(
    tmp_path: Path, lines: list[str], quick: None
) -> None:
    host = Host(tmp_path, "time.sleep(60)")
    host.before = lambda cmd: shutil.rmtree(tmp_path / ".ansible_async") if cmd.startswith("d=") else None
    assert "something removed it" in host.run()["msg"]
    assert len(host.executions) == 2


def test_what_a_module_says_that_ends_in_no_result_is_kept(tmp_path: Path, lines: list[str]) -> None:
    said = Host(tmp_path, "raise RuntimeError('no idea')").run()
    assert said["failed"] and "RuntimeError: no idea" in said["msg"]


def test_a_host_that_has_no_room_says_why(tmp_path: Path, lines: list[str]) -> None:
    (tmp_path / ".ansible_async").write_text("in the way")
    said = Host(tmp_path, "pass").run()
    assert said["failed"] and "/.ansible_async, seen [Errno 17] File exists" in said["msg"]


def test_a_controller_that_is_interrupted_takes_the_job_along(
    tmp_path: Path, lines: list[str], quick: None
) -> None:
    pid = tmp_path / "pid"
    host = Host(tmp_path, WAITS.format(path=str(pid), then="child.wait()"))

    def interrupt(cmd: str) -> None:
        if len(host.executions) > 1 and not cmd.startswith("rm "):
            raise KeyboardInterrupt

    host.before = interrupt
    with pytest.raises(KeyboardInterrupt):
        host.run()
    until(lambda: not lives(pid) and host.left == [] and not list(tmp_path.glob("unpacked*")))


def test_a_job_that_nobody_asks_for_any_more_ends(
    tmp_path: Path, lines: list[str], quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The controller is killed, or cut off: it removes nothing."""
    monkeypatch.setitem(SETTINGS, "LEASE", 1.0)
    pid = tmp_path / "pid"
    host = Host(tmp_path, WAITS.format(path=str(pid), then="child.wait()"))

    def vanish(cmd: str) -> None:
        if len(host.executions) > 3:
            raise SystemExit

    host.before = vanish
    with pytest.raises(SystemExit):
        host.run()
    assert lives(pid), "it was asked for until now"
    until(lambda: not lives(pid) and host.left == [])


def test_a_job_ends_when_the_host_is_no_longer_that_of_its_run(
    tmp_path: Path, lines: list[str], quick: None
) -> None:
    pid, lock = tmp_path / "pid", tmp_path / "run.json"
    run = {"id": "mine", "holder": "me@here", "controller": "", "pid": 1, "started": "1"}
    lock.write_text(json.dumps(_run_lock.record(run, 120, "now")))
    os.utime(lock, (0, 0))
    asked = {"SPARKFLEET_RUN": json.dumps({"run": "mine", "directory": str(tmp_path)})}
    host = Host(tmp_path, WAITS.format(path=str(pid), then="child.wait()"), environment=[asked])
    polled = []

    def take_over(cmd: str) -> None:
        if cmd.startswith("d=") and len(host.executions) == 3:
            polled.append(lock.stat().st_mtime)
            other = {**run, "id": "other", "holder": "you@there"}
            lock.write_text(json.dumps(_run_lock.record(other, 120, "now")))

    host.before = take_over
    said = host.run()
    assert said["failed"] and "seen that of you@there" in said["msg"]
    assert not lives(pid) and host.left == []
    assert polled[0] > 0, "each poll was a sign of life of its run"


def test_a_result_that_nobody_brings_is_removed(
    tmp_path: Path, lines: list[str], quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SETTINGS, "LEASE", 0.5)
    host = Host(tmp_path, "time.sleep(0.3)")

    def vanish(cmd: str) -> None:
        if host.executions:
            raise SystemExit

    host.before = vanish
    with pytest.raises(SystemExit):
        host.run()
    until(lambda: host.left == [])


def test_a_result_is_brought_through_a_connection_that_is_lost_for_a_while(
    tmp_path: Path, lines: list[str], quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_progress, "FIRST_POLL", 0.01)
    host = Host(tmp_path, "time.sleep(0.5)")
    lost = [True, True]

    def cut(cmd: str) -> None:
        if "SPARKFLEET_JOB" in cmd and host.executions and lost:
            lost.pop()
            raise AnsibleConnectionFailure("cut")

    host.before = cut
    assert host.run() == RESULT and not lost


def test_check_mode_and_a_task_with_its_own_async_are_plain_runs(tmp_path: Path) -> None:
    assert Host(tmp_path, "pass", check_mode=True).run() == {"plain": False}
    assert Host(tmp_path, "pass", async_val=30).run() == {"plain": True}


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
