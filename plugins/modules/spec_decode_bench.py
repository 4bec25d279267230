#!/usr/bin/python
# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: spec_decode_bench
short_description: Measure a running vLLM server with fixed chat prompts, with or without speculation
version_added: "0.1.0"
author: The sparkfleet.vllm authors (@sparkfleet)
description:
  - Waits for the server to be ready, then sends fixed chat prompts of several kinds, at one concurrency after the other, and
    returns tokens per second, time to first token, the share of drafts accepted at each position and the use of the KV cache.
  - Every server gets the same prompts in the same order, so that measurements of one host compare. The prefix cache never answers a
    prompt, so earlier requests do not matter.
  - Tokens come from the usage that the server reports. A chunk of a stream is an engine step, which holds several tokens under
    speculation, so chunks are never counted.
  - A rate has two witnesses, the clock of this module and the server's own histogram of its decode times. If they contradict each
    other, or if an answer came in one piece, the rate is not measurable, and the measurement holds none.
  - The counters belong to the whole server. Prompts of one kind run together, and the counters' gain belongs to that kind. The module
    reports tokens that were for others.
  - A measurement covers one life of one process. A restart or a replacement is a failure, and so is a server that does not
    speculate as in O(speculation).
  - The module changes nothing, but it keeps the server busy.
options:
  container:
    description:
      - Name of the container that runs vLLM. The measurement then covers one life of it, and its log explains a failure.
      - Without it, the measurement uses the start time that the server's process reports.
    type: str
  kinds:
    description: Kinds of prompts, in their order.
    type: list
    elements: str
    choices: [code, prose, structured, chinese]
    default: [code, prose, structured, chinese]
  warmup:
    description: Uncounted prompts of each stream before each load.
    type: int
    default: 1
  repeats:
    description: Prompts of each kind in each stream. A load has O(repeats) times O(concurrency) times the number of kinds.
    type: int
    default: 3
  concurrency:
    description: Loads to measure, each a number of parallel streams, 1 to 64.
    type: list
    elements: int
    default: [1]
  idle_timeout:
    description:
      - Seconds without a new line in the log of a server that is not ready yet, after which it counts as stuck.
      - It has no effect without O(container), because then there is no log.
  measure_timeout:
    description: Seconds until the last request must be sent.
    type: int
    default: 3600
extends_documentation_fragment:
  - sparkfleet.vllm.server
requirements:
  - docker (Python package), with O(container)
attributes:
  check_mode:
    description: Does nothing in check mode, because a measurement keeps the server busy.
    support: none
  diff_mode:
    description: Nothing to compare.
    support: none
  idempotent:
    description: Changes nothing.
    support: full
notes:
  - It prints a line per step while it waits and measures.
seealso:
  - module: sparkfleet.vllm.spec_decode_assert
    description: Check whether a server speculates correctly. It sends fewer requests, and passes or fails.
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
      description: Version of vLLM from C(/version). Empty if unknown.
      type: str
    container:
      description: The life of the measured container, with C(id), C(started_at) and C(image). Null without one.
      type: dict
    speculation:
      description: As it was given. Null without speculation.
      type: dict
    measured_at:
      description: When it began, RFC 3339, UTC.
      type: str
    plan:
      description: The plan, with C(kinds), C(max_tokens), C(warmup), C(repeats) and C(concurrency).
      type: dict
    loads:
      description: One for each concurrency, in the order asked.
      type: list
      elements: dict
      contains:
        concurrency:
          description: Number of parallel streams.
          type: int
        requests:
          description: Prompts that were measured.
          type: int
        tokens:
          description: Tokens of their answers, from usage.
          type: int
        seconds:
          description: Time with at least one request in progress, from each kind's first request to its last token.
          type: float
        tokens_per_second:
          description: Of the whole load, RV(ignore:tokens) over RV(ignore:seconds). Null if RV(ignore:rate) is not measurable.
          type: float
        rate:
          description:
            - Tokens per second of one stream after its first token, all prompts together, by two witnesses. It is measurable if that of
              each kind is.
          type: dict
          contains:
            tokens_per_second:
              description: The server's rate, else the client's. Null if it is not measurable.
              type: float
            client:
              description: By the client's clock, from the first to the last piece of each stream.
              type: float
            server:
              description: By the server's histogram of its decode times. Null if it has none, or if it holds requests of others.
              type: float
            witnesses:
              description: V(2), or V(1) if the client's clock stands alone.
              type: int
            because:
              description: Why the rate is not measurable (expected, seen, do next), or why there is one witness. Empty otherwise.
              type: str
        decode_tokens_per_second:
          description:
            - Of each stream, (tokens - 1) / (time of the last token - time of the first), as C(median), C(mean), C(sd), C(minimum),
              C(maximum) and C(samples), in the order of the prompts. Null if RV(ignore:rate) is not measurable.
          type: dict
        time_to_first_token:
          description: Seconds from sending a request to the first text of its answer, in the same form.
          type: dict
        drafts:
          description: Number of drafts. Like all counts of drafts and tokens here, it is of the whole server. 0 without speculation.
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
          description: Mean tokens per engine step, 1 plus accepted tokens per draft.
          type: float
        kv_cache_usage:
          description: Highest observed share of the KV cache in use, from 0 to 1. Null if the server does not report it.
          type: float
        foreign_share:
          description: Share of the tokens generated during the measurement that were for others, from 0 to 1.
          type: float
        kinds:
          description: For each kind C(rate) (as of the load), C(drafts) and C(rates).
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
  description: The life of the measured container. Null without one.
  type: dict
  returned: when there is such a container
served_model:
  description: The name that is served.
  type: str
  returned: once it is
ready_seconds:
  description: Seconds that this run waited for the server. Near 0 for a server that was already up.
  type: float
  returned: once ready
ready_at:
  description: When it was ready, Unix time in seconds by the host's clock.
  type: float
  returned: once ready
diagnosis:
  description:
    - Why there is no measurement. The codes are those of M(sparkfleet.vllm.spec_decode_assert) as far as they apply, and
      V(measurement_timeout).
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

from ..module_utils._common.basic import AnsibleModule
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
    """The first problem of the options that an argument spec cannot find."""
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
    # Without a container there is no log that could show progress.
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
