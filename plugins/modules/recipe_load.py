#!/usr/bin/python
# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: recipe_load
short_description: Find, read and validate a recipe and its lock
version_added: "0.1.0"
author:
  - The sparkfleet.vllm authors (@sparkfleet)
description:
  - Runs on the controller only and opens no connection, so a wrong recipe stops a run before it touches any host.
  - Reports every problem of the recipe at once, each with file, line, key and the nearest valid key.
  - If the recipe was edited after it was locked, the lock does not cover it. That is an error that shows both values.
options:
  name:
    description:
      - Name of a recipe, looked for among those of this collection and in C(recipes) beside the inventory, or the path
        of a file, relative to the current directory or the playbook.
    type: str
    required: true
  lock_dir:
    description:
      - Directory of C(<recipe>.lock.yml), relative to the inventory.
      - Empty means beside the recipe, and for one of this collection C(locks) beside the inventory.
    type: str
    default: ""
  lock:
    description:
      - V(enforce) reads the lock if there is one and compares the recipe with it. V(ignore) does not read it, because a new one
        will be made.
    type: str
    choices: [enforce, ignore]
    default: enforce
attributes:
  check_mode:
    description: Only reads.
    support: full
  diff_mode:
    description: Changes nothing.
    support: N/A
  idempotent:
    description: Only reads.
    support: full
"""

EXAMPLES = r"""
- name: Load the recipe
  sparkfleet.vllm.recipe_load:
    name: huihui-gemma4-mtp-n1
    lock_dir: "{{ inventory_dir | dirname }}/locks"
  register: loaded
  run_once: true
"""

RETURN = r"""
name:
  description: The name or path that was given.
  type: str
  returned: success
  sample: huihui-gemma4-mtp-n1
recipe:
  description: The recipe, with its defaults filled in.
  type: dict
  returned: success
  sample:
    name: huihui-gemma4-mtp-n1
    image: {reference: "vllm/vllm-openai:gemma4-0505-arm64-cu130"}
    expect: {acceptance_floor: 0.4, minimum_drafts: 200}
lock:
  description: The lock; empty if there is none or O(lock=ignore).
  type: dict
  returned: success
  sample: {}
recipe_path:
  description: File of the recipe.
  type: str
  returned: success
  sample: /etc/fleet/recipes/huihui-gemma4-mtp-n1.yml
lock_path:
  description: File of the lock, whether it exists or not.
  type: str
  returned: success
  sample: /etc/fleet/locks/huihui-gemma4-mtp-n1.lock.yml
"""
