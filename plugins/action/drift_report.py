# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Shows and writes the drift report of the play's hosts. Runs once, on the controller, and connects to nothing."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display
from ansible_collections.sparkfleet.vllm.plugins.module_utils import (
    _drift_page,
    _drift_report,
    _file,
    _table,
)
from ansible_collections.sparkfleet.vllm.plugins.plugin_utils._artifacts import artifacts

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
                "verify": {"type": "str", "choices": ["stat", "full"], "default": "stat"},
            }
        )
        variables = task_vars or {}
        reached = set(variables["ansible_play_hosts"])
        known = {host: variables["hostvars"][host] for host in variables["ansible_play_hosts_all"]}
        made = _drift_report.report(
            {host: self._look(facts, host in reached) for host, facts in known.items()},
            variables.get("recipe_lock") or {},
            made=datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
            verify=options["verify"],
            recipe=(variables.get("recipe") or {}).get("name", ""),
        )
        files = self._write(Path(options["directory"]).expanduser().absolute(), made)
        self._show(made, files)
        refusals = {name: _drift_report.refusal(host) for name, host in made["hosts"].items()}
        refused = {name: text for name, text in refusals.items() if text}
        return (
            result
            | {"changed": False, "report": made, "files": [str(file) for file in files], "refused": refused}
            | artifacts(drifted=list(refused))
        )

    @staticmethod
    def _look(facts: Any, reached: bool) -> dict[str, Any]:
        parts = dict(facts.get("spark_drift") or {})
        unreachable = parts.pop("unreachable", "" if reached else UNREACHABLE)
        failure = facts.get("spark_failure")
        if unreachable:
            return {
                "parts": {},
                "failure": f"{UNREACHABLE}: {unreachable}" if unreachable != UNREACHABLE else unreachable,
            }
        return {"parts": parts, "failure": f"{failure['task']}: {failure.get('msg', '')}" if failure else ""}

    @staticmethod
    def _write(folder: Path, made: dict[str, Any]) -> list[Path]:
        contents = {
            "drift.json": json.dumps(made, indent=2, ensure_ascii=False) + "\n",
            "drift.html": _drift_page.render(made),
        }
        try:
            for name, content in contents.items():
                _file.write(folder / name, content.encode())
        except OSError as error:
            raise AnsibleActionFail(
                f"expected a directory for the report that can be written, seen {folder}: {error}; do: set drift_output"
            ) from error
        return [folder / name for name in contents]

    @staticmethod
    def _show(made: dict[str, Any], files: list[Path]) -> None:
        table = _drift_report.wrapped(_drift_report.rows(made))
        lines = _table.render(table, _drift_report.COLUMNS) if table else []
        written = f"written: {', '.join(str(file) for file in files)}"
        for line in ["", *lines, *([""] if lines else []), _drift_report.summary(made), written, ""]:
            Display().display(line)
