# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs a module in the background of a host and prints what it says: the front of the long-running modules.

An action plugin is then:

    class ActionModule(ActionBase):
        _supports_check_mode = True
        _supports_async = True

        def run(self, tmp=None, task_vars=None):
            result = super().run(tmp, task_vars)
            return merge_hash(result, run_with_progress(self, "sparkfleet.vllm.x", self._task.args, task_vars, 3600))

and its module calls `in_background()` before anything else (plugins/module_utils/_run/detached.py), later
`Progress.from_environment().say("...")` (plugins/module_utils/_common/progress.py).

The module itself goes to the background and answers for its job. So Ansible runs it in its own way: once to start it, and once more to
bring the result. A module that ends at once brings the result with its start. Between the two, a poll is a short command of the shell,
which waits on the host.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import secrets
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from ansible.errors import AnsibleConnectionFailure, AnsibleError
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

from ..module_utils._common.terminal import one_line, printable
from ..module_utils._run import detached

FIRST_POLL, LAST_POLL, POLL_GROWTH = 2.0, 5.0, 1.25
ANSWER = 60.0
"""Seconds that one poll may take. A loaded controller needs up to 20; without a limit, a host behind a cut link would need for ever."""
GRACE = 60.0
"""Seconds past the time limit after which a job must have ended."""
PATIENCE = detached.LEASE
"""Seconds to wait for a lost connection. After that the job has ended, too."""
TIMED_OUT = detached.TIMED_OUT

_JOB = "sparkfleet-job:"
_T = TypeVar("_T")


def run_with_progress(
    action: ActionBase,
    module_name: str,
    module_args: dict[str, Any],
    task_vars: dict[str, Any] | None,
    timeout: int,
) -> dict[str, Any]:
    """Run `module_name` for at most `timeout` seconds; return its result as a plain run would.

    In check mode, and in a task with its own `async`, it is a plain run: the first is short, and Ansible itself polls the second.
    A host costs the start. A module that takes longer than WATCH seconds costs one command for every further WATCH seconds, and
    one execution that brings the result.
    """
    # _execute_module adds its internal keys to the arguments.
    args = dict(module_args)
    task = action._task
    if task.async_val:
        return action._execute_module(module_name, args, task_vars=task_vars, wrap_async=True)
    if task.check_mode:
        return action._execute_module(module_name, args, task_vars=task_vars)
    return Job(action, module_name, args, task_vars, timeout).run()


def seconds(args: dict[str, Any], name: str, default: int) -> int:
    """A time limit among the arguments of a module, in whole seconds, for the time that its job may take."""
    try:
        return int(args.get(name) or default)
    except (TypeError, ValueError):
        return default  # the module says what is wrong with it


def label(action: ActionBase, task_vars: dict[str, Any] | None) -> str:
    """The beginning of this task's lines."""
    host = (task_vars or {}).get("inventory_hostname", "?")
    return f"{host} -> {action._task.delegate_to}" if action._task.delegate_to else str(host)


class Job:
    """One module in the background of a host, as the controller sees it. `_run/detached.py` has the host's side."""

    def __init__(
        self,
        action: ActionBase,
        module_name: str,
        module_args: dict[str, Any],
        task_vars: dict[str, Any] | None,
        timeout: int,
    ) -> None:
        self._action, self._timeout = action, timeout
        self._module_name, self._module_args, self._task_vars = module_name, module_args, task_vars
        self._host = label(action, task_vars)
        self._remote = action._connection._shell
        self._printed = 0
        self._parent = str(action.get_shell_option("async_dir", default="~/.ansible_async"))
        self._folder = str(self._remote.join_path(self._parent, f"sparkfleet-{secrets.token_hex(8)}"))

    def run(self) -> dict[str, Any]:
        deadline = time.monotonic() + self._timeout + GRACE
        state = ""
        try:
            state, result = self._execute(start=True)
            if state == "running":
                state = self._follow(deadline)
                if state == "gone":
                    return _failure(detached.NO_RESULT.format(self._parent))
                if state == "late":
                    return _failure(
                        "expected the background job to have ended within its time limit, seen it at work; see its "
                        "processes on the host"
                    )
                state, result = patiently(self._action, lambda: self._execute(start=False), PATIENCE)
            return result
        finally:
            # Work ends when its folder is gone. This also stops it after a task timeout.
            if state not in ("ended", "gone"):
                with contextlib.suppress(AnsibleConnectionFailure):
                    self._action._low_level_execute_command(f"rm -rf {self._quoted()}")

    def _execute(self, start: bool) -> tuple[str, dict[str, Any]]:
        """Run the module's front: gives the state of its job, and the result of one that has ended."""
        order = {"folder": self._folder, "limit": self._timeout, "start": start}
        with environment(self._action, {detached.ENVIRONMENT: json.dumps(order)}):
            result: dict[str, Any] = self._action._execute_module(
                self._module_name, dict(self._module_args), task_vars=self._task_vars
            )
        own = result.pop(detached.ANSWER, None) or {}
        self._show((own.get("lines") or [])[self._printed :])
        return str(own.get("state") or ""), result

    def _follow(self, deadline: float) -> str:
        """Show the job's lines until it no longer runs, and return its last state."""
        for stdout in polls(self._action, self._poll, deadline, waits=True):
            answer = parse_poll(stdout)
            self._show(answer.lines)
            if answer.state in ("ended", "gone"):
                return answer.state
            if not answer.state:
                time.sleep(1)  # ask again, but not as fast as noise comes
        return "late"

    def _poll(self) -> str:
        """The state comes before the lines: if it is ended, the lines after it are complete."""
        return (
            f'd={self._quoted()}; touch -ac "$d/said" 2>/dev/null; '
            f'if [ ! -d "$d" ]; then s=gone; elif flock -w {detached.WATCH:g} "$d/lock" true; '
            f"then s=ended; else s=running; fi; printf '{_JOB}%s\\n' \"$s\"; "
            f'tail -n +{self._printed + 1} "$d/said" 2>/dev/null || :'
        )

    def _quoted(self) -> str:
        """The folder for a shell. A quoted tilde would not be expanded, and an unquoted path could be split."""
        home, _slash, rest = self._folder.partition("/")
        return f'"$HOME"/{self._remote.quote(rest)}' if home == "~" else str(self._remote.quote(self._folder))

    def _show(self, lines: Sequence[str]) -> None:
        for line in lines:
            Display().display(one_line(f"{self._host}: {line}"))
        self._printed += len(lines)


def _failure(text: str) -> dict[str, Any]:
    return {"failed": True, "msg": printable(text)}


@contextlib.contextmanager
def environment(action: ActionBase, variables: dict[str, str]) -> Iterator[None]:
    """Add variables to the environment of the task's modules, besides those of its author."""
    task = action._task
    before = task.environment
    task.environment = [*(before or []), variables]
    try:
        yield
    finally:
        task.environment = before


def patiently(action: ActionBase, ask: Callable[[], _T], patience: float) -> _T:
    """The answer of `ask()`, over a connection that may be lost for `patience` seconds.

    :raises AnsibleConnectionFailure: it stayed lost for longer
    """
    wait, lost_since = FIRST_POLL, None
    while True:
        try:
            with answered_within(ANSWER):
                return ask()
        except AnsibleConnectionFailure:
            lost_since = lost_since or time.monotonic()
            if time.monotonic() - lost_since > patience:
                raise
            with contextlib.suppress(Exception):
                action._connection.reset()
        time.sleep(wait)
        wait = min(wait * POLL_GROWTH, LAST_POLL)


def polls(
    action: ActionBase,
    command: Callable[[], str],
    deadline: float,
    longest: float = LAST_POLL,
    patience: float = PATIENCE,
    waits: bool = False,
) -> Iterator[str]:
    """The output of `command()` on the host, again and again until the deadline (time.monotonic).

    :param longest: most seconds between two of them
    :param patience: seconds to wait for a lost connection
    :param waits: True: the command itself waits on the host, so there is no wait before it here
    :raises AnsibleConnectionFailure: it stayed lost for longer
    :raises AnsibleError: the run of this worker was killed, which does not end its workers
    """
    wait, run = FIRST_POLL, multiprocessing.parent_process()
    while time.monotonic() < deadline:
        if run and not run.is_alive():
            raise AnsibleError("expected the run to be there, seen it killed")
        if not waits:
            time.sleep(wait)
            wait = min(wait * POLL_GROWTH, longest)
        yield patiently(action, lambda: str(action._low_level_execute_command(command())["stdout"]), patience)


@contextlib.contextmanager
def answered_within(seconds: float) -> Iterator[None]:
    """Limit a wait. When packets vanish, ssh waits as long as TCP does; sudo's prompt has a limit, a login as root has none.

    :raises AnsibleConnectionFailure: the time is over. Not in a task with its own `timeout`, which uses the alarm
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
    """The answer of one poll. `state` is running, ended or gone, or empty when the answer does not hold it (noise of a login
    shell). `lines` are those that were not shown before.
    """

    state: str = ""
    lines: tuple[str, ...] = ()


def parse_poll(stdout: str) -> Answer:
    """Read the output of one poll. Only whole lines count. A terminal may sit between (ssh -tt), so lines are counted instead of
    bytes, and a carriage return does not belong to a line.
    """
    _before, found, rest = stdout.replace("\r\n", "\n").partition(_JOB)
    state, newline, text = rest.partition("\n")
    if not found or not newline:
        return Answer()
    return Answer(state.strip(), tuple(text.split("\n")[:-1]))
