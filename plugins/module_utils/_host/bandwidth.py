# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The bandwidth between two hosts, by programs of the distribution: iperf3 for TCP, ib_write_bw of perftest for RDMA.

A server is a transient unit of systemd: as a user of its own, for the members' addresses alone, and ended by systemd when its time
is over, whatever becomes of the run.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from .._common import json_text, shape
from .request import CommandAbsentError, ProbeError, run_command

TCP, RDMA = "iperf3", "ib_write_bw"
STREAMS = 4
"""TCP connections at once: one core of a Spark does not fill the wire."""
SLACK = 15.0
"""Seconds that a measurement may take beside its own time."""
TRIES = 4
PAUSE = 1.0
"""Seconds before another try. A server of RDMA serves one client, and then starts anew."""
SYSTEMD = 30.0
LARGEST = 1 << 20
_REPORT = {"end": {"sum_received": {"bits_per_second": float}}}
LIMITS = (
    "DynamicUser=yes",
    "ProtectSystem=strict",
    "ProtectHome=yes",
    "PrivateTmp=yes",
    "NoNewPrivileges=yes",
    "CapabilityBoundingSet=",
    "RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX AF_NETLINK",
)
OF_TOOL = {
    TCP: ("PrivateDevices=yes",),
    # It registers memory with the adapter, and ends after each client.
    RDMA: ("LimitMEMLOCK=infinity", "Restart=on-success", "RestartSec=0", "StartLimitIntervalSec=0"),
}

Run = Callable[[Sequence[str], float], str]


@dataclass(frozen=True)
class Lane:
    """One way to measure: a tool, the port of its server, and for RDMA the device with its place in the table of addresses."""

    tool: str
    port: int
    device: str = ""
    gid_index: int = 0

    @property
    def unit(self) -> str:
        return f"sparkfleet-fabric-{self.port}.service"


def listen(lane: Lane, address: str, peers: Iterable[str], seconds: int, run: Run = run_command) -> None:
    """Start a server for the peers, for at most that many seconds.

    :raises ProbeError: systemd does not start it
    :raises CommandAbsentError: the tool or systemd is not there
    """
    end(lane, run)
    _there(lane.tool, run)
    properties = [
        *LIMITS,
        *OF_TOOL[lane.tool],
        f"RuntimeMaxSec={seconds}",
        "IPAddressDeny=any",
        *(f"IPAddressAllow={peer}" for peer in peers),
    ]
    server = (
        [TCP, "--server", "--bind", address, "--port", str(lane.port)]
        if lane.tool == TCP
        else _rdma(lane, address, 2)
    )
    run(
        [
            "systemd-run",
            f"--unit={lane.unit}",
            "--description=Measures the network between the members of a unit",
            "--collect",
            "--quiet",
            "--service-type=exec",
            *(f"--property={each}" for each in properties),
            *server,
        ],
        SYSTEMD,
    )


def end(lane: Lane, run: Run = run_command) -> None:
    """End the server, if there is one. An ended unit is gone: nothing of it stays on the host."""
    for verb in ("stop", "reset-failed"):
        try:
            run(["systemctl", verb, lane.unit], SYSTEMD)
        except CommandAbsentError:
            raise
        except ProbeError:  # there is none
            continue


def measure(
    lane: Lane,
    address: str,
    peer: str,
    seconds: int,
    run: Run = run_command,
    sleep: Callable[[float], None] = time.sleep,
) -> float:
    """Gb/s from this host to the peer, where a server listens.

    :raises ProbeError: it could not be measured; the text has the words of the tool
    :raises CommandAbsentError: the tool is not there
    """
    _there(lane.tool, run)
    argv = (
        [
            *(TCP, "--client", peer, "--bind", address, "--port", str(lane.port)),
            *("--time", str(seconds), "--parallel", str(STREAMS), "--connect-timeout", "3000", "--json"),
        ]
        if lane.tool == TCP
        else [*_rdma(lane, address, seconds), peer]
    )
    parse = parse_iperf3 if lane.tool == TCP else parse_perftest
    for _try in range(TRIES - 1):
        try:
            return parse(run(argv, seconds + SLACK))
        except ProbeError:
            sleep(PAUSE)
    try:
        return parse(run(argv, seconds + SLACK))
    except ProbeError as error:
        raise ProbeError(_words(str(error))) from None


def _rdma(lane: Lane, address: str, seconds: int) -> list[str]:
    return [
        *(RDMA, "--ib-dev", lane.device, "--gid-index", str(lane.gid_index), "--port", str(lane.port)),
        *("--bind_source_ip", address, "--duration", str(seconds), "--report_gbits", "-F"),
    ]


def _there(tool: str, run: Run) -> None:
    """:raises CommandAbsentError: the tool is not there. Of a unit, systemd would only tell that it failed"""
    try:
        run([tool, "--version"], SYSTEMD)
    except CommandAbsentError:
        raise
    except ProbeError:  # ib_write_bw has a status of its own for its version
        return


def _words(text: str) -> str:
    """What a tool says of its failure. iperf3 says it within a report of many lines."""
    found = re.search(r'"error": ?"([^"\r\n]{1,300})"', text)
    return f"iperf3: {found[1]}" if found else text[:300]


def parse_iperf3(text: str) -> float:
    """Gb/s that arrived, of the report of a client.

    :raises ProbeError: it is no such report
    """
    try:
        report: Any = json_text.read(text, "the report of iperf3", limit=LARGEST)
    except json_text.JsonError as error:
        raise ProbeError(str(error)) from None
    if unfit := shape.wrong(report, _REPORT):
        raise ProbeError(f"the report of iperf3: {unfit}")
    return float(report["end"]["sum_received"]["bits_per_second"]) / 1e9


def parse_perftest(text: str) -> float:
    """Gb/s on average: the last row of the table, whose columns are bytes, iterations, peak, average and messages.

    :raises ProbeError: there is no such row
    """
    found = re.findall(
        r"^[ \t]*[0-9]{1,12}[ \t]+[0-9]{1,12}[ \t]+[0-9.]{1,20}[ \t]+([0-9]{1,9}(?:\.[0-9]{1,9})?)[ \t]+[0-9.]{1,20}[ \t]*$",
        text[-LARGEST:],
        re.MULTILINE,
    )
    if not found:
        raise ProbeError("expected the table of ib_write_bw, seen none")
    return float(found[-1])
