#!/usr/bin/python
# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: spark_status
version_added: "0.1.0"
author:
  - The sparkfleet.vllm authors (@sparkfleet)
short_description: Look at a Spark as it is now
description:
  - Looks at the record of what passed the gate, the counters of the server, the last look of the watchdog, the lock of a run, memory and
    GPU, in one execution. Generates no token.
  - A part that cannot be read is null, and C(problems) has the reason. The module fails only without its libraries.
options:
  state_dir:
    description: Directory of C(state.json).
    type: path
    default: /var/lib/sparkfleet
  interval:
    description: Seconds between the two looks at the counters. The rate of tokens is that of this time.
    type: float
    default: 2.0
extends_documentation_fragment:
  - sparkfleet.vllm.internal
  - sparkfleet.vllm.attributes.looks
requirements:
  - requests and prometheus_client (Python packages) on the host
"""

EXAMPLES = r"""
- name: Look at the Spark
  sparkfleet.vllm.spark_status:
  vars:
    ansible_python_interpreter: /opt/sparkfleet/venv/bin/python
"""

RETURN = r"""
look:
  description: The Spark, as C(docs/status.md) has it under C(now).
  type: dict
  returned: success
  sample:
    at: 1796083200
    server: {running: 3, waiting: 0, tokens_per_second: 61.5, acceptance_rate: 0.71, drafts: 4711}
    watchdog: {verdict: well, mode: observe}
    problems: {}
"""

from pathlib import Path

from ansible.module_utils.basic import missing_required_lib

from ..module_utils._common.basic import AnsibleModule
from ..module_utils._status import look
from ..module_utils._vllm import client, metrics

LONGEST = 60.0
"""Seconds of the interval at most."""


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "state_dir": {"type": "path", "default": "/var/lib/sparkfleet"},
            "interval": {"type": "float", "default": 2.0},
        },
        supports_check_mode=True,
    )
    for library, error in (
        ("requests", client.REQUESTS_IMPORT_ERROR),
        ("prometheus_client", metrics.PROMETHEUS_IMPORT_ERROR),
    ):
        if error:
            module.fail_json(missing_required_lib(library), exception=error)
    interval = module.params["interval"]
    if not 0 < interval <= LONGEST:
        module.fail_json(
            f"interval: expected more than 0 and at most {LONGEST:g} seconds, seen {interval:g}; do: set status_interval"
        )
    seen = look.look(Path(module.params["state_dir"]), Path("/proc"), interval)
    module.exit_json(changed=False, look=seen)


if __name__ == "__main__":
    main()
