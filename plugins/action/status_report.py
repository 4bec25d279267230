# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Shows and writes the status of the play's hosts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, ClassVar

from ..module_utils._common import shape
from ..module_utils._common.terminal import one_line
from ..plugin_utils.report import table as tables
from ..plugin_utils.report.base import (
    UNREACHABLE,
    Report,
    format_failure,
    handed_on,
    hosts,
    now,
    readable,
    write,
)
from ..plugin_utils.status import page, report

LOOK = "__status_look"
"""In which variable the role C(status) keeps its look."""
NO_MONITORING = "the inventory has no group monitoring"
DAY = {
    "start": int,
    "step": int,
    "hosts": {str: {str: list}},
    "alerts": [{"name": str, "severity": str, "host": str}],
}
Item = tuple[Any, Any]
"""Of a host: what the role registered, or why there is nothing; and its series of the last day."""


class ActionModule(Report):
    ARGUMENT_SPEC: ClassVar[dict[str, Any]] = {
        "directory": {"type": "str", "required": True},
        "day": {"type": "dict", "default": {}},
        "monitoring": {"type": "str", "default": ""},
    }

    def make(self, options: dict[str, Any], variables: dict[str, Any]) -> tuple[list[str], dict[str, Any]]:
        at, where = now(), options["monitoring"]
        day, problem = _day(options["day"], where)

        def whole(items: Mapping[str, Item]) -> dict[str, Any]:
            looks = {host: _look(found) for host, (found, _series) in items.items()}
            series = day and day | {"hosts": {host: part for host, (_found, part) in items.items()}}
            return report.report(looks, series, made=at, monitoring=where, problem=problem)

        series = day["hosts"] if day else {}
        items: dict[str, Item] = {
            host: (_found(known, failure), series.get(host) or {})
            for host, known, failure in hosts(variables)
        }
        made = whole(readable(items, lambda some: _shown(whole(some)), lambda failure: (failure, {})))
        contents = {
            "status.json": json.dumps(made, indent=1, ensure_ascii=False) + "\n",
            "status.html": page.render(made),
        }
        files = write(options["directory"], contents, do="set status_output")
        refused = report.refusals(made)
        unwell = [name for name, host in made["hosts"].items() if host["verdict"] != report.WELL]
        returned = {"report": made, "files": files, "refused": refused} | handed_on(unwell=unwell)
        return _lines(made, files), returned


def _day(registered: Mapping[str, Any], where: str) -> tuple[dict[str, Any] | None, str]:
    """The last day, or why there is none."""
    if not where:
        return None, NO_MONITORING
    day = registered.get("day")
    if day is None:
        return None, f"{where}: {registered.get('msg') or 'the last day was not read'}"
    unfit = shape.wrong(day, DAY)
    return (None, f"{where}: {unfit}") if unfit else (day, "")


def _found(known: Mapping[str, Any], failure: Mapping[str, Any] | None) -> Any:
    return failure or known.get(LOOK) or {"msg": "it was not looked at"}


def _look(found: Mapping[str, Any]) -> dict[str, Any]:
    if "look" in found:
        return {"now": found["look"], "failure": ""}
    if found.get("unreachable"):
        return {"now": None, "failure": f"{UNREACHABLE}: {found.get('msg', '')}"}
    return {"now": None, "failure": format_failure(found)}


def _shown(made: dict[str, Any]) -> list[Any]:
    """Everything that is made of a report."""
    return [made, page.render(made), _lines(made, [])]


def _lines(made: dict[str, Any], files: list[str]) -> list[str]:
    rows = [report.cells(name, host) for name, host in made["hosts"].items()]
    reasons = [line[: tables.LONGEST] for line in report.reasons(made)]
    problem = made["monitoring"]["problem"]
    day = [f"without the last day: {problem}"] if problem else []
    return [
        *tables.render(rows, report.COLUMNS),
        "",
        *map(one_line, (*reasons, *report.alerts(made))),
        report.summary(made),
        *day,
        f"written: {', '.join(files)}",
    ]
