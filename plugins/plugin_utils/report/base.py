# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the reports share. A report covers all hosts of the play, is made once, on the controller, and connects to nothing."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, TypeVar

from ansible.errors import AnsibleActionFail
from ansible.utils.display import Display
from jinja2 import TemplateError

from ...module_utils._common import files
from ...module_utils._common.terminal import printable
from ..compute import ComputeOnce

UNREACHABLE = "the host did not answer"
UNREADABLE = "what the host handed on cannot be shown"
LARGEST = 8 * 1024 * 1024
"""Bytes of a report that one host may fill."""
_OTHER_SHAPE = (
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    TemplateError,
    TypeError,
    ValueError,
)
"""Errors that code for facts of one shape raises at facts of another."""
ARTIFACT = "sparkfleet_"
"""Prefix of names that no role takes as an input. An extra variable of a later job must not change what that job does."""


_T = TypeVar("_T")


class Report(ComputeOnce):
    def compute(self, options: dict[str, Any], variables: dict[str, Any]) -> dict[str, Any]:
        lines, made = self.make(options, variables)
        for line in ["", *lines, ""]:
            Display().display(printable(line))
        return made

    def make(self, options: dict[str, Any], variables: dict[str, Any]) -> tuple[list[str], dict[str, Any]]:
        """The lines to show, and what the task returns."""
        raise NotImplementedError


def hosts(variables: Mapping[str, Any]) -> Iterator[tuple[str, Any, Mapping[str, Any] | None]]:
    """Each host of the play, lost ones too, with its variables, and with its failure if it has one: {task, msg, …}."""
    reached = set(variables["ansible_play_hosts"])
    for host in variables["ansible_play_hosts_all"]:
        known = variables["hostvars"][host]
        yield host, known, known.get("spark_failure") if host in reached else {"task": UNREACHABLE}


def readable(
    items: Mapping[str, _T],
    show: Callable[[dict[str, _T]], Any],
    instead: Callable[[Mapping[str, str]], _T],
) -> dict[str, _T]:
    """What each host has for a report. A host whose part cannot be shown does not spoil the report for the others.

    :param items: by host
    :param show: makes the whole report of such items and returns it in a form that JSON can hold. It is tried with each host alone
    :param instead: gives the item of a host that failed, as {task, msg}
    """
    found = {}
    for host, item in items.items():
        try:
            size = len(json.dumps(show({host: item}), allow_nan=False, ensure_ascii=False).encode())
            problem = "" if size <= LARGEST else f"{size} bytes, expected {LARGEST} at most"
        except _OTHER_SHAPE as error:
            problem = (
                f"expected facts as the modules give them, seen {type(error).__name__}: {str(error)[:200]}"
            )
        do = "run again; if it stays, somebody else answers in the place of a module there"
        found[host] = instead({"task": UNREADABLE, "msg": f"{problem}; do: {do}"}) if problem else item
    return found


def format_failure(failure: Mapping[str, Any] | None) -> str:
    """A failure as one text; empty for none."""
    return ": ".join(str(failure[part]) for part in ("task", "msg") if failure.get(part)) if failure else ""


def handed_on(**listed: list[str]) -> dict[str, Any]:
    """A part of a task's result: lists of hosts that a controller keeps as artifacts of the job, and gives to the next node of a
    workflow as extra variables. C(ansible.builtin.set_stats) returns the same.
    """
    data = {f"{ARTIFACT}{name}": names for name, names in listed.items()}
    return {"ansible_stats": {"data": data, "per_host": False, "aggregate": False}}


def now() -> str:
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def write(directory: str, contents: Mapping[str, str], do: str) -> list[str]:
    """Write the files of a report, {name: content}, and give their paths.

    :param do: what helps if they cannot be written
    """
    folder = Path(directory).expanduser().absolute()
    try:
        for name, content in contents.items():
            files.write(folder / name, content.encode())
    except OSError as error:
        raise AnsibleActionFail(
            f"expected a directory for the report that can be written, seen {folder}: {error}; do: {do}"
        ) from error
    return [str(folder / name) for name in contents]
