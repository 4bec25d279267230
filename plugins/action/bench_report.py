# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Shows and writes what the hosts of the play measured."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, ClassVar

from ansible.errors import AnsibleActionFail

from ..plugin_utils.bench import page, report, sweep
from ..plugin_utils.report import table as tables
from ..plugin_utils.report.base import Report, format_failure, hosts, now, readable, write


class ActionModule(Report):
    ARGUMENT_SPEC: ClassVar[dict[str, Any]] = {
        "directory": {"type": "str", "required": True},
        "name": {"type": "str", "default": "benchmark"},
    }

    def make(self, options: dict[str, Any], variables: dict[str, Any]) -> tuple[list[str], dict[str, Any]]:
        name = options["name"]
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
            raise AnsibleActionFail(
                f"expected a name for the files without a directory or an ending, seen {name!r}; "
                "do: write letters, digits, dots, dashes and underscores"
            )
        at = now()

        def whole(items: Mapping[str, tuple[Any, Mapping[str, Any] | None]]) -> dict[str, Any]:
            looks = {
                host: {"sweep": sweep.handed_on(swept), "failure": format_failure(failure)}
                for host, (swept, failure) in items.items()
            }
            return report.report(looks, made=at)

        items = {host: (known.get("spark_sweep"), failure) for host, known, failure in hosts(variables)}
        made = whole(readable(items, lambda some: _shown(whole(some)), lambda failure: (None, failure)))
        contents = {
            f"{name}.json": json.dumps(made, indent=2, ensure_ascii=False) + "\n",
            f"{name}.md": report.markdown(made),
            f"{name}.html": page.render(made),
        }
        files = write(options["directory"], contents, do="name another one")
        return [*_lines(made), f"written: {', '.join(files)}"], {"report": made, "files": files}


def _shown(made: dict[str, Any]) -> list[Any]:
    """Everything that is made of a report."""
    return [made, report.markdown(made), page.render(made), _lines(made)]


def _lines(made: dict[str, Any]) -> list[str]:
    lines = []
    for name, host in made["hosts"].items():
        lines.append(f"{name}: {report.outcome(host)}")
        if host["sweep"]:
            lines += [
                ": ".join((f"  {what} {state}", because)) for what, state, because in report.reasons(host)
            ]
        for load in host["loads"]:
            rows = [report.cells(row) for row in load["rows"] if row["load"]]
            table = tables.render(rows, report.COLUMNS)
            decides = ", which decides" if load["decides"] else ""
            lines += ["", f"{name}, {report.streams(load['concurrency'])}{decides}", *table]
        lines.append("")
    return lines
