#!/usr/bin/python
# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: model_pair
short_description: Check that a draft fits its body before they are served
version_added: "0.1.0"
author:
  - The sparkfleet.vllm authors (@sparkfleet)
description:
  - With a draft that does not fit its body, vLLM starts, reports healthy and answers, but accepts no draft token. The two
    C(config.json) and the headers of the weights show most of this in advance.
  - Compares the draft's C(backbone_hidden_size) with the body's hidden size, the vocabularies, the draft's layer types
    with the body's, and head size and key/value heads of each layer type, because a draft reads the body's cache.
  - Checks that every safetensors file is complete (header, offsets without gap or overlap, file size) and holds what the
    index says. For a Gemma 4 assistant, that every linear weight is there and shaped as its config says; for an EAGLE-3 draft,
    that it reads this body's hidden states and says which tokens it knows; for a DFlash draft, that it was made for a body of
    this size.
  - Says in RV(unseen) what vLLM may serve and this module cannot look into, such as weights that are no safetensors.
  - Reports all problems at once. Reads a few megabytes, no weights, and needs only Python.
options:
  body:
    description: Snapshot of the body on the host.
    type: path
    required: true
  draft:
    description: Snapshot of the draft on the host. Without one, only the body's own files are checked.
    type: path
  drafts_itself:
    description: The body speculates with its own layers, as with method C(mtp) and no draft. Checks that they exist.
    type: bool
    default: false
  speculation:
    description:
      - The speculative config that the server gets. C(num_speculative_tokens) is compared with the block that a DSpark or DFlash
        drafter was trained for, and C(use_heterogeneous_vocab) allows a draft with another vocabulary.
    type: dict
    default: {}
extends_documentation_fragment:
  - sparkfleet.vllm.attributes.looks
attributes:
  check_mode:
    description: The same as a run. A missing snapshot is skipped with a note.
seealso:
  - module: sparkfleet.vllm.hf_snapshot
"""

EXAMPLES = r"""
- name: Check body and draft as a pair
  sparkfleet.vllm.model_pair:
    body: /srv/sparkfleet/models/coolthor--Huihui-gemma-4-26B-A4B-it-abliterated-FP8-Dynamic/c4bbb7689dc16de4aaa468647625a5a02f98e22f
    draft: "{{ draft_path }}"
    speculation: "{{ recipe.serve.arguments['speculative-config'] }}"
"""

RETURN = r"""
problems:
  description: What does not fit. Empty if the pair can be served.
  type: list
  elements: dict
  returned: always
  contains:
    where:
      description: Model and key or file.
      type: str
      sample: draft vocab_size
    expected:
      description: What it must be.
      type: str
      sample: 262144, the body's
    seen:
      description: What it is.
      type: str
      sample: "262208"
    do:
      description: What to do next.
      type: str
      sample: use the draft that was made for this body
unseen:
  description: What was not looked at, and why. vLLM decides there.
  type: list
  elements: str
  returned: when the snapshots are there
  sample: ["draft weights: not looked at, because pytorch_model.bin are no safetensors"]
facts:
  description: The facts behind the judgement, for C(body) and C(draft).
  type: dict
  returned: when the snapshots are there
  sample:
    body:
      architecture: Gemma4ForCausalLM
      backbone_hidden_size:
      block_size:
      hidden_size: 2816
      layer_types: [full_attention, sliding_attention]
      layers: 30
      tensors: 23461
      vocab_size: 262144
"""

from pathlib import Path
from typing import Any

from ..module_utils._common.basic import AnsibleModule
from ..module_utils._models import model, pairing


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "body": {"type": "path", "required": True},
            "draft": {"type": "path"},
            "drafts_itself": {"type": "bool", "default": False},
            "speculation": {"type": "dict", "default": {}},
        },
        supports_check_mode=True,
    )
    folders = {name: Path(module.params[name]) for name in ("body", "draft") if module.params[name]}
    absent = [f"{name} ({folder})" for name, folder in folders.items() if not folder.is_dir()]
    if absent and module.check_mode:
        module.exit_json(changed=False, skipped=True, problems=[], msg=f"not there yet: {', '.join(absent)}")
    if absent:
        module.fail_json(
            msg=f"expected snapshots to check, seen no directory for {', '.join(absent)}; run hf_snapshot first",
            problems=[],
        )
    try:
        models = {name: model.read(name, folder) for name, folder in folders.items()}
    except OSError as error:
        module.fail_json(
            msg=f"expected a model with a config.json that can be read, seen {error}; "
            "verify the snapshot with verify full, or correct the repository",
            problems=[],
        )
    problems, facts, unseen = pairing.judge(
        models["body"], models.get("draft"), module.params["drafts_itself"], module.params["speculation"]
    )
    result: dict[str, Any] = {
        "changed": False,
        "facts": facts,
        "problems": [problem.as_dict() for problem in problems],
        "unseen": [str(each) for each in unseen],
    }
    for each in unseen:
        module.warn(str(each))
    if problems:
        reasons = "\n".join(f"- {problem}" for problem in problems)
        count = "a reason" if len(problems) == 1 else f"{len(problems)} reasons"
        module.fail_json(msg=f"{count} not to serve this:\n{reasons}", **result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
