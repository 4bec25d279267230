#!/usr/bin/python
# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: fabric_netplan
version_added: "0.1.0"
author:
  - The sparkfleet.vllm authors (@sparkfleet)
short_description: Give the interfaces between Sparks their addresses by netplan
description:
  - Writes one file, C(/etc/netplan/90-sparkfleet-fabric.yaml), and applies it. Without O(addresses) it removes that file.
  - Refuses an interface that has the default route or the connection of this run, and one that another file of netplan names.
  - Lets C(netplan generate) check the file beside all others before it is written. If it cannot be applied, the former one comes back.
options:
  addresses:
    description: IPv4 address with its prefix by interface. Each needs a subnet of its own.
    type: dict
    default: {}
  mtu:
    description: MTU of these interfaces.
    type: int
    default: 9000
extends_documentation_fragment:
  - sparkfleet.vllm.internal
attributes:
  check_mode:
    description: Has netplan check the file, and reports the change.
    support: full
  diff_mode:
    description: Shows the file before and after.
    support: full
  idempotent:
    description: Does nothing if the file has this content.
    support: full
"""

EXAMPLES = r"""
- name: Give both twins of port 0 their addresses
  sparkfleet.vllm.fabric_netplan:
    addresses:
      enp1s0f0np0: 192.168.100.11/24
      enP2p1s0f0np0: 192.168.101.11/24
  become: true
"""

RETURN = r"""
path:
  description: The file.
  returned: success
  type: str
  sample: /etc/netplan/90-sparkfleet-fabric.yaml
"""

import os
import tempfile
from pathlib import Path
from typing import Any

from ..module_utils._common import files
from ..module_utils._common.basic import AnsibleModule
from ..module_utils._host import netplan
from ..module_utils._host.netplan import NetplanError
from ..module_utils._host.request import ProbeError, Request
from ..module_utils._run.lock_file import hold

SECONDS = 60.0
MODE = 0o600
"""netplan warns of a file that others may read."""


def generate(request: Request, after: str) -> None:
    """Let netplan check the file beside all others, in a folder of its own.

    :raises NetplanError: netplan does not take it, or is not there
    """
    with tempfile.TemporaryDirectory(prefix="sparkfleet-netplan-") as folder:
        place = Path(folder + netplan.FOLDER)
        for path in netplan.others(request):
            files.write(place / path.name, path.read_bytes(), MODE)
        if after:
            files.write(place / netplan.NAME, after.encode(), MODE)
        try:
            request.run(["netplan", "generate", "--root-dir", folder], SECONDS)
        except ProbeError as error:
            raise NetplanError(
                f"expected netplan to take {netplan.NAME} beside the other files of {netplan.FOLDER}, seen: {error}; nothing was changed: "
                "mend what it says, or set the addresses by the means of this system"
            ) from None


def put(path: Path, content: str) -> None:
    if content:
        files.write(path, content.encode(), MODE)
    else:
        path.unlink(missing_ok=True)


def apply(request: Request, path: Path, before: str, after: str) -> None:
    """:raises NetplanError: it cannot be applied. The former file is back"""
    put(path, after)
    try:
        request.run(["netplan", "apply"], SECONDS)
    except ProbeError as error:
        put(path, before)
        raise NetplanError(
            f"expected netplan to apply {path}, seen: {error}; the former file is back: see journalctl, and run netplan apply"
        ) from None


def run(module: AnsibleModule, request: Request) -> dict[str, Any]:
    path = request.at(f"{netplan.FOLDER}/{netplan.NAME}")
    interfaces = netplan.wanted(module.params["addresses"])
    netplan.check(interfaces, request, netplan.connection_of(request, os.getpid()))
    before, after = (
        request.text(f"{netplan.FOLDER}/{netplan.NAME}") or "",
        netplan.text(interfaces, module.params["mtu"]),
    )
    if before != after:
        generate(request, after)
        if not module.check_mode:
            apply(request, path, before, after)
    shown = f"{netplan.FOLDER}/{netplan.NAME}"
    return {
        "changed": before != after,
        "path": shown,
        "diff": {"before": before, "after": after, "before_header": shown, "after_header": shown},
    }


def main(request: Request | None = None) -> None:
    module = AnsibleModule(
        argument_spec={"addresses": {"type": "dict", "default": {}}, "mtu": {"type": "int", "default": 9000}},
        supports_check_mode=True,
    )
    hold(module)
    if not 1280 <= module.params["mtu"] <= 9978:
        module.fail_json(msg=f"mtu: expected 1280 to 9978, got {module.params['mtu']}")
    try:
        module.exit_json(**run(module, request or Request()))
    except NetplanError as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(msg=files.unwritable(netplan.FOLDER, error))


if __name__ == "__main__":
    main()
