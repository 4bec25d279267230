#!/usr/bin/python
# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: drift_report
short_description: Show and write what differs from recipe and lock on every host of a play
version_added: "0.1.0"
author:
  - The sparkfleet.vllm authors (@sparkfleet)
description:
  - Combines the facts C(spark_drift) of all hosts, finds hosts whose versions differ from the rest of the fleet, shows
    a table, and writes C(drift.json), C(drift.html), and C(drift.prom) for a Prometheus.
  - Sets C(sparkfleet_drifted), a list of the hosts that drifted or could not be judged, like M(ansible.builtin.set_stats). A
    controller keeps it as an artifact of the job.
  - Runs once for all hosts of the play, on the controller, and connects to nothing. The report includes hosts that did not answer.
options:
  gateways:
    description: Further hosts of the report, those on which the role C(gateway) has looked.
    type: list
    elements: str
    default: []
  verify:
    description: How the models were compared, for the report.
    type: str
    choices: [stat, full]
    default: stat
extends_documentation_fragment:
  - sparkfleet.vllm.internal
  - sparkfleet.vllm.attributes.reports
"""

EXAMPLES = r"""
- name: Show and write the report
  sparkfleet.vllm.drift_report:
    directory: drift
  register: drift
"""

RETURN = r"""
report:
  description: Content of drift.json.
  type: dict
  returned: success
  sample: {version: 1, recipe: huihui-gemma4-mtp-n1, hosts: {spark-1: {verdict: clean}}}
files:
  description: The files.
  type: list
  elements: str
  returned: success
  sample: [/home/me/drift/drift.json, /home/me/drift/drift.html, /home/me/drift/drift.prom]
refused:
  description: Hosts with drift or that could not be judged, each with the reason.
  type: dict
  returned: success
  sample: {spark-3: "container: argument"}
"""
