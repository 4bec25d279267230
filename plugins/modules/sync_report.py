#!/usr/bin/python
# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: sync_report
short_description: Show what a sync of the models did on each host
version_added: "0.1.0"
author:
  - The sparkfleet.vllm authors (@sparkfleet)
description:
  - One row for each host with its state, bytes from the Hub, bytes from other hosts by sender, bytes sent to others, seconds, rate,
    and what went wrong.
  - Runs once for all hosts of the play, including those that failed or did not answer, on the controller, and connects to
    nothing.
options:
  plan:
    description: The last plan of the role P(sparkfleet.vllm.model_sync#role).
    type: dict
    required: true
extends_documentation_fragment:
  - sparkfleet.vllm.internal
  - sparkfleet.vllm.attributes.looks
attributes:
  check_mode:
    description: Shows what would be fetched and received.
"""

EXAMPLES = r"""
- name: Show what came from where
  sparkfleet.vllm.sync_report:
    plan: "{{ __model_sync_plan }}"
"""

RETURN = r"""
rows:
  description: The table in numbers, one entry a host of the play.
  type: list
  elements: dict
  returned: always
  contains:
    host:
      description: Name in the inventory.
      type: str
      sample: spark-3
    state:
      description:
        - The result. V(present), V(fetched) from the Hub, V(received) from the fleet, V(repaired), V(FAILED) with a
          reason, V(did not answer), V(took no part), or in check mode what would.
      type: str
      sample: received
    hub_bytes:
      description: Bytes from the Hub.
      type: int
      sample: 0
    from:
      description: Bytes from other hosts, by host.
      type: dict
      sample: {spark-1: 14850000000, spark-2: 12150000000}
    to:
      description: Bytes to other hosts, by host.
      type: dict
      sample: {spark-4: 9000000000}
    seconds:
      description: Time it took.
      type: float
      sample: 87.4
    bytes_per_second:
      description: Both kinds of bytes over that time.
      type: int
      sample: 308924485
    remarks:
      description: What went wrong, also on a host that is complete now.
      type: list
      elements: str
      sample: []
    problem:
      description: Why the host is not complete, in full; empty if it is.
      type: str
      sample: ""
"""
