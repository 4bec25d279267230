#!/usr/bin/python
# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: snapshot_peer
short_description: Get snapshots from the other hosts of the fleet, and share this host's
version_added: "0.1.0"
author:
  - The sparkfleet.vllm authors (@sparkfleet)
description:
  - Starts or stops a peer on the host, a separate process that outlives the task. It sends complete snapshots to the named peers and
    gets missing ones from them, by BitTorrent v2. Every host passes its pieces on, so a fleet of any size takes little longer than
    one copy.
  - Only the addresses in O(peers) may connect, and only with O(swarm), the secret of the run. A block that differs from
    O(torrents) is discarded and requested elsewhere; its sender is expelled and named.
  - Received files are verified as in M(sparkfleet.vllm.hf_snapshot). The SHA-256 of every file against the lock, on this host,
    decides; a snapshot is promoted completely or not at all.
  - An interrupted run resumes. Files on the disk are hashed again, and only missing pieces are fetched.
  - The peer ends on O(state=stopped), when its host is complete and no peer has requested anything for O(idle) seconds, and after
    O(timeout).
  - It writes its progress to C(<store>/models/.peer/status.json) about once a second.
options:
  state:
    description:
      - V(started) ends an earlier peer of this store, starts one and returns when it listens.
      - V(finished) waits until its host is complete or cannot become so, and shows the progress. It does not fail, so that another
        try can follow; see RV(settled) and RV(problem). In check mode it does not wait.
      - V(stopped) stops it and returns its result.
    type: str
    choices: [started, finished, stopped]
    default: started
  snapshots:
    description: The snapshots that this host should have, in the form of the lock. Required to start.
  name:
    description: Name of this host in the inventory. Required to start.
    type: str
  address:
    description: Address of this host that the peer listens on and sends from. Required to start.
    type: str
  port:
    description: TCP port, the same on all hosts.
    type: int
    default: 6881
  peers:
    description: "The other hosts: name to address. This host may be among them."
    type: dict
    default: {}
  swarm:
    description: Secret of the run, at least 32 hex digits, the same on all hosts. Required to start.
    type: str
  torrents:
    description:
      - Result of M(sparkfleet.vllm.snapshot_torrent), by commit. Other snapshots are neither sent nor received.
    type: dict
    default: {}
  idle:
    description:
      - Seconds without traffic after which it gives up missing files, or ends if none are missing.
      - Also the seconds that V(finished) waits for a host that does not answer.
    type: int
    default: 180
  timeout:
    description: Seconds after which the peer ends in any case. The next run keeps what it received.
    type: int
    default: 14400
extends_documentation_fragment:
  - sparkfleet.vllm.internal
  - sparkfleet.vllm.snapshots
  - sparkfleet.vllm.snapshots.storing
attributes:
  check_mode:
    description: Checks the options and starts and ends nothing.
    support: full
  diff_mode:
    description: The result is not known before the peer has done its work.
    support: none
  idempotent:
    description: A peer that is started replaces the one before it, because it has another secret.
    support: none
requirements:
  - libtorrent >= 2.1.1 (Python package) on the host, to start
seealso:
  - module: sparkfleet.vllm.snapshot_torrent
  - module: sparkfleet.vllm.hf_snapshot
"""

EXAMPLES = r"""
- name: Bring body and draft from the host that has them
  sparkfleet.vllm.snapshot_peer:
    state: started
    store: /srv/sparkfleet
    snapshots: "{{ recipe_lock.models.values() | list }}"
    name: "{{ inventory_hostname }}"
    address: 192.168.100.12
    peers: {spark-1: 192.168.100.11, spark-2: 192.168.100.12}
    swarm: "{{ secret_of_this_run }}"
    torrents: "{{ described.torrents }}"

- name: End the peer
  sparkfleet.vllm.snapshot_peer:
    state: stopped
    store: /srv/sparkfleet
"""

RETURN = r"""
pid:
  description: Process of the peer.
  type: int
  returned: when O(state=started), except in check mode
  sample: 4711
address:
  description: Address that it listens on.
  type: str
  returned: when O(state=started)
  sample: 192.168.100.12
port:
  description: TCP port that it listens on.
  type: int
  returned: when O(state=started)
  sample: 6881
settled:
  description: Whether the host is complete.
  type: bool
  returned: when O(state=finished)
  sample: true
problem:
  description: Why it is not complete; expected, seen, what to do.
  type: str
  returned: when O(state=finished)
  sample: ""
status:
  description: The last status of the peer; empty when there never was one.
  type: dict
  returned: when O(state=finished) or O(state=stopped)
  contains:
    state:
      description: V(working), V(whole) or V(failed).
      type: str
      sample: whole
    done:
      description: Bytes of all snapshots that are here and checked.
      type: int
      sample: 27000000000
    total:
      description: Bytes of all snapshots.
      type: int
      sample: 27000000000
    rate:
      description: Bytes received a second, over the last seconds.
      type: int
      sample: 310000000
    from:
      description: Bytes received, by name of the peer.
      type: dict
      sample: {spark-1: 27000000000}
    to:
      description: Bytes sent, by name of the peer.
      type: dict
      sample: {spark-3: 9000000000}
    corrupt_from:
      description: Peers that sent bytes with another hash, or this host itself if its own files are damaged.
      type: list
      elements: str
      sample: []
    snapshots:
      description: Result of each complete snapshot, as M(sparkfleet.vllm.hf_snapshot) returns it.
      type: list
      elements: dict
      sample: []
    problem:
      description: What was expected, what was seen and what to do. Empty without a problem.
      type: str
      sample: ""
    text:
      description: The same in a line for a person.
      type: str
      sample: "27.00 GB of 27.00 GB; from spark-1 100 %"
    seconds:
      description: Time from the start to the end of this host's own work.
      type: float
      sample: 31.4
    updated:
      description: Time of this status, in seconds since 1970.
      type: float
      sample: 1795478400.0
"""

import ipaddress
import os
import re
from typing import Any

from ansible.module_utils.basic import missing_required_lib

from ..module_utils._common.basic import AnsibleModule
from ..module_utils._common.store import StoreError
from ..module_utils._models import options as snapshot_options
from ..module_utils._models.manifest import Manifest, ManifestError
from ..module_utils._run.lock_file import hold
from ..module_utils._swarm import peer as swarm_peer
from ..module_utils._swarm import session, torrent

ARGUMENT_SPEC: dict[str, Any] = (
    snapshot_options.ARGUMENT_SPEC
    | snapshot_options.STORING
    | {
        "snapshots": snapshot_options.SNAPSHOTS,
        "state": {"type": "str", "choices": ["started", "finished", "stopped"], "default": "started"},
        "name": {"type": "str"},
        "address": {"type": "str"},
        "port": {"type": "int", "default": session.PORT},
        "peers": {"type": "dict", "default": {}},
        "swarm": {"type": "str", "no_log": True},
        "torrents": {"type": "dict", "default": {}},
        "idle": {"type": "int", "default": 180},
        "timeout": {"type": "int", "default": 14400},
    }
)
LEAST = snapshot_options.LEAST | {"port": 1, "idle": 1, "timeout": 1}
SECRET = re.compile(r"[0-9a-f]{32,}")


def parse(params: dict[str, Any]) -> list[Manifest]:
    """:raises ManifestError: with the problems of all options and all snapshots"""
    problems: list[str] = []
    manifests: list[Manifest] = []
    try:
        manifests = snapshot_options.parse(params, LEAST)
    except ManifestError as error:
        problems += error.problems
    for name, address in {"address": params["address"], **params["peers"]}.items():
        try:
            ipaddress.ip_address(address)
        except ValueError:
            problems.append(
                f"{name}: expected an IP address, seen {address!r}; name the one that the fleet meets on"
            )
    if not SECRET.fullmatch(params["swarm"]):
        problems.append(
            "swarm: expected at least 32 hex digits, seen something else; make a new one for each run"
        )
    for manifest in manifests:
        if manifest.commit in params["torrents"]:
            try:
                torrent.decode(manifest, params["torrents"][manifest.commit])
            except torrent.DescriptionError as error:
                problems.append(str(error))
    if problems:
        raise ManifestError(problems)
    return manifests


def start(module: AnsibleModule) -> dict[str, Any]:
    params = module.params
    manifests = parse(params)
    where = {"address": params["address"], "port": params["port"]}
    if module.check_mode:
        return {"changed": True, **where}
    options = snapshot_options.storing(params)
    swarm = session.Swarm(
        params["name"],
        params["address"],
        params["port"],
        params["peers"],
        params["swarm"],
        params["torrents"],
        params["idle"],
    )
    peer = swarm_peer.Peer(params["name"], manifests, options, swarm, params["timeout"])
    swarm_peer.stop(params["store"])
    return {"changed": True, "pid": swarm_peer.start(params["store"], peer.serve), **where}


def see(module: AnsibleModule) -> dict[str, Any]:
    """The peer's state now. The action plugin waits, not the module."""
    status = swarm_peer.status(module.params["store"])
    settled = status.get("state") == "whole"
    return {"changed": False, "settled": settled, "problem": status.get("problem", ""), "status": status}


def stop(module: AnsibleModule) -> dict[str, Any]:
    store = module.params["store"]
    there = swarm_peer.running(store) is not None
    if not module.check_mode:
        swarm_peer.stop(store)
    return {"changed": there, "status": swarm_peer.status(store)}


def main() -> None:
    module = AnsibleModule(
        argument_spec=ARGUMENT_SPEC,
        required_if=[("state", "started", ["snapshots", "name", "address", "swarm"])],
        supports_check_mode=True,
    )
    hold(module)
    os.umask(0o022)
    starting = module.params["state"] == "started"
    if starting and not module.check_mode and not session.available():
        module.fail_json(msg=missing_required_lib("libtorrent"))
    try:
        module.exit_json(
            **{"started": start, "finished": see, "stopped": stop}[module.params["state"]](module)
        )
    except (ManifestError, StoreError, swarm_peer.PeerError) as error:
        module.fail_json(msg=str(error))


if __name__ == "__main__":
    main()
