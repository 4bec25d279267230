# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Shows and writes what the hosts of the play measured."""

from __future__ import annotations

import json
import re
from typing import Any, ClassVar

from ansible.errors import AnsibleActionFail
from ansible_collections.sparkfleet.vllm.plugins.module_utils import _bench_page, _bench_report, _table
from ansible_collections.sparkfleet.vllm.plugins.module_utils._tune import MEASURED
from ansible_collections.sparkfleet.vllm.plugins.plugin_utils._report import Report, hosts, now, said, write


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
        looks = {
            host: {"sweep": known.get("spark_sweep"), "failure": said(failure)}
            for host, known, failure in hosts(variables)
        }
        made = _bench_report.report(looks, made=now())
        contents = {
            f"{name}.json": json.dumps(made, indent=2, ensure_ascii=False) + "\n",
            f"{name}.md": _bench_report.markdown(made),
            f"{name}.html": _bench_page.render(made),
        }
        files = write(options["directory"], contents, do="name another one")
        return [*_lines(made), f"written: {', '.join(files)}"], {"report": made, "files": files}


def _lines(made: dict[str, Any]) -> list[str]:
    lines = []
    for name, host in made["hosts"].items():
        lines.append(f"{name}: {_bench_report.outcome(host)}")
        if host["sweep"]:
            lines += [
                ": ".join((f"  {what} {state}", because))
                for what, state, because in _bench_report.reasons(host["sweep"])
            ]
        for load in host["loads"]:
            rows = [_bench_report.cells(row) for row in load["rows"] if row["state"] == MEASURED]
            table = _table.render(rows, _bench_report.COLUMNS)
            lines += ["", f"{name}, {_bench_report.streams(load['concurrency'])}", *table]
        lines.append("")
    return lines
