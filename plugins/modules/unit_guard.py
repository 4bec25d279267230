#!/usr/bin/python
# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: unit_guard
version_added: "0.1.0"
author:
  - The sparkfleet.vllm authors (@sparkfleet)
short_description: Keep the ports of a unit for its members
description:
  - Drops new TCP connections to O(ports), and to the ports that the kernel gives to sockets that name none, from any other host than
    O(members). The servers of a unit talk to each other there, without authentication.
  - Loopback passes, and what the host itself has begun. Port 22, O(open_ports), UDP and what the host routes for others are not touched.
  - The rules are in a table of nftables of their own, C(inet sparkfleet_unit), for IPv4 and IPv6.
  - They change in one transaction, so there is no moment without them, and no connection of a member that stays is cut.
  - C(sparkfleet-unit-guard.service) brings them back at boot, before the network and Docker. It needs nothing of this collection.
  - Without a member, here and on record, it removes table, files and unit.
options:
  members:
    description: IP addresses of the members, from which they connect.
    type: list
    elements: str
    default: []
  ports:
    description: TCP ports of the unit, those of its supervisor and of its master. With a member at least one, here or on record.
    type: list
    elements: int
    default: []
  open_ports:
    description: TCP ports that stay open for all, although the kernel may give them to a socket.
    type: list
    elements: int
    default: []
  state_dir:
    description:
      - Directory of C(state.json). Members and ports of the units on record are kept as well, so that neither a change nor a rollback
        opens or cuts one. The ports of the servers on record are never closed.
    type: path
  records:
    description: Which units on record.
    type: list
    elements: str
    choices: [current, last_good]
    default: [current, last_good]
extends_documentation_fragment:
  - sparkfleet.vllm.internal
attributes:
  check_mode:
    description: Has nft check the rules, and reports the changes. Without nft it reports them only.
    support: full
  diff_mode:
    description: Shows the rules of the kernel before and after, and the files.
    support: full
  idempotent:
    description: Does nothing if the kernel has these rules and the unit would bring them back.
    support: full
"""

EXAMPLES = r"""
- name: Keep the ports of a unit of two Sparks for them
  sparkfleet.vllm.unit_guard:
    members: [192.0.2.11, 192.0.2.12]
    ports: [8622, 29501]
  become: true
"""

RETURN = r"""
members:
  description: The addresses that may connect; none without a unit.
  returned: success
  type: list
  elements: str
  sample: [192.0.2.11, 192.0.2.12]
drift:
  description: What differed, as M(sparkfleet.vllm.drift_report) takes it. M(sparkfleet.vllm.serve_drift) has an example.
  returned: success
  type: dict
"""

from typing import Any

from ..module_utils._common import files
from ..module_utils._common.basic import AnsibleModule
from ..module_utils._drift import unit_guard as drift
from ..module_utils._host import guard, guard_files, nftables, unit, unit_guard
from ..module_utils._host.guard import Guard, GuardError
from ..module_utils._host.nftables import NftError
from ..module_utils._host.request import ProbeError
from ..module_utils._run.lock_file import hold
from ..module_utils._serve import records
from ..module_utils._serve import state as serve_state

NOTHING = Guard({unit_guard.TABLE: ()})


def wanted(params: dict[str, Any]) -> tuple[list[str], Guard]:
    """The addresses that may connect, and all that keeps others out.

    :raises GuardError: there is no such rule
    :raises NftError: the host does not say which ports it gives away
    """
    state_dir = params["state_dir"]
    units = [serve_state.unit_of(serving) for serving in records.servings(state_dir, params["records"])]
    addresses = unit_guard.members([*params["members"], *(each for unit_ in units for each in unit_[0])])
    members = [each for found in addresses.values() for each in found]
    if not members:
        return [], NOTHING
    ports = [*params["ports"], *(each for unit_ in units for each in unit_[1])]
    others = [*params["open_ports"], *records.ports(state_dir)]
    lines = unit_guard.rules(addresses, unit_guard.closed(ports, nftables.port_range(), others))
    kept = unit_guard.files(lines, unit.UNITS)
    return members, Guard({unit_guard.TABLE: lines}, kept, enabled="enabled", active="active")


def look_table(module: AnsibleModule, members: list[str]) -> tuple[str, ...]:
    """The rules of the kernel.

    :raises NftError: they cannot be read
    """
    try:
        return nftables.look()
    except nftables.NftAbsentError:
        # In check mode it may still come. And where it never was, there is nothing to remove.
        if module.check_mode or not members:
            return ()
        raise


def apply(seen: Guard, after: Guard) -> None:
    """:raises NftError, ProbeError, OSError: something refuses"""
    lines = after.rules[unit_guard.TABLE]

    def load() -> None:
        if seen.rules != after.rules:
            nftables.load(unit_guard.transaction(lines))

    guard_files.apply(seen, after, unit_guard.UNIT, unit_guard.DIRECTORY, load)


def check(module: AnsibleModule, seen: Guard, after: Guard) -> None:
    """:raises NftError: nft does not take the rules. Nothing was changed"""
    if seen.rules == after.rules:
        return
    try:
        nftables.load(unit_guard.transaction(after.rules[unit_guard.TABLE]), test=True)
    except nftables.NftAbsentError:
        if not module.check_mode:
            raise


def run(module: AnsibleModule) -> dict[str, Any]:
    members, after = wanted(module.params)
    rules = {unit_guard.TABLE: look_table(module, members)}
    seen = guard_files.look(rules, [unit_guard.DIRECTORY / unit_guard.FILE], unit_guard.UNIT)
    changed = seen != after
    if changed:
        check(module, seen, after)
    if changed and not module.check_mode:
        apply(seen, after)
    return {
        "changed": changed,
        "members": members,
        "diff": guard.differences(seen, after, unit_guard.UNIT, "nftables, table {}".format),
        "drift": drift.judge(members, seen, after),
    }


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "members": {"type": "list", "elements": "str", "default": []},
            "ports": {"type": "list", "elements": "int", "default": []},
            "open_ports": {"type": "list", "elements": "int", "default": []},
            "state_dir": {"type": "path"},
            "records": {
                "type": "list",
                "elements": "str",
                "choices": ["current", "last_good"],
                "default": ["current", "last_good"],
            },
        },
        supports_check_mode=True,
    )
    hold(module)
    try:
        result = run(module)
    except (GuardError, NftError) as error:
        module.fail_json(msg=str(error))
    except ProbeError as error:
        module.fail_json(msg=guard_files.not_followed(unit_guard.UNIT, error))
    except OSError as error:
        module.fail_json(msg=files.unwritable(error.filename or str(unit_guard.DIRECTORY), error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
