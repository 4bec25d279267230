#!/usr/bin/python
# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: serve_idle
version_added: "0.1.0"
author:
  - The sparkfleet.vllm authors (@sparkfleet)
short_description: Wait until a vLLM server runs and queues no request
description:
  - Follows C(gateway_server), which sends the server nothing new. Requests of clients that go around the gateways count, too.
  - Returns when the time is over, and warns of the requests that a stop would cut.
  - A server that does not answer has nothing to wait for.
options:
  base_url:
    description: Address of the server.
    type: str
    default: http://127.0.0.1:8000
  timeout:
    description: Seconds to wait.
    type: int
    default: 600
extends_documentation_fragment:
  - sparkfleet.vllm.internal
attributes:
  check_mode:
    description: Looks once.
    support: full
  diff_mode:
    description: The module changes nothing.
    support: none
  idempotent:
    description: The module changes nothing.
    support: full
"""

EXAMPLES = r"""
- name: Wait until the server is idle
  sparkfleet.vllm.serve_idle:
    timeout: 600
"""

RETURN = r"""
requests:
  description: Requests that it runs or queues at the end.
  returned: success
  type: int
  sample: 0
waited:
  description: Seconds for which the module waited.
  returned: success
  type: float
  sample: 31.0
"""

import time
from collections.abc import Callable

from ansible.module_utils.basic import missing_required_lib

from ..module_utils._common.basic import AnsibleModule
from ..module_utils._common.progress import Progress
from ..module_utils._run.detached import in_background
from ..module_utils._vllm import client, metrics

PAUSE = 1.0
"""Seconds between two looks."""


def requests_of(server: client.Server) -> int:
    """What it runs and queues. None of a server that is gone, or that answers with something else than counters."""
    try:
        return metrics.parse(server.metrics()).active
    except (client.ServerError, metrics.MetricsError):
        return 0


def wait(look: Callable[[], int], timeout: float, say: Callable[[str], None]) -> tuple[int, float]:
    """The requests that are left, and the seconds waited."""
    began = time.monotonic()
    while True:
        left, waited = look(), time.monotonic() - began
        if not left or waited >= timeout:
            return left, waited
        say(f"{left} requests to end, for {timeout - waited:.0f} s at most")
        time.sleep(PAUSE)


def main() -> None:
    in_background()
    module = AnsibleModule(
        argument_spec={
            "base_url": {"type": "str", "default": "http://127.0.0.1:8000"},
            "timeout": {"type": "int", "default": 600},
        },
        supports_check_mode=True,
    )
    for library, error in (
        ("requests", client.REQUESTS_IMPORT_ERROR),
        ("prometheus_client", metrics.PROMETHEUS_IMPORT_ERROR),
    ):
        if error:
            module.fail_json(missing_required_lib(library), exception=error)
    server, progress = client.Server(module.params["base_url"]), Progress.from_environment()
    timeout = 0 if module.check_mode else module.params["timeout"]
    left, waited = wait(lambda: requests_of(server), timeout, lambda text: progress.say(text, every=10))
    if left and not module.check_mode:
        module.warn(
            f"{left} requests had not ended after {waited:.0f} s; the stop of the server cuts what is left of them"
        )
    module.exit_json(changed=False, requests=left, waited=round(waited, 1))


if __name__ == "__main__":
    main()
