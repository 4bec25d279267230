# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run a module in the background of a host and print what it says: the front of the long-running modules.

An action plugin is then:

    class ActionModule(ActionBase):
        _supports_check_mode = True
        _supports_async = True

        def run(self, tmp=None, task_vars=None):
            result = super().run(tmp, task_vars)
            return merge_hash(result, run_with_progress(self, "sparkfleet.vllm.x", self._task.args, task_vars, 3600))

and its module calls `Progress.from_environment().say("...")` (plugins/module_utils/_progress.py).

Ansible builds the module's command and reads its answer, as ever. What is put between is how the command runs: detached
from the connection, by a shell that holds a lock for as long as it does. So a poll is a command that waits for that
lock, the last one brings what the module printed, and a module that is done at once costs one execution, its start.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display
from ansible_collections.sparkfleet.vllm.plugins.module_utils._progress import ENVIRONMENT, LEASE

FIRST_POLL, LAST_POLL, POLL_GROWTH = 2.0, 5.0, 1.25
WATCH = 10.0
"""Seconds for which the start of a job, and each poll, waits for its end: lines are shown as late as that."""
ANSWER = 60.0
"""Seconds that one poll may take. A loaded controller needs up to 20; a host behind a cut link would need for ever."""
GRACE = 60.0
"""Seconds past the time limit in which a job must have been ended."""
KILL_AFTER = 10
"""Seconds between being asked to end and being made to."""
TIMED_OUT = "Timeout exceeded"
"""What a result says of a job that was ended at its time limit; Ansible's async_wrapper says the same."""

_JOB, _OUTPUT, _ERROR = "sparkfleet-job:", "\nsparkfleet-output:\n", "\nsparkfleet-error:\n"
_ENDED_AT_LIMIT = (124, 128 + signal.SIGKILL)
"""What timeout(1) leaves with; the second also tells of a process that the kernel killed."""


def run_with_progress(
    action: ActionBase,
    module_name: str,
    module_args: dict[str, Any],
    task_vars: dict[str, Any] | None,
    timeout: int,
) -> dict[str, Any]:
    """Run `module_name` for at most `timeout` seconds; return its result as a plain run would.

    In check mode, and in a task with its own `async`, it is a plain run: the first is short, the second is
    polled by Ansible itself. A host costs the start, and one command for every WATCH seconds that it takes longer.
    """
    # _execute_module adds its internal keys to what it is given.
    args = dict(module_args)
    task = action._task
    if task.async_val:
        return action._execute_module(module_name, args, task_vars=task_vars, wrap_async=True)
    if task.check_mode:
        return action._execute_module(module_name, args, task_vars=task_vars)

    parent = action.get_shell_option("async_dir", default="~/.ansible_async")
    folder = action._connection._shell.join_path(parent, f"sparkfleet-{secrets.token_hex(8)}")
    job = Job(action, folder, label(action, task_vars), timeout)
    environment = {ENVIRONMENT: job.said}
    task.environment = [*(task.environment or []), environment]
    # Of this one call: the class's own method is back when the instance's is gone.
    action._low_level_execute_command = job.execute  # type: ignore[method-assign]
    try:
        return action._execute_module(module_name, args, task_vars=task_vars)
    finally:
        del action._low_level_execute_command
        task.environment = [entry for entry in task.environment if entry is not environment]


def seconds(args: dict[str, Any], name: str, default: int) -> int:
    """A limit among the arguments of a module, whole seconds, for the time that its job may take."""
    try:
        return int(args.get(name) or default)
    except (TypeError, ValueError):
        return default  # the module says what is wrong with it


def label(action: ActionBase, task_vars: dict[str, Any] | None) -> str:
    """What a line of this task begins with."""
    host = (task_vars or {}).get("inventory_hostname", "?")
    return f"{host} -> {action._task.delegate_to}" if action._task.delegate_to else str(host)


class Job:
    """One module in the background of a host. All that it has there is in `folder`:

    in    what the command reads: the module, where it is piped. Removed as soon as it is open, since it holds the arguments
    out, err, code    what it printed and how it ended
    said    its progress, and the lease on it
    lock    held while it runs, so that its end can be waited for; the kernel lets go of it whatever happens
    """

    def __init__(self, action: ActionBase, folder: str, host: str, timeout: int) -> None:
        self._run = action._low_level_execute_command
        self._action, self._host, self._timeout = action, host, timeout
        self._shell = action._connection._shell
        self._printed = 0
        self._parent = folder.rpartition("/")[0]
        self.said = self._shell.join_path(folder, "said")
        home, _sep, rest = folder.partition("/")
        # A tilde that is quoted is none, and one that is not would let the rest be split.
        self._folder = f'"$HOME"/{self._quote(rest)}' if home == "~" else self._quote(folder)

    def _quote(self, text: str) -> str:
        return str(self._shell.quote(text))

    def execute(self, cmd: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """What `_low_level_execute_command` does, for the command of the module; all others run as they did."""
        if self.said not in cmd:
            return self._run(cmd, *args, **kwargs)
        began = time.monotonic()
        answer = Answer()
        try:
            first = self._run(self._start(cmd, kwargs.get("in_data") is not None), *args, **kwargs)
            answer = self._show(first["stdout"])
            if not answer.state:
                return _refusal(
                    f"expected room for a background job in {self._parent}, seen "
                    f"{(first['stderr'] or first['stdout']).strip()[-500:] or 'no answer'}; see that root can write there"
                )
            following = polls(self._action, self._poll, began + self._timeout + GRACE, waits=True)
            while answer.state in ("running", ""):
                if not answer.state:
                    time.sleep(1)  # ask again, but not as fast as noise comes
                answer = self._show(next(following, f"{_JOB}late\n"))
        finally:
            # A module whose progress file is gone ends: this also stops the job when a task timeout got us here.
            if answer.state != "ended":
                with contextlib.suppress(AnsibleConnectionFailure):
                    self._run(f"rm -rf {self._folder}")
        return self._result(answer, time.monotonic() - began)

    def _start(self, cmd: str, piped: bool) -> str:
        """Start the job and wait for its end as a poll does. A start that is repeated is a poll."""
        # Ends with its process group: `timeout` makes one, which the module's lease ends as well.
        limited = f"timeout -k {KILL_AFTER} {self._timeout} /bin/sh -c {self._quote(cmd)} 9>&-"
        script = (
            f'exec <"$1/in" >"$1/out" 2>"$1/err"; rm -f "$1/in"; {limited}; echo $? >"$1/code"; '
            # Nobody is left to read it.
            '[ -e "$1/said" ] || rm -rf "$1"'
        )
        return (
            f'd={self._folder}; mkdir -p "${{d%/*}}"; if mkdir -m 700 "$d"; then '
            f'{"cat" if piped else ":"} >"$d/in"; : >"$d/said"; exec 9>"$d/lock"; flock 9; '
            f'setsid /bin/sh -c {self._quote(script)} sh "$d" </dev/null >/dev/null 2>&1 & exec 9>&-; fi; '
            f'[ ! -d "$d" ] || {{ {self._poll()}; }}'
        )

    def _poll(self) -> str:
        """The job before its lines: when it has ended, the lines that follow are all there are."""
        return (
            f'd={self._folder}; touch -ac "$d/said" 2>/dev/null; '
            f'if [ ! -d "$d" ]; then s=gone; elif flock -w {WATCH:g} "$d/lock" true; '
            'then s="ended $(cat "$d/code" 2>/dev/null)"; else s=running; fi; '
            f'printf \'{_JOB}%s\\n\' "$s"; tail -n +{self._printed + 1} "$d/said" 2>/dev/null; '
            f'case $s in ended*) printf {self._quote(_OUTPUT)}; cat "$d/out"; printf {self._quote(_ERROR)}; '
            'cat "$d/err"; rm -rf "$d";; esac'
        )

    def _show(self, stdout: str) -> Answer:
        answer = parse_poll(stdout)
        for line in answer.lines:
            Display().display(f"{self._host}: {line}")
        self._printed += len(answer.lines)
        return answer

    def _result(self, answer: Answer, seconds: float) -> dict[str, Any]:
        if answer.state == "late":
            return _refusal(
                "expected the background job to have ended within its time limit, seen it at work; see its processes on "
                "the host"
            )
        if answer.code in _ENDED_AT_LIMIT and seconds >= self._timeout:
            return _refusal(TIMED_OUT)
        if answer.code is None:
            return _refusal(
                f"expected the result of a background job in {self._parent}, seen none; the host was restarted, or "
                "something removed it or killed its shell: run the task again"
            )
        return _answer(answer.code, answer.output, answer.error)


def _answer(code: int, output: str, error: str = "") -> dict[str, Any]:
    """As `_low_level_execute_command` answers."""
    return {
        "rc": code,
        "stdout": output,
        "stdout_lines": output.splitlines(),
        "stderr": error,
        "stderr_lines": error.splitlines(),
    }


def _refusal(text: str) -> dict[str, Any]:
    """The answer of a module that failed with `text`."""
    return _answer(1, json.dumps({"failed": True, "msg": text}))


def polls(
    action: ActionBase,
    command: Callable[[], str],
    deadline: float,
    longest: float = LAST_POLL,
    patience: float = LEASE,
    waits: bool = False,
) -> Iterator[str]:
    """What `command()` prints on the host, again and again until the deadline (time.monotonic).

    :param longest: seconds between two of them, in the end
    :param patience: seconds for which a lost connection is waited out
    :param waits: the command itself waits on the host, so nothing is waited here before it
    :raises AnsibleConnectionFailure: it stayed lost
    """
    wait, lost_since = FIRST_POLL, None
    while time.monotonic() < deadline:
        if not waits or lost_since:
            time.sleep(wait)
            wait = min(wait * POLL_GROWTH, longest)
        try:
            with answered_within(ANSWER):
                stdout = action._low_level_execute_command(command())["stdout"]
        except AnsibleConnectionFailure:
            lost_since = lost_since or time.monotonic()
            if time.monotonic() - lost_since > patience:
                raise
            with contextlib.suppress(Exception):
                action._connection.reset()
            continue
        lost_since = None
        yield stdout


@contextlib.contextmanager
def answered_within(seconds: float) -> Iterator[None]:
    """ssh waits for as long as TCP does when packets vanish; sudo's prompt has a limit, a login as root has none.

    :raises AnsibleConnectionFailure: the time is over. Not in a task with a `timeout` of its own, which has the alarm
    """

    def late(*_: object) -> None:
        raise AnsibleConnectionFailure(f"expected an answer within {seconds:.0f} s, seen none")

    if signal.getitimer(signal.ITIMER_REAL)[0]:
        yield
        return
    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@dataclass(frozen=True)
class Answer:
    """Of one poll. `state` is running, ended or gone, or nothing when the answer does not hold it (noise of a login
    shell); `late` when no poll is left to make.

    `code`, `output` and `error` are those of a job that has ended; no code: its shell could not write it.
    """

    state: str = ""
    lines: tuple[str, ...] = ()
    code: int | None = None
    output: str = ""
    error: str = ""


def parse_poll(stdout: str) -> Answer:
    """Only whole lines count. A terminal may sit between (ssh -tt), so lines are counted, not bytes, and a carriage
    return is no part of them.
    """
    _before, found, rest = stdout.replace("\r\n", "\n").partition(_JOB)
    state, newline, rest = rest.partition("\n")
    name, _sep, code = state.strip().partition(" ")
    text, _sep, printed = rest.partition(_OUTPUT)
    output, whole, error = printed.partition(_ERROR)
    if not found or not newline or (name == "ended" and not whole):
        return Answer()
    said = text.rpartition("\n")[0]
    lines = tuple(said.split("\n")) if said else ()
    return Answer(name, lines, int(code) if code.isdigit() else None, output, error)
