# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The systemd unit that keeps a server's container running: after a boot, and after an unintended end."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from .request import ProbeError, run_command

UNITS = Path("/etc/systemd/system")
MARGIN = 30
"""Seconds that systemd waits longer than the engine."""
CONFINED = """\
NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome=yes
PrivateTmp=yes
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectControlGroups=yes
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
SystemCallArchitectures=native
"""
"""Lines of a service whose program looks at the host, and writes to a folder of its own at most."""
_TIMER = """\
# Written by {writer}.
[Unit]
Description={description}

[Timer]
OnActiveSec={first}
OnUnitActiveSec={interval}
AccuracySec=1

[Install]
WantedBy=timers.target
"""
SHOWN = ("ActiveState", "MainPID", "NRestarts", "Result", "UnitFileState", "DropInPaths")


@dataclass(frozen=True)
class Unit:
    """A unit as systemd has it; all empty where there is none."""

    text: str | None = None  # of its file
    enabled: str = ""  # as systemctl is-enabled says
    drop_ins: tuple[str, ...] = ()  # paths
    active: str = ""  # active, activating (also between two starts), failed, inactive
    watches: bool = False  # whether a process of it waits for the container's end
    restarts: int = 0  # since it was started
    gave_up: bool = False  # too many ends within the time that its text gives


def look(name: str) -> Unit:
    """The unit `name` (with its suffix). What systemd does not answer stays empty."""
    path = UNITS / name
    try:
        shown = run_command(["systemctl", "show", f"--property={','.join(SHOWN)}", name], 30)
    except ProbeError:
        shown = ""
    values = dict(line.partition("=")[::2] for line in shown.splitlines())
    active, restarts = values.get("ActiveState", ""), values.get("NRestarts", "")
    return Unit(
        text=path.read_text(errors="replace") if path.is_file() else None,
        enabled=values.get("UnitFileState", ""),
        drop_ins=tuple(values.get("DropInPaths", "").split()),
        active=active,
        watches=active == "active" and values.get("MainPID", "0") != "0",
        restarts=int(restarts) if restarts.isdecimal() else 0,
        # The one start too many is what fails; the end before it has its own result.
        gave_up=active == "failed" and values.get("Result") not in ("", None, "success"),
    )


def timer(writer: str, description: str, first: int, interval: int) -> str:
    """The text of a timer that is due again and again.

    :param writer: module that writes it
    :param first: seconds until it is due first
    :param interval: seconds from then on
    """
    return _TIMER.format(writer=writer, description=description, first=first, interval=interval)


def path_complaint(path: str) -> str | None:
    """Why a unit cannot have this path as a word of a command."""
    if re.fullmatch(r"/[A-Za-z0-9._/+-]{1,500}", path):
        return None
    return f"expected a whole path of letters, digits and . _ + -, seen {path!r:.80}; correct it"


def stopping_after(text: str, seconds: int) -> str:
    """The text of a server's unit, for a server that may take that many seconds to stop."""
    text = re.sub(r"(docker stop -t )\d+", rf"\g<1>{seconds}", text)
    return re.sub(r"^(TimeoutStopSec=)\d+$", rf"\g<1>{seconds + MARGIN}", text, flags=re.MULTILINE)


def stop(name: str, timeout: float) -> None:
    """Stop the unit `name`, if there is one. The unit stops its container, and does not start it again.

    :raises ProbeError: systemd does not stop it
    """
    if (UNITS / name).is_file():
        run_command(["systemctl", "stop", name], timeout)
