# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Shows and writes the drift report of the play's hosts."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from ..module_utils._drift.finding import OF_GATEWAY, OF_SPARK
from ..plugin_utils.drift import page, report, series
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

GATEWAY = "__gateway_drift"
"""In which variable the role C(gateway) keeps its look."""
Item = tuple[Any, Mapping[str, Any] | None, Sequence[str]]
"""Of a host: what the roles published, its failure, and its subjects."""


class ActionModule(Report):
    ARGUMENT_SPEC: ClassVar[dict[str, Any]] = {
        "directory": {"type": "str", "required": True},
        "gateways": {"type": "list", "elements": "str", "default": []},
        "verify": {"type": "str", "choices": ["stat", "full"], "default": "stat"},
    }

    def make(self, options: dict[str, Any], variables: dict[str, Any]) -> tuple[list[str], dict[str, Any]]:
        lock, recipe = (variables.get(name) or {} for name in ("recipe_lock", "recipe"))
        at = now()

        def whole(items: Mapping[str, Item]) -> dict[str, Any]:
            looks = {host: _look(*item) for host, item in items.items()}
            return report.report(
                looks, lock, made=at, verify=options["verify"], recipe=recipe.get("name", "")
            )

        items: dict[str, Item] = {
            host: (known.get("spark_drift"), failure, OF_SPARK) for host, known, failure in hosts(variables)
        }
        for host in options["gateways"]:
            # One that the run is limited not to touch has no look, and is in no report.
            if GATEWAY in (known := variables["hostvars"][host]):
                items[host] = _with_gateway(items.get(host), known)
        made = whole(
            readable(items, lambda some: _shown(whole(some)), lambda failure: ({}, failure, OF_SPARK))
        )
        contents = {
            "drift.json": json.dumps(made, indent=2, ensure_ascii=False) + "\n",
            "drift.html": page.render(made),
            "drift.prom": series.of_report(made),
        }
        files = write(options["directory"], contents, do="set drift_output")
        refusals = {name: report.refusal(host) for name, host in made["hosts"].items()}
        refused = {name: text for name, text in refusals.items() if text}
        returned = {"report": made, "files": files, "refused": refused}
        return _lines(made, files), returned | handed_on(drifted=list(refused))


def _shown(made: dict[str, Any]) -> list[Any]:
    """Everything that is made of a report."""
    return [made, page.render(made), _lines(made, []), list(map(report.refusal, made["hosts"].values()))]


def _with_gateway(spark: Item | None, known: Mapping[str, Any]) -> Item:
    """The look at a gateway, or at a Spark that is one, too."""
    parts, failure, subjects = spark or ({}, known.get("spark_failure"), ())
    return {**(parts or {}), **known[GATEWAY]}, failure, (*subjects, *OF_GATEWAY)


def _look(drift: Any, failure: Mapping[str, Any] | None, subjects: Sequence[str]) -> dict[str, Any]:
    parts = dict(drift or {})
    if unreachable := parts.pop("unreachable", ""):
        return {"parts": {}, "failure": f"{UNREACHABLE}: {unreachable}", "subjects": subjects}
    lost = failure is not None and failure["task"] == UNREACHABLE
    return {"parts": {} if lost else parts, "failure": format_failure(failure), "subjects": subjects}


def _lines(made: dict[str, Any], files: list[str]) -> list[str]:
    table = report.wrapped(report.rows(made))
    lines = [*tables.render(table, report.COLUMNS), ""] if table else []
    return [*lines, report.summary(made), f"written: {', '.join(files)}"]
