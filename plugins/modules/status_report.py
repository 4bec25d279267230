#!/usr/bin/python
# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: status_report
short_description: Show and write the status of every host of a play
version_added: "0.1.0"
author:
  - The sparkfleet.vllm authors (@sparkfleet)
description:
  - Judges what the role C(status) saw on all hosts, shows a table, and writes C(status.json) and C(status.html).
  - Sets C(sparkfleet_unwell), a list of the hosts that are not well, like M(ansible.builtin.set_stats). A controller keeps it as an
    artifact of the job.
  - Runs once for all hosts of the play, on the controller, and connects to nothing. The report includes hosts that did not answer.
options:
  day:
    description: What M(sparkfleet.vllm.prometheus_day) returned.
    type: dict
    default: {}
  monitoring:
    description: Host whose Prometheus was asked. Empty for none.
    type: str
    default: ""
extends_documentation_fragment:
  - sparkfleet.vllm.internal
  - sparkfleet.vllm.attributes.reports
"""

EXAMPLES = r"""
- name: Show and write the status
  sparkfleet.vllm.status_report:
    directory: status
  run_once: true
"""

RETURN = r"""
report:
  description: Content of status.json.
  type: dict
  returned: success
  sample: {version: 1, fleet: {hosts: 1}, hosts: {spark-1: {verdict: well}}}
files:
  description: The files.
  type: list
  elements: str
  returned: success
  sample: [/home/me/status/status.json, /home/me/status/status.html]
refused:
  description: Hosts that could not be looked at, each with the reason.
  type: dict
  returned: success
  sample: {spark-3: the host did not answer}
"""
