# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Front of a module with C(settled_only): one short look, and only if something is to be done a run that says how far it is."""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase
from ansible_collections.sparkfleet.vllm.plugins.plugin_utils._progress import TIMED_OUT, run_with_progress


def look_then_run(
    action: ActionBase,
    module: str,
    task_vars: dict[str, Any] | None,
    *,
    timeout: int,
    what: str,
    look: bool = True,
) -> dict[str, Any]:
    """The result of `module` with the task's arguments.

    :param timeout: default of the module's option of that name, in seconds
    :param what: of what a run that ran out of time says that it is not there
    :param look: False: the module has something to do in any case
    """
    arguments = dict(action._task.args)
    plain = action._task.check_mode or action._task.async_val or arguments.get("settled_only")
    if look and not plain:
        seen = action._execute_module(module, {**arguments, "settled_only": True}, task_vars=task_vars)
        if seen.get("failed") or seen.get("settled"):
            return seen
    limit = int(arguments.get("timeout") or timeout)
    result = run_with_progress(action, module, arguments, task_vars, limit)
    if result.get("msg") == TIMED_OUT:
        result.pop("exception", None)
        result["msg"] = (
            f"expected {what} within {limit} s, seen a run that was not done by then and was ended; "
            "run again, since what was fetched is kept, or allow more time (timeout)"
        )
    return result
