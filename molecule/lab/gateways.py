# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A lab gateway as its HAProxy sees the Sparks, and as a client meets it."""

from __future__ import annotations

import csv

from streams import Address
from testing import on


def rows(gate: str, pool: str) -> dict[str, dict[str, str]]:
    """What HAProxy tells of each server of a pool; nothing while it is not there."""
    ask = "echo '@1 show stat -1 4 -1' | socat - UNIX-CONNECT:/run/sparkfleet-gateway/master.sock"
    text = on(gate, ask, check=False).strip().removeprefix("# ")
    return {row["svname"]: row for row in csv.DictReader(text.splitlines()) if row["pxname"] == pool}


def states(gate: str, pool: str) -> dict[str, str]:
    """Of each server: UP, DOWN, DRAIN, MAINT and what comes after."""
    return {name: row["status"] for name, row in rows(gate, pool).items()}


def busiest(gate: str, pool: str) -> str:
    """The server that has most requests now."""
    requests = {name: int(row["scur"]) for name, row in rows(gate, pool).items()}
    return max(requests, key=requests.__getitem__)


def address(gate: str, at: str, key: str, model: str, silence: float = 30) -> Address:
    """Of a gateway with the certificate of a lab."""
    authority = on(gate, "cat /etc/haproxy/sparkfleet-lab/ca.pem")
    return Address(f"https://{at}", key, model, authority, silence)
