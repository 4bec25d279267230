# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Controller side of C(run_lock): says which run this is, knows which runs of this controller have ended, leaves a keeper."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

from ..module_utils._common.terminal import printable
from ..module_utils._run import run_lock
from ..plugin_utils import keeper, this_run
from ..plugin_utils.background import label
from ..plugin_utils.under_lock import FACT, lock_of_this_run

MODULE = "sparkfleet.vllm.run_lock"
OURS, LOST = "sparkfleet-lock:ours", "sparkfleet-lock:lost"
# Under the same flock as the module. A file that cannot be read proves nothing.
_UNDER_LOCK = (
    'if grep -qsF "$1" "$2"; then {do} && echo '
    + OURS
    + '; elif [ -r "$2" ] || [ ! -e "$2" ]; then echo '
    + LOST
    + "; fi"
)


def ended(answer: Mapping[str, Any], run: Mapping[str, Any]) -> bool:
    """Whether the run that holds the lock ran on this controller and has ended."""
    held = answer.get("held")
    if not held or not run_lock.same_controller(held, run):
        return False
    alive = this_run.lives(held["pid"], str(held.get("started")))
    return not alive if alive is not None else answer["age"] > held["lease"]


def reading(stdout: str) -> int:
    """What the answer of a host means to the keeper. The noise of a login shell does not count as an answer."""
    if OURS in stdout:
        return keeper.DONE
    return keeper.LOST if LOST in stdout else keeper.FAILED


class ActionModule(ActionBase):
    TRANSFERS_FILES = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        state, had = self._task.args.get("state", "taken"), lock_of_this_run(self, task_vars)
        nothing = {"changed": False, "refused": False, "fresh": False, "taken_over": ""}
        if state == "held" and (not had or self._task.check_mode):
            return result | nothing
        run = this_run.this_run(task_vars or {})
        arguments = {**self._task.args, "run": run, "dead": ""}
        if had and state != "released" and not self._task.check_mode:
            # Do not take a lost lock again: another run may have been here.
            arguments |= {"state": "held", "state_dir": had["directory"]}
        answer = self._execute_module(MODULE, dict(arguments), task_vars=task_vars)
        if ended(answer, run):
            arguments["dead"] = answer["held"]["run"]
            answer = self._execute_module(MODULE, dict(arguments), task_vars=task_vars)
        if answer.get("taken_over"):
            Display().display(printable(f"{label(self, task_vars)}: {answer['taken_over']}"))
        if answer.get("fresh"):
            self._keep(run)
        if state != "held" and not answer.get("failed") and not self._task.check_mode:
            lock = {"run": run["id"], "directory": self._task.args["state_dir"]}
            answer["ansible_facts"] = {FACT: lock if state == "taken" else {}}
        return result | answer | {"lasting": this_run.lasting()}

    def _keep(self, run: Mapping[str, Any]) -> None:
        lease = float(self._task.args.get("lease") or run_lock.LEASE)
        keeper.hold(
            run["pid"],
            run["started"],
            renew=partial(self._ask, 'touch "$2"', run["id"]),
            release=partial(self._ask, 'rm -f "$2"', run["id"]),
            reset=self._connection.reset,
            every=lease / 4,
        )

    def _ask(self, do: str, run: str) -> int:
        shell = self._connection._shell
        directory = self._task.args["state_dir"]
        guard, path = (shell.join_path(directory, name) for name in (run_lock.GUARD, run_lock.FILE))
        script = _UNDER_LOCK.format(do=do)
        words = ["flock", "-w", "10", guard, "sh", "-c", script, "sh", run, path]
        command = " ".join(shell.quote(word) for word in words)
        return reading(self._low_level_execute_command(command)["stdout"])
