#!/usr/bin/python
# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: serve_diff
short_description: Show what would change in a container, thing by thing
version_added: "0.1.0"
author:
  - The sparkfleet.vllm authors (@sparkfleet)
description:
  - Takes the result of a M(community.docker.docker_container) task, whose own diff shows an option as a whole, and shows
    only what differs in it; a serve argument by its option and a value in JSON by its key, a variable, a mount, the image,
    a port, a patch file that was mended. One line each.
  - Values of variables whose names say that they are secrets are not shown, nor in the result.
  - Runs on the controller, and connects to nothing.
options:
  compared:
    description:
      - What the task returned. It needs C(diff=true) for a diff to be in there, and C(no_log=true) for that not to be
        shown as it is.
    type: dict
    required: true
  container:
    description:
      - The container that is wanted, in the option names of that module. Where there is none, its image, arguments,
        environment and mounts are shown; without this, only that there will be one.
    type: dict
  name:
    description: What to call the container in the diff.
    type: str
    default: container
extends_documentation_fragment:
  - sparkfleet.vllm.internal
attributes:
  check_mode:
    description: Only shows.
    support: full
  diff_mode:
    description: The difference it was given.
    support: full
  idempotent:
    description: Changes nothing. RV(ignore:changed) says whether there is a difference, since Ansible shows none without it.
    support: full
"""

EXAMPLES = r"""
- name: Compare
  community.docker.docker_container:
    name: sparkfleet-vllm
    image: vllm/vllm-openai@sha256:0fd21dda17a2a7ae0d37b0c2d53c7b2c4fd0a4e9d1f3d3f7c9c1a7ad7d2f3b11
    command: [/models/body, --kv-cache-dtype, auto]
    comparisons: {"*": strict}
  register: compared
  check_mode: true
  diff: true
  no_log: true

- name: Show what would change
  sparkfleet.vllm.serve_diff:
    compared: "{{ compared }}"
    name: sparkfleet-vllm
"""

RETURN = r"""
before:
  description: What is there and not wanted, one line a thing.
  type: list
  elements: str
  returned: success
  sample: ["argument --kv-cache-dtype fp8", "argument --speculative-config.num_speculative_tokens 1"]
after:
  description: What is wanted and not there.
  type: list
  elements: str
  returned: success
  sample: ["argument --kv-cache-dtype auto", "argument --speculative-config.num_speculative_tokens 2"]
"""
