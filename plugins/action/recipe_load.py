# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""C(recipe_load), on the controller alone. It opens no connection, so a wrong recipe stops the run before any host is touched."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

from ..module_utils._recipe import lock as locks
from ..plugin_utils.recipes import failure, find, home, load, lock_file, read, refuse_as_inventory, shown


class ActionModule(ActionBase):
    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        _spec, arguments = self.validate_argument_spec(
            argument_spec={
                "name": {"type": "str", "required": True},
                "lock_dir": {"type": "str", "default": ""},
                "lock": {"type": "str", "choices": ["enforce", "ignore"], "default": "enforce"},
            }
        )
        variables = task_vars or {}
        inventory = home(variables)
        path = find(arguments["name"], inventory, [Path.cwd(), Path(self._loader.get_basedir())])
        recipe = load(path, inventory)
        lock_path = lock_file(arguments["lock_dir"], recipe["name"], path, inventory, variables)
        refuse_as_inventory(path, lock_path, inventory, variables)
        return result | {
            "changed": False,
            "name": arguments["name"],
            "recipe": recipe,
            "lock": self._lock(recipe, path, lock_path) if arguments["lock"] == "enforce" else {},
            "recipe_path": str(path),
            "lock_path": str(lock_path),
        }

    @staticmethod
    def _lock(recipe: dict[str, Any], path: Path, lock_path: Path) -> dict[str, Any]:
        if not lock_path.exists():
            return {}
        lock, problems = locks.parse(read(lock_path), shown(lock_path))
        if problems:
            raise failure(
                f"the lock of recipe '{recipe['name']}' is not valid",
                problems,
                "Take the file from your version control, or make it anew: ansible-playbook sparkfleet.vllm.lock",
            )
        differences = locks.against(recipe, lock)
        if differences:
            raise AnsibleActionFail(locks.outdated(shown(path), shown(lock_path), differences))
        return lock
