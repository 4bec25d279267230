# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Front of a module that may take long: it works in the background of the host, under the lock of its run, and reports progress.

No look comes before it. A module that finds nothing to do answers with its start, which is one execution as well, and one with work to do
is spared the look.
"""

from __future__ import annotations

from typing import Any, ClassVar

from .background import TIMED_OUT, run_with_progress
from .under_lock import UnderLock


class WithProgress(UnderLock):
    TRANSFERS_FILES = False
    _supports_check_mode = True
    _supports_async = True

    MODULE: ClassVar[str]
    TIMEOUT: ClassVar[int]
    """Default of the module's option timeout, in seconds."""
    WHAT: ClassVar[str]
    """What is missing, for the message of a module that ran out of time."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        limit = int(arguments.get("timeout") or self.TIMEOUT)
        done = run_with_progress(self, self.MODULE, arguments, task_vars, limit)
        if done.get("msg") == TIMED_OUT:
            done.pop("exception", None)
            done["msg"] = (
                f"expected {self.WHAT} within {limit} s, seen a run that was not done by then and was ended; "
                "run again, since what was fetched is kept, or allow more time (timeout)"
            )
        return result | done
