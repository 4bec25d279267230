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
"""

from __future__ import annotations

import contextlib
import re
import secrets
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display
from ansible_collections.sparkfleet.vllm.plugins.module_utils._progress import ENVIRONMENT, LEASE

FIRST_POLL, LAST_POLL, POLL_GROWTH = 2.0, 5.0, 1.25
ANSWER = 60.0
"""Seconds that one poll may take. A loaded controller needs up to 20; a host behind a cut link would need for ever."""
GRACE = 60.0
"""Seconds past the time limit in which async_wrapper must have ended the job and said so."""

_JOB = "sparkfleet-job:"
_RUNNING = re.compile(r'\{"started": ?(true|1), ?"finished": ?(false|0)')
_ASYNC_KEYS = ("ansible_job_id", "results_file", "started", "finished")


def run_with_progress(
    action: ActionBase,
    module_name: str,
    module_args: dict[str, Any],
    task_vars: dict[str, Any] | None,
    timeout: int,
) -> dict[str, Any]:
    """Run `module_name` for at most `timeout` seconds; return its result as a plain run would.

    In check mode, and in a task with its own `async`, it is a plain run: the first is short, the second is
    polled by Ansible itself. A host costs the start, one command a poll, one to fetch and one to clean up.
    """
    # Both runs take their own copy: _execute_module adds its internal keys to what it is given.
    args = dict(module_args)
    if action._task.async_val:
        return action._execute_module(module_name, args, task_vars=task_vars, wrap_async=True)
    if action._task.check_mode:
        return action._execute_module(module_name, args, task_vars=task_vars)

    shell = action._connection._shell
    async_dir = action.get_shell_option("async_dir", default="~/.ansible_async")
    name = f"sparkfleet-{secrets.token_hex(8)}.progress"
    started = _start(action, module_name, args, task_vars, timeout, shell.join_path(async_dir, name))
    if "ansible_job_id" not in started:
        return started

    job = started["results_file"]
    directory = job.rpartition("/")[0]
    progress = shell.join_path(directory, name)
    clean = f"rm -f {shell.quote(job)} {shell.quote(progress)}"
    try:
        problem = _follow(action, job, progress, label(action, task_vars), time.monotonic() + timeout + GRACE)
        if problem:
            return {"failed": True, "msg": problem}
        result = action._execute_module(
            "ansible.legacy.async_status",
            {"jid": started["ansible_job_id"], "_async_dir": directory, "mode": "status"},
            task_vars=task_vars,
        )
    finally:
        # A module whose progress file is gone ends: this also stops the job when a task timeout got us here.
        with contextlib.suppress(AnsibleConnectionFailure):
            action._low_level_execute_command(clean)
    return {key: value for key, value in result.items() if key not in _ASYNC_KEYS}


def _start(
    action: ActionBase,
    module_name: str,
    args: dict[str, Any],
    task_vars: dict[str, Any] | None,
    timeout: int,
    progress: str,
) -> dict[str, Any]:
    task = action._task
    environment = {ENVIRONMENT: progress}
    # The time limit and the environment of an async job are read from the task, and only from there.
    task.environment = [*(task.environment or []), environment]
    task.async_val = timeout
    try:
        return action._execute_module(module_name, args, task_vars=task_vars, wrap_async=True)
    finally:
        task.async_val = 0
        task.environment = [entry for entry in task.environment if entry is not environment]
        # async_wrapper removes the module's own directory; the one that fetching the result makes is ours.
        action._cleanup_remote_tmp = True


def label(action: ActionBase, task_vars: dict[str, Any] | None) -> str:
    """What a line of this task begins with."""
    host = (task_vars or {}).get("inventory_hostname", "?")
    return f"{host} -> {action._task.delegate_to}" if action._task.delegate_to else str(host)


def _follow(action: ActionBase, job: str, progress: str, host: str, deadline: float) -> str:
    """Print the lines until the job has ended. Returns what is wrong with the job itself, or nothing."""
    quote = action._connection._shell.quote
    printed = 0

    def command() -> str:
        # The job before its lines: when the job has ended, the lines that follow are all there are.
        return (
            f"printf '{_JOB}%s\\n' \"$(head -c 40 {quote(job)} 2>/dev/null)\"; "
            f"touch -ac {quote(progress)} 2>/dev/null; tail -n +{printed + 1} {quote(progress)} 2>/dev/null || :"
        )

    for stdout in polls(action, command, deadline):
        state, lines = parse_poll(stdout)
        for line in lines:
            Display().display(f"{host}: {line}")
        printed += len(lines)
        if state is None:
            continue
        if not state:
            return (
                f"expected the result of a background job in {job}, but the file is gone; the host was restarted "
                "or something removed it: run the task again"
            )
        if not _RUNNING.match(state):
            return ""
    return (
        "the background job neither ended nor was ended within its time limit; see its processes on the host"
    )


def polls(
    action: ActionBase,
    command: Callable[[], str],
    deadline: float,
    longest: float = LAST_POLL,
    patience: float = LEASE,
) -> Iterator[str]:
    """What `command()` prints on the host, again and again until the deadline (time.monotonic).

    :param longest: seconds between two of them, in the end
    :param patience: seconds for which a lost connection is waited out
    :raises AnsibleConnectionFailure: it stayed lost
    """
    wait, lost_since = FIRST_POLL, None
    while time.monotonic() < deadline:
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


def parse_poll(stdout: str) -> tuple[str | None, list[str]]:
    """Split the answer of one poll into the head of the job file and the whole progress lines.

    None for the job when the answer does not hold one (noise of a login shell): ask again. A terminal may
    sit between (ssh -tt), so lines are counted, not bytes, and a carriage return is no part of them.
    """
    _, found, rest = stdout.replace("\r\n", "\n").partition(_JOB)
    if not found:
        return None, []
    state, _, lines = rest.partition("\n")
    whole = lines.rpartition("\n")[0]
    return state.strip(), whole.split("\n") if whole else []
