#!/usr/bin/python
# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: spec_decode_bench
short_description: Measure what a running vLLM server makes of fixed chat prompts, with or without speculation
version_added: "0.1.0"
author: The sparkfleet.vllm authors (@sparkfleet)
description:
  - Waits for the server to be ready, then sends fixed chat prompts of several kinds, at one concurrency after the other, and
    returns tokens per second, time to first token, the share of drafts accepted at each position and the use of the KV cache.
  - Every server is asked the same in the same order, so that measurements of one host compare. Nothing of a prompt comes from the
    prefix cache, so it does not matter what was asked before.
  - Tokens are taken from the usage that the server reports. A chunk of a stream is an engine step, which holds several
    tokens under speculation, so chunks are never counted.
  - The counters are those of the whole server. The prompts of one kind go together, and what the counters gain meanwhile is theirs.
    Tokens that were for somebody else are seen and told.
  - A measurement is of one life of one process. A restart or a replacement meanwhile is a failure, as is a server
    that speculates otherwise than O(speculation) says.
  - The module changes nothing, but it keeps the server busy.
options:
  container:
    description:
      - Name of the container that runs vLLM. The measurement is then bound to one life of it, and a failure is explained from its log.
      - Without it, the measurement is bound to the start time that the server's own process tells.
    type: str
  kinds:
    description: Kinds of prompts, in the order in which they are asked.
    type: list
    elements: str
    choices: [code, prose, structured, chinese]
    default: [code, prose, structured, chinese]
  warmup:
    description: Prompts of each stream that are sent and not counted, before each load.
    type: int
    default: 1
  repeats:
    description: Prompts of each kind in each stream. A load has O(repeats) times O(concurrency) times the number of kinds.
    type: int
    default: 3
  concurrency:
    description: Loads to measure, each a number of streams at a time, 1 to 64.
    type: list
    elements: int
    default: [1]
  idle_timeout:
    description:
      - Seconds without a new line in the log of a server that is not ready yet, after which it counts as stuck.
      - It does not count without O(container), since then there is no log.
  measure_timeout:
    description: Seconds in which the last requests must be sent.
    type: int
    default: 3600
extends_documentation_fragment:
  - sparkfleet.vllm.server
requirements:
  - docker (Python package), with O(container)
attributes:
  check_mode:
    description: Does nothing in check mode, since a measurement keeps the server busy.
    support: none
  diff_mode:
    description: Nothing to compare.
    support: none
  idempotent:
    description: Changes nothing.
    support: full
notes:
  - While it waits and measures it prints a line per step.
seealso:
  - module: sparkfleet.vllm.spec_decode_assert
    description: Whether a server speculates as it should. It asks less, and passes or fails.
"""

EXAMPLES = r"""
- name: Measure what serves
  sparkfleet.vllm.spec_decode_bench:
    container: sparkfleet-vllm
    served_model: huihui-gemma4
    speculation: {method: mtp, num_speculative_tokens: 1}
    concurrency: [1, 4]
  register: measured
  vars:
    ansible_python_interpreter: /opt/sparkfleet/venv/bin/python

- name: Measure a server that is no container of this host
  sparkfleet.vllm.spec_decode_bench:
    base_url: http://127.0.0.1:8000
    served_model: huihui-gemma4
    kinds: [code]
  vars:
    ansible_python_interpreter: /opt/sparkfleet/venv/bin/python
"""

RETURN = r"""
measurement:
  description: What was measured.
  type: dict
  returned: success
  contains:
    served_model:
      description: The name that is served.
      type: str
    version:
      description: Version of vLLM, as C(/version) says it. Empty when it does not.
      type: str
    container:
      description: The one life of the one container that was measured, with C(id), C(started_at) and C(image). Null without one.
      type: dict
    speculation:
      description: As it was given. Null without speculation.
      type: dict
    measured_at:
      description: When it began, RFC 3339, UTC.
      type: str
    plan:
      description: What was asked, with C(kinds), C(max_tokens), C(warmup), C(repeats) and C(concurrency).
      type: dict
    loads:
      description: One for each concurrency, in the order asked.
      type: list
      elements: dict
      contains:
        concurrency:
          description: Streams at a time.
          type: int
        requests:
          description: Prompts that were measured.
          type: int
        tokens:
          description: Tokens of their answers, from usage.
          type: int
        seconds:
          description: Time in which there was a request under way, from each kind's first request to its last token.
          type: float
        tokens_per_second:
          description: Of the whole load, RV(ignore:tokens) over RV(ignore:seconds).
          type: float
        decode_tokens_per_second:
          description:
            - Of each stream, (tokens - 1) / (time of the last token - time of the first), as C(median), C(mean), C(sd), C(minimum),
              C(maximum) and C(samples), in the order of the prompts.
          type: dict
        time_to_first_token:
          description: Seconds from sending a request to the first text of its answer, in the same form.
          type: dict
        drafts:
          description: Drafts made. Like all counts of drafts and tokens here, of the whole server. 0 without speculation.
          type: int
        draft_tokens:
          description: Tokens drafted.
          type: int
        accepted:
          description: Drafted tokens accepted.
          type: int
        accepted_per_position:
          description: Drafted tokens accepted at position 0, 1 and so on.
          type: list
          elements: int
        rates:
          description: Share of drafts accepted at each position, from 0 to 1.
          type: list
          elements: float
        standard_errors:
          description: Of each rate, in the same unit, from the number of drafts.
          type: list
          elements: float
        mean_acceptance_length:
          description: Tokens an engine step yields on average, 1 plus accepted tokens per draft.
          type: float
        kv_cache_usage:
          description: Highest share of the KV cache seen in use, from 0 to 1. Null when the server does not say.
          type: float
        foreign_share:
          description: Share of the tokens generated meanwhile that were for somebody else, from 0 to 1.
          type: float
        kinds:
          description: For each kind C(decode_tokens_per_second) (the median), C(drafts) and C(rates).
          type: dict
  sample:
    served_model: huihui-gemma4
    version: 0.32.0
    container:
      id: 4f1c3c0d1f0e6a0e4b9a1df1d0f7c1b6c6d2e1f3a5b7c9d0e2f4a6b8c0d1e2f3
      started_at: "2026-11-23T21:16:35.123456789Z"
      image: vllm/vllm-openai@sha256:0d1e2f3a4b5c6d7e8f900112233445566778899aabbccddeeff00112233445566
    speculation: {method: mtp, num_speculative_tokens: 1}
    measured_at: "2026-11-23T21:20:00Z"
    plan: {kinds: [code, prose, structured, chinese], max_tokens: 256, warmup: 1, repeats: 3, concurrency: [1]}
container:
  description: The one life of the one container that was measured. Null without one.
  type: dict
  returned: when there is such a container
served_model:
  description: The name that is served.
  type: str
  returned: once it is
ready_seconds:
  description: Seconds that this run waited for the server. Near 0 for one that was up already.
  type: float
  returned: once ready
ready_at:
  description: When it was seen to be ready, Unix time in seconds by the host's clock.
  type: float
  returned: once ready
diagnosis:
  description:
    - Why there is no measurement. The codes are those of M(sparkfleet.vllm.spec_decode_assert) as far as they apply, and
      V(measurement_timeout) and V(not_streamed).
  type: str
  returned: failure
  sample: foreign_traffic
log_tail:
  description: Last lines of the server's log, secrets masked.
  type: list
  elements: str
  returned: when the server died or was not ready in time
"""

from functools import partial
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._gate import bench
from ..module_utils._gate import module as gate_module
from ..module_utils._gate.diagnosis import Wanted
from ..module_utils._run.detached import in_background
from ..module_utils._run.lock_file import hold
from ..module_utils._vllm import prompts

ARGUMENT_SPEC: dict[str, Any] = gate_module.ARGUMENT_SPEC | {
    "container": {"type": "str"},
    "kinds": {
        "type": "list",
        "elements": "str",
        "choices": list(prompts.KINDS),
        "default": list(prompts.KINDS),
    },
    "warmup": {"type": "int", "default": 1},
    "repeats": {"type": "int", "default": 3},
    "concurrency": {"type": "list", "elements": "int", "default": [1]},
    "measure_timeout": {"type": "int", "default": 3600},
}
_BOUNDS: dict[str, tuple[float, float]] = gate_module.BOUNDS | {
    "warmup": (0, 100),
    "repeats": (1, 1000),
}


def invalid(params: dict[str, Any]) -> str | None:
    """What the argument spec cannot say of the options."""
    if problem := gate_module.invalid(params, _BOUNDS):
        return problem
    for name in ("kinds", "concurrency"):
        if not params[name]:
            return f"{name}: expected at least one, got none"
        if len(set(params[name])) < len(params[name]):
            return f"{name}: expected each one once, got {params[name]}"
    problems = (
        gate_module.out_of_bounds(f"concurrency[{index}]", streams, gate_module.CONCURRENCY)
        for index, streams in enumerate(params["concurrency"])
    )
    return next((problem for problem in problems if problem), None)


def wanted(params: dict[str, Any]) -> Wanted:
    # Without a container there is no log, so nothing that could show whether it is getting on.
    idle = params["idle_timeout"] if params["container"] else params["ready_timeout"]
    return Wanted(
        container=params["container"] or "",
        served_model=params["served_model"],
        speculation=gate_module.speculation(params),
        minimum_drafts=1,
        idle_timeout=idle,
        **{name: params[name] for name in ("ready_timeout", "measure_timeout", "foreign_traffic")},
    )


def plan(params: dict[str, Any]) -> bench.Plan:
    return bench.Plan(
        kinds=tuple(params["kinds"]),
        concurrency=tuple(params["concurrency"]),
        **{name: params[name] for name in ("max_tokens", "warmup", "repeats")},
    )


def main() -> None:
    in_background()
    module = AnsibleModule(ARGUMENT_SPEC)
    hold(module)
    gate_module.need_libraries(module)
    params = module.params
    problem = invalid(params)
    if problem:
        module.fail_json(problem)
    gate_module.observe(module, wanted(params), partial(bench.Bench, plan=plan(params)))


if __name__ == "__main__":
    main()
