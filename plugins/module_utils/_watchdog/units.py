# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The units of systemd: a timer for the looks, and a socket for the gateways. Pure."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from pathlib import Path

from .._host.unit import CONFINED, path_complaint, timer
from .program import AGENT
from .settings import SettingsError

RUNTIME = "sparkfleet-watchdog"
"""Of /run."""
SERVICE, TIMER = "sparkfleet-watchdog.service", "sparkfleet-watchdog.timer"
SOCKET, ANSWER = "sparkfleet-watchdog-agent.socket", "sparkfleet-watchdog-agent@.service"
ALL = (TIMER, SOCKET, SERVICE, ANSWER)
"""What starts others comes first."""
STALE = 5
"""Minutes after which a look no longer tells the gateways anything."""

# CAP_SYS_ADMIN: systemd asks it of who orders a restart, where no polkit is. No private devices: nvidia-smi needs those of the GPU.
_SERVICE = """\
# Written by sparkfleet.vllm.watchdog.
[Unit]
Description=Look at the served vLLM
After=docker.service

[Service]
Type=oneshot
ExecStart={python} -I {program} {state_dir}
RuntimeDirectory={runtime}
RuntimeDirectoryMode=0755
RuntimeDirectoryPreserve=yes
TimeoutStartSec=300
TimeoutStopSec=5
LogLevelMax=notice
Nice=10
CPUWeight=20
IOWeight=20
MemoryMax=256M
TasksMax=64
UMask=0077
CapabilityBoundingSet=CAP_DAC_OVERRIDE CAP_SYS_ADMIN
ReadWritePaths={state_dir}
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
{confined}"""
_SOCKET = """\
# Written by sparkfleet.vllm.watchdog.
[Unit]
Description=Tell the gateways what the watchdog thinks of this server

[Socket]
ListenStream={address}:{port}
FreeBind=yes
Accept=yes
MaxConnections=32
MaxConnectionsPerSource=8

[Install]
WantedBy=sockets.target
"""
# A gateway asks every few seconds, so all share a user, and the journal hears nothing of it. systemd warns of the user nobody each time.
_ANSWER = """\
# Written by sparkfleet.vllm.watchdog.
[Unit]
Description=Tell a gateway what the watchdog thinks of this server
CollectMode=inactive-or-failed

[Service]
ExecStart=-/usr/bin/find /run/{runtime}/{agent} -mmin -{stale} -exec /bin/cat {{}} \\;
StandardInput=socket
StandardOutput=socket
StandardError=null
DynamicUser=yes
User=sparkfleet-watchdog
RuntimeMaxSec=5
LogLevelMax=warning
Nice=10
MemoryMax=32M
TasksMax=4
ProtectHome=yes
PrivateDevices=yes
NoNewPrivileges=yes
CapabilityBoundingSet=
RestrictAddressFamilies=none
SystemCallArchitectures=native
"""


@dataclass(frozen=True)
class Agent:
    address: str
    port: int


def texts(python: Path, program: Path, state_dir: Path, interval: int, agent: Agent | None) -> dict[str, str]:
    """{name of a unit: its text}

    :raises SettingsError: a path or an address is none that a unit can have
    """
    values = {
        "python": _word("python", python),
        "program": _word("program", program),
        "state_dir": _word("state_dir", state_dir),
        "runtime": RUNTIME,
        "confined": CONFINED,
    }
    again = timer("sparkfleet.vllm.watchdog", "Look at the served vLLM, again and again", 5, interval)
    made = {SERVICE: _SERVICE.format(**values), TIMER: again}
    if agent:
        made[SOCKET] = _SOCKET.format(address=_address(agent.address), port=_port(agent.port))
        made[ANSWER] = _ANSWER.format(runtime=RUNTIME, agent=AGENT, stale=STALE)
    return made


def _word(name: str, path: Path) -> str:
    if wrong := path_complaint(str(path)):
        raise SettingsError(f"{name}: {wrong}")
    return str(path)


def _address(given: str) -> str:
    try:
        address = ipaddress.ip_address(given)
    except ValueError:
        raise SettingsError(
            f"agent_address: expected an IP address, seen {given!r:.80}; set spark_address to that of the host"
        ) from None
    return f"[{address}]" if address.version == 6 else str(address)


def _port(given: int) -> int:
    if not 0 < given < 65536 or given == 22:
        raise SettingsError(
            f"agent_port: expected a TCP port that is not that of ssh, seen {given}; correct spark_watchdog_port"
        )
    return given
