#!/usr/bin/python
# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: snapshot_torrent
short_description: Describe the snapshots of a host, so that other hosts can fetch them
version_added: "0.1.0"
author:
  - The sparkfleet.vllm authors (@sparkfleet)
description:
  - Returns the SHA-256 of every piece of a snapshot, as BitTorrent v2 hashes them. M(sparkfleet.vllm.snapshot_peer) uses it to
    check every block that comes from another host.
  - The description holds no names, no sizes and no secret. It is the same on every host and in every run.
  - Reads each file once, for its SHA-256 and its pieces. A cache beside the snapshot keeps the hashes with size, mtime, ctime and
    inode of the file, so that a second run reads nothing.
options:
  snapshots:
    description: The snapshots to describe, in the form of the lock. All of them must be in the store.
    required: true
extends_documentation_fragment:
  - sparkfleet.vllm.internal
  - sparkfleet.vllm.snapshots
  - sparkfleet.vllm.attributes.looks
attributes:
  check_mode:
    description: Changes only a cache, and in check mode not even that.
  idempotent:
    description: The same snapshot gives the same description.
notes:
  - Fails if a file differs from the lock. Such a file must not be shared.
seealso:
  - module: sparkfleet.vllm.snapshot_peer
  - module: sparkfleet.vllm.hf_snapshot
"""

EXAMPLES = r"""
- name: Describe body and draft on the host that has them
  sparkfleet.vllm.snapshot_torrent:
    store: /srv/sparkfleet
    snapshots: "{{ recipe_lock.models.values() | list }}"
  register: described
"""

RETURN = r"""
torrents:
  description: "By commit, what O(sparkfleet.vllm.snapshot_peer#module:torrents) takes. Opaque; 32 bytes a piece."
  type: dict
  returned: success
  sample: {c4bbb7689dc16de4aaa468647625a5a02f98e22f: "1:q83vEjRW..."}
seconds:
  description: Time it took.
  type: float
  returned: success
  sample: 9.8
"""

import os
import time

from ..module_utils._common.basic import AnsibleModule
from ..module_utils._models import options
from ..module_utils._models.manifest import ManifestError
from ..module_utils._models.snapshot import Snapshot, SnapshotError
from ..module_utils._run.lock_file import hold
from ..module_utils._swarm import torrent


def main() -> None:
    module = AnsibleModule(argument_spec=options.ARGUMENT_SPEC, supports_check_mode=True)
    hold(module)
    os.umask(0o022)
    began = time.monotonic()
    torrents: dict[str, str] = {}
    try:
        for manifest in options.parse(module.params, {"max_workers": 1}):
            snapshot = Snapshot(
                module.params["store"], manifest, module.params["max_workers"], lambda text: None
            )
            hashes = torrent.describe(snapshot, remember=not module.check_mode)
            torrents[manifest.commit] = torrent.encode(manifest, hashes)
    except (ManifestError, SnapshotError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=False, torrents=torrents, seconds=round(time.monotonic() - began, 3))


if __name__ == "__main__":
    main()
