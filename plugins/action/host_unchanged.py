# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Controller side of C(host_unchanged): a digest of all that is asked for, and a word on what has changed."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleError
from ansible.utils.display import Display

from ..module_utils._common.terminal import printable
from ..module_utils._host.unchanged import digest
from ..plugin_utils.background import label
from ..plugin_utils.under_lock import UnderLock

COLLECTION = Path(__file__).resolve().parents[2]
CODE = ("plugins", "roles", "playbooks")
# Says how a run is to look, not what it is to look for.
MANNER = ("spark_look_again", "unchanged_trust")


def code(root: Path = COLLECTION) -> list[tuple[str, str]]:
    """Every file of the collection that a run may use, with its SHA-256: another release is another input, and the same one
    in another place, as a controller unpacks it for each job, is none.
    """
    paths = (path for part in CODE for path in (root / part).rglob("*") if path.is_file())
    known = (path for path in paths if "__pycache__" not in path.parts)
    return sorted((str(path.relative_to(root)), sha256(path.read_bytes()).hexdigest()) for path in known)


def asked(variables: Mapping[str, Any], roles: list[str]) -> dict[str, Any]:
    """The variables of a host that the collection reads: those of its roles, `spark_…`, and the loaded recipe. Not what a task
    has registered, and not how this run is to look.
    """
    prefixes = tuple(f"{role}_" for role in [*roles, "spark"])
    return {
        name: value
        for name, value in variables.items()
        if (name.startswith(prefixes) or name == "recipe") and name not in MANNER
    }


class ActionModule(UnderLock):
    TRANSFERS_FILES = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        if arguments.get("state", "looked") == "looked":
            arguments["inputs"] = self._inputs(task_vars or {})
        answer = self._execute_module(
            "sparkfleet.vllm.host_unchanged", module_args=arguments, task_vars=task_vars
        )
        if answer.get("failed"):
            self._say(
                task_vars,
                f"to be looked at in full, because this look failed: {answer.get('msg', 'no answer')}",
            )
        elif answer.get("because"):
            self._say(task_vars, f"to be looked at, because of {', '.join(answer['because'])}")
        elif answer.get("settled") and "serving" in answer:
            self._say(task_vars, "unchanged since nothing was to be done")
        return result | answer

    def _say(self, variables: dict[str, Any] | None, text: str) -> None:
        Display().display(printable(f"{label(self, variables)}: {text}"))

    def _inputs(self, variables: Mapping[str, Any]) -> str:
        """Nothing when a variable cannot be told yet: then all is looked at, and whoever needs it says what is wrong."""
        roles = [entry.name for entry in (COLLECTION / "roles").iterdir()]
        try:
            return digest([code(), plain(self._templar.template(asked(variables, roles)))])
        except AnsibleError:
            return ""


def plain(value: Any) -> Any:
    """A templated value, which may be templated only when it is read, as JSON knows it."""
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    return value
