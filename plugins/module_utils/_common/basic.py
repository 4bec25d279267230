# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An AnsibleModule for messages that quote others: a server, its log, a registry, a Hub."""

from __future__ import annotations

from typing import Any, NoReturn

from ansible.module_utils import basic

from .terminal import printable


class AnsibleModule(basic.AnsibleModule):
    """Escapes messages for the terminal: Ansible prints them as they are."""

    def fail_json(self, msg: str, **kwargs: Any) -> NoReturn:
        super().fail_json(printable(str(msg)), **kwargs)
        raise SystemExit(1)  # never: fail_json has left

    def warn(self, warning: str, **kwargs: Any) -> None:
        super().warn(printable(str(warning)), **kwargs)
