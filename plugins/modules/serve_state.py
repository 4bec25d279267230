#!/usr/bin/python
# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: serve_state
short_description: Record the server that passed the gate on a host
version_added: "0.1.0"
author:
  - The sparkfleet.vllm authors (@sparkfleet)
description:
  - Keeps the records that passed the gate in one JSON file, C(current) and the one before it, C(last_good).
  - Call it only after the gate. The file is written beside its place and renamed, so it is complete or absent.
options:
  path:
    description: The state file.
    type: path
    required: true
  serving:
    description: The server and its limits, as the filter P(sparkfleet.vllm.vllm_serving#filter) returns them. Must not hold secrets.
    type: dict
    required: true
  evidence:
    description: The gate's measurements, kept with the record.
    type: dict
    default: {}
extends_documentation_fragment:
  - sparkfleet.vllm.internal
attributes:
  check_mode:
    description: Reports whether the file would change.
    support: full
  diff_mode:
    description: Shows the state before and after.
    support: full
  idempotent:
    description: The same record again changes nothing, whatever the gate measured this time.
    support: full
"""

EXAMPLES = r"""
- name: Record what serves
  sparkfleet.vllm.serve_state:
    path: /var/lib/sparkfleet/state.json
    serving: "{{ spark_candidate.serving }}"
    evidence: {drafts: 236, acceptance_rate: 0.69}
"""

RETURN = r"""
state:
  description: The recorded state.
  type: dict
  returned: success
  sample: {version: 1, current: {serving: {image: "vllm/vllm-openai@sha256:…"}, gate: {drafts: 236}}, last_good: null}
"""

import json
from pathlib import Path

from ..module_utils._common import files
from ..module_utils._common.basic import AnsibleModule
from ..module_utils._run.lock_file import hold
from ..module_utils._serve import state


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "serving": {"type": "dict", "required": True},
            "evidence": {"type": "dict", "default": {}},
        },
        supports_check_mode=True,
    )
    hold(module)
    path = Path(module.params["path"])
    try:
        before = state.parse(path.read_text() if path.exists() else None)
    except (ValueError, OSError) as error:
        module.fail_json(msg=state.unreadable(str(path), error))
    after = state.record(before, module.params["serving"], module.params["evidence"])
    changed = after != before
    if changed and not module.check_mode:
        try:
            files.write(path, (json.dumps(after, indent=2, sort_keys=True) + "\n").encode(), 0o600)
        except OSError as error:
            module.fail_json(
                msg=f"{files.unwritable(path, error)}. The server has passed and keeps serving; the former record is kept"
            )
    module.exit_json(changed=changed, state=after, diff={"before": before or {}, "after": after})


if __name__ == "__main__":
    main()
