# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Restarts a server that makes no tokens, or stops it for good. Only while no run holds the host."""

from __future__ import annotations

from .._host import engine_socket
from .._host.engine_socket import EngineError
from .._host.request import ProbeError, run_command
from .._run.lock_file import LockFile
from .judge import STOP
from .look import Host
from .seen import Look

SYSTEMCTL_TIMEOUT = 8.0
KILL_TIMEOUT = 8.0
"""Seconds. Together less than a run that begins meanwhile waits: _run/lock_file.py, ENDS_WITHIN."""


class ActError(Exception):
    """A run holds the host, or systemd or the engine does not follow.

    :param ordered: whether systemd has its order all the same
    """

    def __init__(self, text: str, ordered: bool = False) -> None:
        super().__init__(text)
        self.ordered = ordered


def act(host: Host, look: Look, what: str) -> None:
    """Give the order to systemd, and end the container.

    Systemd comes first: so it has its order when the container ends, and does not take that for an end to mend. A process that is
    stopped or wedged does not react to SIGTERM, so the engine ends it with SIGKILL, and nobody waits for the stop timeout.

    :raises ActError: nothing was done, or not all
    """
    if look.record is None:
        raise ActError("no server is on record here")
    name = look.record.container
    order = "stop" if what == STOP else "restart"
    ordered = False
    try:
        with LockFile(host.state_dir).between_runs() as free:
            if not free:
                raise ActError("a run has begun to work here")
            run_command(["systemctl", order, "--no-block", f"{name}.service"], SYSTEMCTL_TIMEOUT)
            ordered = True
            engine_socket.kill(host.socket, name, KILL_TIMEOUT)
    except (OSError, ProbeError, EngineError) as error:
        text = f"expected systemd and the engine to {order} {name}, seen: {error}"
        raise ActError(text, ordered) from error
