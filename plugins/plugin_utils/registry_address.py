# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The address at which the fleet reaches the registry on one of its hosts. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any


def fact(interface: str) -> str:
    """The name of Ansible's fact about a network interface."""
    return "ansible_" + re.sub("[-.:]", "_", interface)


def url(host: str, address: str, interface: str, port: int, facts: Mapping[str, Any], met_at: str) -> str:
    """The address of the registry; empty without a registry, or if the interface has no address.

    :param host: inventory name of the host that serves; empty for none
    :param address: on which it listens. If empty, the interface's address; without an interface too, `met_at`
    :param facts: of the interface, as C(ansible.builtin.setup) gathers them; empty if nobody could ask
    :param met_at: the address under which Ansible reaches the host
    """
    if not address:
        address = (
            (facts.get(fact(interface)) or {}).get("ipv4", {}).get("address", "") if interface else met_at
        )
    if not host or not address:
        return ""
    return f"http://[{address}]:{port}" if ":" in address else f"http://{address}:{port}"
