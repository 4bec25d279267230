#!/usr/bin/python
# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: fleet_report
short_description: Show the fleet of a play as one table
version_added: "0.1.0"
author:
  - The sparkfleet.vllm authors (@sparkfleet)
description:
  - One row a host, from the facts C(recipe_lock), C(spark_gate) and C(spark_failure); image digest, body and draft commit,
    patch MD5, drafts, share accepted at position 0, decode tokens per second, verdict.
  - Sets C(sparkfleet_passed) and C(sparkfleet_failed), lists of hosts, like M(ansible.builtin.set_stats). A controller keeps them as
    artifacts of the job. A host that the run did not reach has not passed.
  - Runs once for all hosts of the play, on the controller, and connects to nothing.
extends_documentation_fragment:
  - sparkfleet.vllm.internal
  - sparkfleet.vllm.attributes.looks
"""

EXAMPLES = r"""
- name: Show the fleet
  sparkfleet.vllm.fleet_report:
"""

RETURN = r"""
rows:
  description: The table, one mapping of column to text per host.
  type: list
  elements: dict
  returned: always
  sample:
    - host: spark-1
      drafts: "236"
      accepted at 0: 69.1%
      verdict: pass
"""
