# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An AnsibleModule for messages that quote others: a server, its log, a registry, a Hub."""

from __future__ import annotations

from typing import Any, NoReturn

from ansible.module_utils import basic

from .secrets import masked
from .terminal import printable


class AnsibleModule(basic.AnsibleModule):
    """Escapes messages for the terminal: Ansible prints them as they are.

    Masks secrets in results. Since ansible-core 2.22 Ansible does so only where it prints, and a result also comes into reports.
    """

    def exit_json(self, **kwargs: Any) -> NoReturn:
        super().exit_json(**self._masked(kwargs))
        raise SystemExit(0)  # never: exit_json has left

    def fail_json(self, msg: str, **kwargs: Any) -> NoReturn:
        super().fail_json(self._shown(msg), **self._masked(kwargs))
        raise SystemExit(1)  # never: fail_json has left

    def warn(self, warning: str, **kwargs: Any) -> None:
        super().warn(self._shown(warning), **kwargs)

    def _shown(self, text: str) -> str:
        # Masked first: an escaped secret would not be found.
        return printable(masked(str(text), self.no_log_values))

    def _masked(self, result: dict[str, Any]) -> dict[str, Any]:
        # Ansible would add the arguments after this, as they are.
        called = {"invocation": {"module_args": self.params}} if hasattr(self, "params") else {}
        found: dict[str, Any] = masked(called | result, self.no_log_values)
        return found
