#!/usr/bin/python
# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: gateway_outage
version_added: "0.1.0"
author:
  - The sparkfleet.vllm authors (@sparkfleet)
short_description: Refuse a change that would leave a model without a server
description:
  - Runs on a gateway before a run takes its first server away.
  - Fails if a batch has all usable servers of a pool. Each batch is taken away at once, and let in before the next one.
options:
  batches:
    description: The Sparks, batch by batch.
    type: list
    elements: dict
    required: true
    suboptions:
      taken:
        description: Names of those that are taken away.
        type: list
        elements: str
        default: []
      admitted:
        description: Names of those that are let in when the batch has passed. Some of them may have been outside before.
        type: list
        elements: str
        default: []
  allow_outage:
    description: Only look, and refuse nothing.
    type: bool
    default: false
extends_documentation_fragment:
  - sparkfleet.vllm.gateway
  - sparkfleet.vllm.internal
attributes:
  check_mode:
    description: The module only looks.
    support: full
  diff_mode:
    description: The module changes nothing.
    support: none
  idempotent:
    description: The module changes nothing.
    support: full
"""

EXAMPLES = r"""
- name: Check that every model stays served
  sparkfleet.vllm.gateway_outage:
    batches:
      - {taken: [spark-1], admitted: [spark-1]}
      - {taken: [spark-2, spark-3], admitted: [spark-2, spark-3]}
  become: true
"""

RETURN = r"""
outages:
  description: The pools that would have no server, with the Sparks of the first batch that does it.
  returned: always
  type: dict
  sample: {huihui-gemma4: [spark-2, spark-3]}
"""

from functools import partial
from typing import Any

from ..module_utils._common.basic import AnsibleModule
from ..module_utils._gateway import drain
from ..module_utils._gateway.module import ARGUMENT_SPEC, ask
from ..module_utils._gateway.states import States
from ..module_utils._run.lock_file import hold


def run(module: AnsibleModule, states: States) -> dict[str, Any]:
    batches = [(batch["taken"], batch["admitted"]) for batch in module.params["batches"]]
    found = drain.outages_by_batch(states.haproxy.servers(), batches)
    if found and not module.params["allow_outage"]:
        seen = "; ".join(f"{pool} has only {', '.join(names)}" for pool, names in found.items())
        module.fail_json(
            msg=f"expected a usable server in every pool while others are changed, seen: {seen}, to be taken away at once; do: "
            "bring others back first, change fewer at once (--limit, spark_rollout_batches), or allow the outage (spark_allow_outage). "
            "Nothing was changed",
            outages=found,
        )
    return {"changed": False, "outages": found}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "batches": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "taken": {"type": "list", "elements": "str", "default": []},
                    "admitted": {"type": "list", "elements": "str", "default": []},
                },
            },
            "allow_outage": {"type": "bool", "default": False},
            **ARGUMENT_SPEC,
        },
        supports_check_mode=True,
    )
    hold(module)
    ask(module, partial(run, module), {"outages": {}})


if __name__ == "__main__":
    main()
