# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Actions whose module runs on a gateway while the task is a Spark's (delegate_to)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible.errors import AnsibleActionFail, AnsibleConnectionFailure

from ..module_utils._common.terminal import printable
from .under_lock import UnderLock


class AtGateway(UnderLock):
    TRANSFERS_FILES = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        try:
            answer = self._execute_module(module_args=self.options(task_vars or {}), task_vars=task_vars)
        except AnsibleConnectionFailure as error:
            if not self._task.delegate_to:
                raise
            # Ansible would take the Spark for lost.
            raise AnsibleActionFail(
                printable(
                    f"expected an answer of the gateway {self._task.delegate_to}, seen: {error}; do: mend it, or take it out of the "
                    "group gateways once no client uses it"
                )
            ) from error
        return result | answer

    def options(self, variables: Mapping[str, Any]) -> dict[str, Any]:
        """Those of the module."""
        return dict(self._task.args)
