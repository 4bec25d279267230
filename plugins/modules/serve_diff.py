#!/usr/bin/python
# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: serve_diff
short_description: Show what would change in a container, one thing a line
version_added: "0.1.0"
author:
  - The sparkfleet.vllm authors (@sparkfleet)
description:
  - Takes the result of a M(community.docker.docker_container) task, whose own diff shows whole options, and shows only the
    differences, one a line. These are serve arguments, keys of JSON values, variables, mounts, the image, ports and repaired patch
    files.
  - Hides values of variables with secret names, also in the result.
  - Runs on the controller, and connects to nothing.
options:
  compared:
    description:
      - Result of the task. The task needs C(diff=true) to return a diff, and C(no_log=true) to hide the original.
    type: dict
    required: true
  container:
    description:
      - The wanted container, in the option names of that module. If no container exists, the diff shows its image, arguments,
        environment and mounts; without this option, only that there will be one.
    type: dict
  name:
    description: Name of the container in the diff.
    type: str
    default: container
extends_documentation_fragment:
  - sparkfleet.vllm.internal
attributes:
  check_mode:
    description: Only shows.
    support: full
  diff_mode:
    description: Shows the given differences.
    support: full
  idempotent:
    description: Changes nothing. RV(ignore:changed) says whether there is a difference, because Ansible shows no diff without it.
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
  description: What exists but is not wanted, one thing a line.
  type: list
  elements: str
  returned: success
  sample: ["argument --kv-cache-dtype fp8", "argument --speculative-config.num_speculative_tokens 1"]
after:
  description: What is wanted but missing.
  type: list
  elements: str
  returned: success
  sample: ["argument --kv-cache-dtype auto", "argument --speculative-config.num_speculative_tokens 2"]
"""
