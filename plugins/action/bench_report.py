# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Shows and writes what the hosts of the play measured. Runs once, on the controller, and connects to nothing."""

from __future__ import annotations

import json
import re
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display
from ansible_collections.sparkfleet.vllm.plugins.module_utils import (
    _bench_page,
    _bench_report,
    _file,
    _table,
)
from ansible_collections.sparkfleet.vllm.plugins.module_utils._tune import MEASURED

UNREACHABLE = "the host did not answer"


class ActionModule(ActionBase):
    BYPASS_HOST_LOOP = True
    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        _spec, options = self.validate_argument_spec(
            argument_spec={
                "directory": {"type": "str", "required": True},
                "name": {"type": "str", "default": "benchmark"},
            }
        )
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", options["name"]):
            raise AnsibleActionFail(
                f"expected a name for the files without a directory or an ending, seen {options['name']!r}; "
                "do: write letters, digits, dots, dashes and underscores"
            )
        variables = task_vars or {}
        reached = set(variables["ansible_play_hosts"])
        looks = {
            host: self._look(variables["hostvars"][host], host in reached)
            for host in variables["ansible_play_hosts_all"]
        }
        made = _bench_report.report(looks, made=datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"))
        files = self._write(Path(options["directory"]).expanduser().absolute(), options["name"], made)
        self._show(made, files)
        return result | {"changed": False, "report": made, "files": [str(file) for file in files]}

    @staticmethod
    def _look(facts: Any, reached: bool) -> dict[str, Any]:
        failure = facts.get("spark_failure")
        said = f"{failure['task']}: {failure.get('msg', '')}" if failure else ""
        return {"sweep": facts.get("spark_sweep"), "failure": said if reached else UNREACHABLE}

    @staticmethod
    def _write(folder: Path, name: str, made: dict[str, Any]) -> list[Path]:
        contents = {
            f"{name}.json": json.dumps(made, indent=2, ensure_ascii=False) + "\n",
            f"{name}.md": _bench_report.markdown(made),
            f"{name}.html": _bench_page.render(made),
        }
        try:
            for file, content in contents.items():
                _file.write(folder / file, content.encode())
        except OSError as error:
            raise AnsibleActionFail(
                f"expected a directory for the report that can be written, seen {folder}: {error}; do: name another one"
            ) from error
        return [folder / file for file in contents]

    @staticmethod
    def _show(made: dict[str, Any], files: list[Path]) -> None:
        columns = _bench_report.COLUMNS
        lines = [""]
        for name, host in made["hosts"].items():
            lines.append(f"{name}: {_bench_report.outcome(host)}")
            if host["sweep"]:
                lines += [
                    ": ".join((f"  {what} {state}", because))
                    for what, state, because in _bench_report.reasons(host["sweep"])
                ]
            for load in host["loads"]:
                rows = [_bench_report.cells(row) for row in load["rows"] if row["state"] == MEASURED]
                lines += [
                    "",
                    f"{name}, {_bench_report.streams(load['concurrency'])}",
                    *_table.render(rows, columns),
                ]
            lines.append("")
        lines += [f"written: {', '.join(str(file) for file in files)}", ""]
        for line in lines:
            Display().display(line)
