# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the modules that ask the HAProxy of a gateway share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from .._common.basic import AnsibleModule
from .answers import HaproxyError
from .haproxy import Haproxy
from .states import States, StatesError

ARGUMENT_SPEC: dict[str, Any] = {
    "socket": {"type": "path", "default": "/run/sparkfleet-gateway/master.sock"},
    "state_file": {"type": "path", "default": "/var/lib/sparkfleet-gateway/servers"},
}
FILES_SPEC: dict[str, Any] = {
    "directory": {"type": "path", "default": "/etc/haproxy/sparkfleet"},
    "files": {"type": "dict", "required": True},
    "secrets": {"type": "dict", "default": {}, "no_log": True},
    "group": {"type": "str", "default": "haproxy"},
    "program": {"type": "path", "default": "/usr/sbin/haproxy"},
}


def never_set_up(module: AnsibleModule) -> bool:
    """There is no gateway here yet, so no Spark is behind it. One that only does not run has a directory of states."""
    socket, states = Path(module.params["socket"]), Path(module.params["state_file"])
    return not socket.exists() and not states.parent.exists()


def ask(
    module: AnsibleModule, run: Callable[[States], dict[str, Any]], without: dict[str, Any] | None
) -> None:
    """Run and end the module.

    :param without: the result where no gateway was ever set up; None if that is a failure
    """
    if never_set_up(module):
        if without is None:
            module.fail_json(msg="expected a gateway on this host, seen none; do: set it up with gateway.yml")
        module.exit_json(changed=False, **(without or {}))
    try:
        result = run(States(Haproxy(module.params["socket"]), module.params["state_file"]))
    except StatesError as error:
        module.fail_json(msg=str(error))
    except HaproxyError as error:
        module.fail_json(
            msg=f"expected an answer of HAProxy on this gateway, seen: {error}; do: look at journalctl -u sparkfleet-gateway, and run again"
        )
    module.exit_json(**result)
