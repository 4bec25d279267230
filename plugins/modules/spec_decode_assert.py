#!/usr/bin/python
# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: spec_decode_assert
short_description: Assert that a vLLM server speculates, by measuring the rate of accepted drafts
version_added: "0.1.0"
author: The sparkfleet.vllm authors (@sparkfleet)
description:
  - Waits for a vLLM container to be ready, then checks the patched files as the running process sees them, the served model, one
    chat completion, and the share of accepted drafts over enough drafts to be meaningful.
  - With a wrong patch or a wrong draft, vLLM starts, is healthy, answers correctly, and is slower than without speculation. Only the
    rate shows it; a counter that merely increases does not.
  - All checks refer to one life of one container, its id and its start. A restart or a replacement during the check is a separate
    failure.
  - A failure says what was expected, what was seen and what to do next, and carries a stable C(diagnosis).
  - The module changes nothing, but its chat requests use the server.
      - API key of the server, when it has one.
      - It is masked wherever the log of the container shows it, as are the values of the container's environment
        variables whose names contain C(KEY), C(TOKEN), C(SECRET) or C(PASSWORD).
options:
  container:
    description: Name of the container that runs vLLM.
    type: str
    required: true
  api_key:
    description:
      - API key of the server, when it has one.
      - It is masked wherever the log of the container shows it, as are the values of the container's environment
        variables whose names contain C(KEY), C(TOKEN), C(SECRET) or C(PASSWORD).
  image:
    description:
      - Image that the container must have been started from, by digest. The digests are compared, not the names.
      - Default, any.
    type: str
    default: ""
  headless:
    description:
      - The server is a worker of a unit, which answers nobody. Container, image and files are checked, and nothing is asked or measured.
      - What the unit as a whole does is measured on its head.
    type: bool
    default: false
  files:
    description:
      - Files that must have exactly this content as the process sees them, read through its root directory.
      - A file that changed after the process started is a failure, too, because the process may have loaded another one.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: Absolute path in the container.
        type: str
        required: true
      md5:
        description: The locked md5, 32 hexadecimal digits.
        type: str
      sha256:
        description: The locked sha256, 64 hexadecimal digits.
        type: str
      host_path:
        description:
          - Absolute path of the file on the host that is mounted there.
          - Leave it out for a file that the image itself contains.
        type: str
  speculation:
    description:
      - The server's speculative config. C(method) and C(num_speculative_tokens) are compared with vLLM's report; other keys are
        ignored.
      - Leave it out for a recipe without speculation. The server must then publish no counters of it, and no
        drafts are measured.
  acceptance_floor:
    description:
      - Lowest share of drafts accepted at position 0 that passes, from 0 to 1.
      - Default, 0.4 with O(speculation), else 0, which is then the only value.
    type: float
  minimum_drafts:
    description:
      - Drafts needed to judge. The standard error is 3.3 points at 200 drafts and a rate of 0.7.
      - Prompts run in whole rounds of four kinds, because acceptance differs between code, prose, structured text and Chinese. So
        usually more drafts are made.
      - While the rate is within two standard errors of the floor, the measurement continues, up to four times this number. Then the
        estimate decides.
      - Default, 200 with O(speculation), else 0, which is then the only value.
    type: int
  concurrency:
    description:
      - Parallel requests, 1 to 64.
      - The decode rate is that of one stream. It is lower with several in parallel, as it is for users.
    type: int
    default: 1
  measure_timeout:
    description: Seconds to make the drafts.
    type: int
    default: 900
  verdict_path:
    description:
      - File that is to tell the verdict to whoever watches the host. It is written after each measurement, whether the server passed or
        not, if its directory is there. It is no change of the host. Check mode leaves it as it is.
    type: path
  recipe:
    description: Name of the recipe, for that file.
    type: str
    default: ""
  foreign_traffic:
    description:
      - What to do if more than 5 percent of the tokens generated during the measurement were for others. The counters belong to the
        whole server and cannot tell requests apart.
      - V(warn) judges the mixed measurement.
requirements:
  - docker (Python package)
extends_documentation_fragment:
  - sparkfleet.vllm.attributes.looks
  - sparkfleet.vllm.server
notes:
  - Run it as root, so that files are read as the process sees them. Otherwise they are read through the engine, and their age is
    unknown.
  - It prints a line per step while it waits and measures, such as the weights that vLLM has loaded.
seealso:
  - name: vLLM, speculative decoding
    description: How vLLM drafts, and what it counts.
    link: https://docs.vllm.ai/en/latest/features/spec_decode/
"""

EXAMPLES = r"""
- name: Hold the server against the gate
  sparkfleet.vllm.spec_decode_assert:
    container: vllm
    served_model: huihui-gemma4
    files:
      - path: /usr/local/lib/python3.12/dist-packages/vllm/model_executor/models/gemma4_mtp.py
        md5: "{{ recipe_lock.patches[0].md5 }}"
        sha256: "{{ recipe_lock.patches[0].sha256 }}"
        host_path: /srv/sparkfleet/patches/{{ recipe_lock.patches[0].sha256 }}/gemma4_mtp.py
    speculation:
      method: mtp
      num_speculative_tokens: 1
    acceptance_floor: 0.40
    minimum_drafts: 200
  vars:
    ansible_python_interpreter: /opt/sparkfleet/venv/bin/python

- name: Look at a server that is in use
  sparkfleet.vllm.spec_decode_assert:
    container: vllm
    served_model: huihui-gemma4
    speculation: {method: mtp, num_speculative_tokens: 1}
    foreign_traffic: warn
  vars:
    ansible_python_interpreter: /opt/sparkfleet/venv/bin/python
"""

RETURN = r"""
verdict:
  description: V(pass), or V(fail) in a failed result.
  type: str
  returned: always
  sample: pass
diagnosis:
  description:
    - V(ok), or why the server fails. All keys below that are known at that point are returned with it.
    - V(container_missing), V(container_not_running), V(server_died), V(server_replaced), V(server_restarted),
      V(not_ready), V(patch_not_applied), V(file_newer_than_process), V(unauthorized), V(wrong_image),
      V(wrong_model), V(completion_failed), V(metrics_unreadable), V(speculation_absent), V(speculation_ignored),
      V(speculation_mismatch), V(speculation_unexpected), V(no_drafts), V(drafts_never_accepted),
      V(acceptance_below_floor), V(too_few_drafts), V(counters_reset), V(foreign_traffic), V(engine_unreachable).
  type: str
  returned: always
  sample: ok
container:
  description: The life of the container that was checked.
  type: dict
  returned: when there is such a container
  contains:
    id:
      description: Full id.
      type: str
    started_at:
      description: When it was started, RFC 3339.
      type: str
    image:
      description: Image as the container names it.
      type: str
  sample:
    id: 4f1c3c0d1f0e6a0e4b9a1df1d0f7c1b6c6d2e1f3a5b7c9d0e2f4a6b8c0d1e2f3
    started_at: "2026-11-23T21:16:35.123456789Z"
    image: vllm/vllm-openai@sha256:0d1e2f3a4b5c6d7e8f900112233445566778899aabbccddeeff00112233445566
files:
  description: Each checked file, with the result.
  type: list
  elements: dict
  returned: when there is such a container
  sample:
    - path: /usr/local/lib/python3.12/dist-packages/vllm/model_executor/models/gemma4_mtp.py
      md5: 9e107d9d372bb6826bd81d3542a419d6
      sha256: d7a8fbb307d7809469ca9abcb0082e4f8d5651e46d3cdb762d02d0bf37c9e592
      locked_md5: 9e107d9d372bb6826bd81d3542a419d6
      locked_sha256: d7a8fbb307d7809469ca9abcb0082e4f8d5651e46d3cdb762d02d0bf37c9e592
      host_path: /srv/sparkfleet/patches/d7a8fbb307d7809469ca9abcb0082e4f8d5651e46d3cdb762d02d0bf37c9e592/gemma4_mtp.py
      host_md5: 9e107d9d372bb6826bd81d3542a419d6
      mounted_from: /srv/sparkfleet/patches/d7a8fbb307d7809469ca9abcb0082e4f8d5651e46d3cdb762d02d0bf37c9e592/gemma4_mtp.py
      error:
      ok: true
ready_seconds:
  description: Seconds that this run waited for the server. Near 0 for a server that was already up.
  type: float
  returned: once ready
  sample: 63.2
ready_at:
  description: When it was ready, Unix time in seconds by the host's clock.
  type: float
  returned: once ready
  sample: 1764026195.1
passed_at:
  description: When it had passed, in the same form.
  type: float
  returned: when it passed
  sample: 1764026210.4
served_model:
  description: The name that is served.
  type: str
  returned: once it is
  sample: huihui-gemma4
network:
  description:
    - What the log says of the network between the ranks of a model that runs on several hosts.
    - C(used) are NCCL's words, C(IB) for RDMA and C(Socket) for TCP, or C(gloo). It is empty if the log does not say it, which it does with
      C(NCCL_DEBUG=INFO). C(nccl) is NCCL's version, or null. RDMA that is given and not used is a warning.
  type: dict
  returned: when the container gives NCCL RDMA devices, once ready
  sample: {used: [IB], nccl: 2.28.9}
drafts:
  description: Drafts during the measurement. Like all counts below, they are of the whole server.
  type: int
  returned: once measured
  sample: 604
draft_tokens:
  description: Tokens drafted.
  type: int
  returned: once measured
  sample: 604
accepted:
  description: Drafted tokens accepted.
  type: int
  returned: once measured
  sample: 417
accepted_per_position:
  description: Drafted tokens accepted at position 0, 1 and so on.
  type: list
  elements: int
  returned: once measured
  sample: [417]
acceptance_rate:
  description: Share of drafts accepted at position 0, from 0 to 1. The floor is on this.
  type: float
  returned: once measured
  sample: 0.6904
rates:
  description: Share of drafts accepted at each position, from 0 to 1.
  type: list
  elements: float
  returned: once measured
  sample: [0.6904]
mean_acceptance_length:
  description: Mean tokens per engine step, 1 plus accepted tokens per draft.
  type: float
  returned: once measured
  sample: 1.6904
standard_error:
  description: Of O(ignore:acceptance_rate), in the same unit, from the number of drafts.
  type: float
  returned: once measured
  sample: 0.0188
decode_tokens_per_second:
  description:
    - Tokens per second of one stream after its first token, all prompts together. Tokens come from the usage that the server reports.
    - Null if it is not measurable; RV(rate) says why. That is a warning and no failure.
  type: float
  returned: once measured
  sample: 52.6
rate:
  description:
    - The same with its two witnesses, the clock of this module and the server's own histogram. A rate is measurable if they agree within
      20 percent, and if each answer came in at least 10 pieces.
  type: dict
  returned: once measured
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
  sample: {tokens_per_second: 52.6, client: 52.4, server: 52.6, witnesses: 2, because: ""}
prompts:
  description: Chat prompts that were sent to measure.
  type: int
  returned: once measured
  sample: 4
foreign_share:
  description: Share of the tokens generated during the measurement that were for others, from 0 to 1.
  type: float
  returned: once measured
  sample: 0.0
log_tail:
  description: Last lines of the server's log, secrets masked.
  type: list
  elements: str
  returned: when the server died or was not ready in time
  sample: ["vllm serve: error: argument --speculative-config/-sc: Value {\"method\": cannot be converted"]
"""

import json
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..module_utils._common import files
from ..module_utils._common.basic import AnsibleModule
from ..module_utils._gate import gate
from ..module_utils._gate import module as gate_module
from ..module_utils._gate.diagnosis import Wanted, WantedFile
from ..module_utils._run.detached import in_background
from ..module_utils._run.lock_file import hold
from ..module_utils._serve import verdict

ARGUMENT_SPEC: dict[str, Any] = gate_module.ARGUMENT_SPEC | {
    "container": {"type": "str", "required": True},
    "image": {"type": "str", "default": ""},
    "headless": {"type": "bool", "default": False},
    "files": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "path": {"type": "str", "required": True},
            "md5": {"type": "str"},
            "sha256": {"type": "str"},
            "host_path": {"type": "str"},
        },
        "required_one_of": [("md5", "sha256")],
    },
    "acceptance_floor": {"type": "float"},
    "minimum_drafts": {"type": "int"},
    "concurrency": {"type": "int", "default": 1},
    "measure_timeout": {"type": "int", "default": 900},
    "verdict_path": {"type": "path"},
    "recipe": {"type": "str", "default": ""},
}

EXPECTED = {"acceptance_floor": 0.4, "minimum_drafts": 200}
"""Defaults with speculation. Without speculation nothing can be expected of it."""

_BOUNDS: dict[str, tuple[float, float]] = gate_module.BOUNDS | {
    "acceptance_floor": (0, 1),
    "minimum_drafts": (0, 1_000_000),
    "concurrency": gate_module.CONCURRENCY,
}


def invalid(params: dict[str, Any]) -> str | None:
    """The first problem of the options that an argument spec cannot find."""
    if problem := gate_module.invalid(params, _BOUNDS):
        return problem
    if not params["container"]:
        return "container: expected its name, got none"
    if params["headless"] and params["speculation"]:
        return (
            "speculation: expected none with headless, since a worker has no counters; measure it on the head"
        )
    if params["image"] and "@sha256:" not in params["image"]:
        return f"image: expected one by digest (name@sha256:…), got {params['image']!r}"
    if params["speculation"] and not params["minimum_drafts"]:
        return "minimum_drafts: expected at least 1 with a speculation to judge, got 0"
    for name in EXPECTED:
        if not params["speculation"] and params[name]:
            return f"{name}: expected 0 without a speculation to judge, got {params[name]}; give speculation, or expect nothing of it"
    for index, file in enumerate(params["files"]):
        for name, digits in (("md5", 32), ("sha256", 64)):
            if file[name] is not None and not re.fullmatch(rf"[0-9a-f]{{{digits}}}", file[name]):
                return f"files[{index}].{name}: expected {digits} hexadecimal digits, got {file[name]!r}"
        for name in ("path", "host_path"):
            if file[name] is not None and not file[name].startswith("/"):
                return f"files[{index}].{name}: expected an absolute path, got {file[name]!r}"
    return None


def wanted(params: dict[str, Any]) -> Wanted:
    names = ("container", "served_model", *_BOUNDS, "foreign_traffic", "image", "headless")
    return Wanted(
        files=tuple(WantedFile(**file) for file in params["files"]),
        speculation=gate_module.speculation(params),
        **{name: params[name] for name in names},
    )


def keep(module: AnsibleModule, found: Mapping[str, Any]) -> None:
    """Write what the gate said for whoever watches the host. The verdict stands even if this fails."""
    given = module.params["verdict_path"]
    if given is None or module.check_mode or not (path := Path(given)).parent.is_dir():
        return
    try:
        former = verdict.parse(path.read_bytes()[: verdict.LIMIT + 1]) if path.exists() else None
    except (OSError, ValueError):
        former = None
    after = verdict.verdict(
        found, module.params["recipe"], module.params["acceptance_floor"], time.time(), former
    )
    try:
        files.write(path, (json.dumps(after, indent=2, sort_keys=True) + "\n").encode())
    except OSError as error:
        module.warn(files.unwritable(path, error))


def main() -> None:
    in_background()
    module = AnsibleModule(ARGUMENT_SPEC, supports_check_mode=True)
    hold(module)
    gate_module.need_libraries(module)
    params = module.params
    for name, default in EXPECTED.items():
        if params[name] is None:
            params[name] = default if params["speculation"] else 0
    problem = invalid(params)
    if problem:
        module.fail_json(problem)
    gate_module.observe(
        module, wanted(params), gate.Gate, tell=lambda found: keep(module, found), verdict="fail"
    )


if __name__ == "__main__":
    main()
