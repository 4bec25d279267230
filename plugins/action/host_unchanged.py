# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Controller side of C(host_unchanged): a digest of all inputs, and a message about what has changed."""

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
from ..plugin_utils.gateway.fleet import met_at
from ..plugin_utils.under_lock import UnderLock

COLLECTION = Path(__file__).resolve().parents[2]
CODE = ("plugins", "roles", "playbooks")
# Variables that say how a run looks, not what it looks for.
MANNER = ("spark_look_again", "unchanged_trust")


def code(root: Path = COLLECTION) -> list[tuple[str, str]]:
    """Every file of the collection that a run may use, with its SHA-256. Another release counts as another input. The same release
    in another place does not: a controller unpacks it anew for each job.
    """
    paths = (path for part in CODE for path in (root / part).rglob("*") if path.is_file())
    known = (path for path in paths if "__pycache__" not in path.parts)
    return sorted((str(path.relative_to(root)), sha256(path.read_bytes()).hexdigest()) for path in known)


def asked(variables: Mapping[str, Any], roles: list[str]) -> dict[str, Any]:
    """The variables of a host that the collection reads: those of its roles, `spark_…`, and the loaded recipe. Leaves out variables that
    a task has registered, and those that say how this run looks.
    """
    prefixes = tuple(f"{role}_" for role in [*roles, "spark"])
    return {
        name: value
        for name, value in variables.items()
        if (name.startswith(prefixes) or name == "recipe") and name not in MANNER
    }


def gateways(variables: Mapping[str, Any]) -> list[str]:
    """Where the inventory has its gateways: a Spark lets in those alone."""
    hosts = (variables.get("groups") or {}).get("gateways") or []
    return [met_at(host, variables["hostvars"][host]) for host in hosts]


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
        """A digest of the inputs. Empty while a variable cannot be read: the run then looks at everything, and fails where it is needed."""
        roles = [entry.name for entry in (COLLECTION / "roles").iterdir()]
        try:
            own = plain(self._templar.template(asked(variables, roles)))
            return digest([code(), own, gateways(variables)])
        except AnsibleError:
            return ""


def plain(value: Any) -> Any:
    """A templated value as JSON knows it. Some values are templated only when they are read."""
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    return value
