#!/usr/bin/python
# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: prune_report
short_description: Show what prune removed and kept on every host as one table
version_added: "0.1.0"
author:
  - The sparkfleet.vllm authors (@sparkfleet)
description:
  - One row for each thing with its size, verdict and reason, and one with the total of each host, from the facts C(spark_pruned)
    and C(spark_failure).
  - Runs once for all hosts of the play, on the controller, and connects to nothing.
extends_documentation_fragment:
  - sparkfleet.vllm.internal
  - sparkfleet.vllm.attributes.looks
seealso:
  - module: sparkfleet.vllm.store_prune
"""

EXAMPLES = r"""
- name: Show what went and what stayed
  sparkfleet.vllm.prune_report:
"""

RETURN = r"""
rows:
  description: The table, one mapping of column to text per row.
  type: list
  elements: dict
  returned: always
  sample:
    - host: spark-1
      what: snapshot
      name: coolthor/Huihui-gemma-4-26B-A4B-it-abliterated-FP8-Dynamic@c4bbb7689dc1
      size: 27.01 GB
      verdict: removed
      why: nothing refers to it
"""
