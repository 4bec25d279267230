#!/usr/bin/python
# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: port_guard
version_added: "0.1.0"
author:
  - The sparkfleet.vllm authors (@sparkfleet)
short_description: Keep TCP ports of a host for some sources
description:
  - Drops what comes to the ports from any other source than O(sources). The host itself passes. No other port or protocol is touched, and
    nothing that the host routes for others.
  - The rules are in the chain C(SPARKFLEET) of the table C(raw), by C(iptables) and C(ip6tables). That table comes before Docker's DNAT,
    so they hold for published ports and for the host's network alike.
  - They change in one transaction, so there is no moment without them, and no connection of a source that stays is cut.
  - C(sparkfleet-port-guard.service) brings them back at boot, before the network and Docker. It needs nothing of this collection.
options:
  state:
    description: V(absent) removes rules, files and unit.
    type: str
    choices: [present, absent]
    default: present
  ports:
    description: TCP ports to keep. With O(state=present) at least one, here or in O(monitoring_ports).
    type: list
    elements: int
    default: []
  sources:
    description: IP addresses, and networks in CIDR, that may connect. None of a version of IP drops all that comes by that version.
    type: list
    elements: str
    default: []
  gateways:
    description: Names of gateways in the inventory. The controller side adds their addresses to O(sources).
    type: list
    elements: str
    default: []
  keep:
    description: Whether to keep every port for O(sources) that is kept now, besides O(ports).
    type: bool
    default: false
  monitoring_ports:
    description: TCP ports to keep for the monitoring alone.
    type: list
    elements: int
    default: []
  monitoring_sources:
    description: IP addresses and networks of the monitoring. They may connect to O(ports) as well.
    type: list
    elements: str
    default: []
  monitoring:
    description: Names of monitoring hosts in the inventory. The controller side adds their addresses to O(monitoring_sources).
    type: list
    elements: str
    default: []
  state_dir:
    description:
      - Directory of C(state.json). The ports of the servers on record are kept as well, so neither a change of the port nor a rollback
        opens one.
    type: path
extends_documentation_fragment:
  - sparkfleet.vllm.internal
attributes:
  check_mode:
    description: Has iptables check the rules, and reports the changes. Without iptables it reports them only.
    support: full
  diff_mode:
    description: Shows the rules of the kernel before and after, and the files.
    support: full
  idempotent:
    description: Does nothing if the kernel has these rules and the unit would bring them back.
    support: full
"""

EXAMPLES = r"""
- name: Keep vLLM's port for two gateways and the monitoring network
  sparkfleet.vllm.port_guard:
    ports: [8000]
    sources: [192.168.1.10, 192.168.1.11, 192.168.7.0/24]
  become: true
"""

RETURN = r"""
ports:
  description: The ports that are kept.
  returned: success
  type: list
  elements: int
  sample: [8000]
drift:
  description: What differed, as M(sparkfleet.vllm.drift_report) takes it. M(sparkfleet.vllm.serve_drift) has an example.
  returned: success
  type: dict
"""

from typing import Any

from ..module_utils._common import files
from ..module_utils._common.basic import AnsibleModule
from ..module_utils._drift import port_guard as drift
from ..module_utils._host import guard, guard_files, iptables, port_guard, unit
from ..module_utils._host.guard import Guard, GuardError
from ..module_utils._host.iptables import IptablesError
from ..module_utils._host.port_guard import Table
from ..module_utils._host.request import ProbeError
from ..module_utils._run.lock_file import hold
from ..module_utils._serve import records


def wanted(params: dict[str, Any], tables: dict[int, Table]) -> tuple[list[int], Guard]:
    """The kept ports, and all that keeps them.

    :param tables: the rules that there are

    :raises GuardError: there is no such rule
    """
    if params["state"] == "absent":
        return [], Guard(dict.fromkeys(iptables.versions(), ()))
    asked = [*params["ports"], *records.ports(params["state_dir"])]
    if params["keep"]:
        now = {port for table in tables.values() for port in port_guard.guarded(table.shown)}
        asked += now - set(params["monitoring_ports"])
    watched = (
        guard.ports(params["monitoring_ports"], "spark_exporter_port") if params["monitoring_ports"] else []
    )
    kept = guard.ports(asked, "vllm_serve_port") if asked or not watched else []
    allowed, watchers = map(guard.sources, (params["sources"], params["monitoring_sources"]))
    lines = {
        version: port_guard.rules(kept, allowed[version], watched, watchers[version])
        for version in iptables.versions()
    }
    return kept, Guard(lines, port_guard.files(lines, unit.UNITS), enabled="enabled", active="active")


def look(tables: dict[int, Table]) -> Guard:
    rules = {version: table.shown for version, table in tables.items()}
    return guard_files.look(rules, map(port_guard.path, port_guard.FAMILIES), port_guard.UNIT)


def look_tables(module: AnsibleModule) -> dict[int, Table]:
    """The rules of the kernel, by version of IP.

    :raises IptablesError: they cannot be read
    """
    try:
        return {version: iptables.look(version) for version in iptables.versions()}
    except iptables.IptablesAbsentError:
        # In check mode it may still come, with Docker. And where it never was, there is nothing to remove.
        if module.check_mode or module.params["state"] == "absent":
            return {version: Table() for version in iptables.versions()}
        raise


def check(module: AnsibleModule, before: dict[int, Table], after: Guard) -> None:
    """:raises IptablesError: iptables does not take the rules. Nothing was changed"""
    for version, lines in after.rules.items():
        try:
            iptables.restore(version, port_guard.transaction(lines, before[version]), test=True)
        except iptables.IptablesAbsentError:
            if lines and not module.check_mode:
                raise


def apply(before: dict[int, Table], seen: Guard, after: Guard) -> None:
    """:raises IptablesError, ProbeError, OSError: something refuses"""

    def load() -> None:
        for version, lines in after.rules.items():
            if before[version].shown != lines:
                iptables.restore(version, port_guard.transaction(lines, before[version]))

    guard_files.apply(seen, after, port_guard.UNIT, port_guard.DIRECTORY, load)


def named(params: dict[str, Any], kept: list[int]) -> list[drift.Kept]:
    """The ports that are kept, each time with those who may connect."""
    watchers = params["monitoring_sources"]
    both = [(kept, [*params["sources"], *watchers]), (params["monitoring_ports"], watchers)]
    return [each for each in both if each[0]] if params["state"] == "present" else []


def run(module: AnsibleModule) -> dict[str, Any]:
    tables = look_tables(module)
    kept, after = wanted(module.params, tables)
    seen = look(tables)
    changed = seen != after
    if changed:
        check(module, tables, after)
    if changed and not module.check_mode:
        apply(tables, seen, after)
    return {
        "changed": changed,
        "ports": kept,
        "diff": guard.differences(seen, after, port_guard.UNIT, port_guard.named),
        "drift": drift.judge(named(module.params, kept), seen, after),
    }


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "ports": {"type": "list", "elements": "int", "default": []},
            "sources": {"type": "list", "elements": "str", "default": []},
            "gateways": {"type": "list", "elements": "str", "default": []},
            "keep": {"type": "bool", "default": False},
            "monitoring_ports": {"type": "list", "elements": "int", "default": []},
            "monitoring_sources": {"type": "list", "elements": "str", "default": []},
            "monitoring": {"type": "list", "elements": "str", "default": []},
            "state_dir": {"type": "path"},
        },
        supports_check_mode=True,
    )
    hold(module)
    try:
        result = run(module)
    except (GuardError, IptablesError) as error:
        module.fail_json(msg=str(error))
    except ProbeError as error:
        module.fail_json(msg=guard_files.not_followed(port_guard.UNIT, error))
    except OSError as error:
        module.fail_json(msg=files.unwritable(error.filename or str(port_guard.DIRECTORY), error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
