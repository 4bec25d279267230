#!/usr/bin/python
# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: prometheus_day
version_added: "0.1.0"
author:
  - The sparkfleet.vllm authors (@sparkfleet)
short_description: Read the last day of a fleet from the Prometheus of its monitoring host
description:
  - Runs on the monitoring host and asks the Prometheus there for a fixed list of recorded series, and for the alerts that fire.
  - Each answer is limited in bytes and in time, and its shape is checked.
options:
  address:
    description: Address and port of Prometheus.
    type: str
    default: 127.0.0.1:9090
  hosts:
    description: The hosts to read. Others are left out.
    type: list
    elements: str
    required: true
extends_documentation_fragment:
  - sparkfleet.vllm.internal
  - sparkfleet.vllm.attributes.looks
"""

EXAMPLES = r"""
- name: Read the last day
  sparkfleet.vllm.prometheus_day:
    hosts: [spark-1, spark-2]
  delegate_to: watch-1
"""

RETURN = r"""
day:
  description: The day, as C(docs/status.md) has it under C(day).
  type: dict
  returned: success
  sample:
    start: 1795996800
    step: 600
    hosts: {spark-1: {tokens_per_second: [52.6, 51.9, null]}}
    alerts: [{name: SparkQueueLong, severity: warning, host: spark-1}]
"""

import time

from ..module_utils._common.basic import AnsibleModule
from ..module_utils._status import day


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "address": {"type": "str", "default": "127.0.0.1:9090"},
            "hosts": {"type": "list", "elements": "str", "required": True},
        },
        supports_check_mode=True,
    )
    try:
        found = day.day(module.params["address"], module.params["hosts"], time.time())
    except day.DayError as error:
        module.fail_json(f"{error}; do: see journalctl -u prometheus on this host, or run monitoring.yml")
    module.exit_json(changed=False, day=found)


if __name__ == "__main__":
    main()
