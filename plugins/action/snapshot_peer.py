# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Controller side of C(snapshot_peer): follows a peer, with one short command for each poll, until it has what it wants."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from ansible.utils.display import Display

from ..module_utils._common import json_text
from ..module_utils._common.shape import Maybe, wrong
from ..module_utils._common.terminal import one_line
from ..plugin_utils.background import label, polls
from ..plugin_utils.sync.report import pace
from ..plugin_utils.under_lock import UnderLock

MODULE = "sparkfleet.vllm.snapshot_peer"
TIMEOUT, IDLE = 14400, 180
GRACE = 60.0
"""Seconds past its time limit in which a peer must have ended and reported it."""
_PEER = "sparkfleet-peer:"
_STATUS = {
    "state": Maybe(str),
    "text": Maybe(str),
    "problem": Maybe(str),
    "snapshots": Maybe([{"state": str}]),
}
"""The part of a status that is read here. A status of another shape is not from a peer."""


class ActionModule(UnderLock):
    TRANSFERS_FILES = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        if self._task.args.get("state") != "finished" or self._task.check_mode:
            return result | self._execute_module(MODULE, task_vars=task_vars)
        return result | self._finished(task_vars or {})

    def _finished(self, task_vars: Mapping[str, Any]) -> dict[str, Any]:
        args = self._task.args
        shell = self._connection._shell
        home = shell.join_path(args["store"], "models", ".peer")
        lock, path = (shell.quote(shell.join_path(home, name)) for name in ("lock", "status.json"))
        # First whether it lives, then its status: when it has ended, the status is its last one.
        command = (
            f'printf \'{_PEER}%s\\n\' "$(kill -0 "$(cat {lock} 2>/dev/null)" 2>/dev/null && echo runs)"; '
            f"cat {path} 2>/dev/null || :"
        )
        deadline = time.monotonic() + int(args.get("timeout") or TIMEOUT) + GRACE
        every = pace(len(task_vars.get("ansible_play_batch") or ()))
        patience = float(args.get("idle") or IDLE)
        said, last = 0.0, ""
        status: dict[str, Any] = {}
        for stdout in polls(self, lambda: command, deadline, every, patience):
            runs, status = parse_poll(stdout)
            text = str(status.get("text") or "")
            over = status.get("state") in ("whole", "failed")
            if text != last and (over or time.monotonic() - said >= every):
                Display().display(one_line(f"{label(self, dict(task_vars))}: {text}"))
                said, last = time.monotonic(), text
            if over:
                return _answer(status)
            if runs is False:
                return _answer(
                    status, "expected a peer that brings the snapshots, seen that it has ended; run again"
                )
        return _answer(
            status, "expected the peer to be done within its time limit, seen it at work; run again"
        )


def _answer(status: dict[str, Any], problem: str = "") -> dict[str, Any]:
    return {
        "changed": any(one["state"] != "present" for one in status.get("snapshots") or []),
        "settled": status.get("state") == "whole",
        "status": status,
        "problem": problem or str(status.get("problem") or ""),
    }


def parse_poll(stdout: str) -> tuple[bool | None, dict[str, Any]]:
    """Whether the peer runs, and its status. None when the answer does not tell (noise of a login shell): ask again."""
    _before, found, rest = stdout.partition(_PEER)
    if not found:
        return None, {}
    runs, _sep, text = rest.partition("\n")
    try:
        status = json_text.read(text, "the status")
    except json_text.JsonError:
        status = {}
    return runs.strip() == "runs", {} if wrong(status, _STATUS) else status
