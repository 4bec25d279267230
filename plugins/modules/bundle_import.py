#!/usr/bin/python
# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: bundle_import
version_added: "0.1.0"
author:
  - The sparkfleet.vllm authors (@sparkfleet)
short_description: Bring recipe, lock and patches of a bundle to the controller
description:
  - Chooses the first host of the play that has a bundle, and checks that all hosts of the play can use its wheels.
  - A recipe or a lock that the controller has already must be the bundle's. Otherwise the run is refused; nothing is replaced.
  - What it lacks is written where the roles look for it, the recipe in C(recipes) beside the inventory, the lock in
    O(lock_dir), the patches under their SHA-256 in O(cache_dir).
  - Runs on the controller, once for all hosts, and connects to none.
options:
  path:
    description: Directory of the bundle on a host.
    type: path
    required: true
  looks:
    description: Name of the variable in which each host keeps what M(sparkfleet.vllm.bundle_info) returned.
    type: str
    required: true
  name:
    description: Recipe that the inventory asks for, by name or path. Empty for whatever the bundle holds.
    type: str
    default: ""
  lock_dir:
    description:
      - Directory of the lock, relative to the inventory.
      - Empty means beside the recipe, and for one of this collection C(locks) beside the inventory.
    type: str
    default: ""
  cache_dir:
    description: Where the controller keeps patches.
    type: path
    default: ~/.cache/sparkfleet
extends_documentation_fragment:
  - sparkfleet.vllm.internal
attributes:
  check_mode:
    description:
      - Recipe and lock are not put in their place. What follows reads them in O(cache_dir), so they and the patches are written
        there.
    support: full
  diff_mode:
    description: Lists the files that would appear on the controller.
    support: full
  idempotent:
    description: A second run changes nothing.
    support: full
seealso:
  - module: sparkfleet.vllm.bundle_info
"""

EXAMPLES = r"""
- name: Take recipe, lock and patches from the bundle
  sparkfleet.vllm.bundle_import:
    path: /mnt/usb/sparkfleet-bundle
    looks: bundle
    lock_dir: "{{ recipe_lock_dir | default('') }}"
  run_once: true
"""

RETURN = r"""
host:
  description: The host whose bundle is used.
  type: str
  returned: success
  sample: spark-1
address:
  description: IPv4 address on which that host meets the others.
  type: str
  returned: success
  sample: 192.168.100.11
recipe:
  description: What the recipe is loaded by, its name or the path of a file.
  type: str
  returned: success
  sample: huihui-gemma4-mtp-n1
lock_dir:
  description: Directory of the lock from now on.
  type: str
  returned: success
  sample: /home/me/fleet/inventory/locks
wheels:
  description: The bundle's Python packages as requirements with hashes.
  type: list
  elements: str
  returned: success
  sample: ["docker==7.2.0 --hash=sha256:…"]
written:
  description: Files that were written on the controller, or would be.
  type: list
  elements: str
  returned: success
  sample: [/home/me/fleet/inventory/locks/huihui-gemma4-mtp-n1.lock.yml]
"""
