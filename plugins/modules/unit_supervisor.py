#!/usr/bin/python
# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: unit_supervisor
version_added: "0.1.0"
author:
  - The sparkfleet.vllm authors (@sparkfleet)
short_description: Put the program on a host that keeps the members of a unit together
description:
  - Writes the program under its sha256 into the content-addressed store, where it never changes. The container of each member starts it, and
    it starts vLLM.
  - Makes the folder that the container shares with its host, C(<state_dir>/unit), and in it the key by which the members know each other.
  - Stops and removes nothing. A container that runs keeps its program and its key until it is started again.
options:
  store:
    description: Root of the content-addressed store on the host.
    type: path
    required: true
  state_dir:
    description: Directory of C(state.json).
    type: path
    default: /var/lib/sparkfleet
  key:
    description: Key of the unit, 64 hexadecimal digits, as the head returned it. Without one, that of the host stays.
    type: str
  generate:
    description: Make a key if the host has none, and return the key. For the head. Give the task C(no_log).
    type: bool
    default: false
extends_documentation_fragment:
  - sparkfleet.vllm.internal
attributes:
  check_mode:
    description: Reports what it would change. A host without a key returns none then.
    support: full
  diff_mode:
    description: Shows the digest of the program, and of folder and key only whether they change.
    support: full
  idempotent:
    description: Does nothing if program, folder and key are as they should be.
    support: full
"""

EXAMPLES = r"""
- name: Set up the head
  sparkfleet.vllm.unit_supervisor:
    store: /var/lib/sparkfleet/store
    generate: true
  become: true
  no_log: true
  register: head

- name: Set up a worker
  sparkfleet.vllm.unit_supervisor:
    store: /var/lib/sparkfleet/store
    key: "{{ hostvars['spark-1'].head.key }}"
  become: true
"""

RETURN = r"""
path:
  description: Folder of the program on the host.
  returned: success
  type: str
  sample: /var/lib/sparkfleet/store/supervisor/d7a8fbb307d7809469ca9abcb0082e4f8d5651e46d3cdb762d02d0bf37c9e592
sha256:
  description: Digest of the program.
  returned: success
  type: str
  sample: d7a8fbb307d7809469ca9abcb0082e4f8d5651e46d3cdb762d02d0bf37c9e592
mount:
  description: Where the container must have that folder. Python runs it there.
  returned: success
  type: str
  sample: /opt/sparkfleet/unit
folder:
  description: Folder on the host with key and status.
  returned: success
  type: str
  sample: /var/lib/sparkfleet/unit
folder_mount:
  description: Where the container must have that folder, writable.
  returned: success
  type: str
  sample: /run/sparkfleet/unit
key:
  description: Key of the unit.
  returned: with O(generate), if there is one
  type: str
changes:
  description: What was changed, or would be; V(program), V(folder), V(key).
  returned: success
  type: list
  elements: str
  sample: [program]
"""

from pathlib import Path
from typing import Any

from ..module_utils._common import files, sources
from ..module_utils._common.basic import AnsibleModule
from ..module_utils._common.paths import supervisor_path, unit_path
from ..module_utils._run.lock_file import hold
from ..module_utils._unit import install


def run(module: AnsibleModule) -> dict[str, Any]:
    """:raises KeyProblem, SourceError, OSError: it cannot be set up"""
    params = module.params
    content = sources.files(install.ENTRY)
    sha256 = sources.sha256(content)
    path, folder = supervisor_path(params["store"], sha256), unit_path(params["state_dir"])
    before = install.look(Path(path), content, Path(folder))
    # In check mode, a head that is not set up yet has no key to give.
    generate = params["generate"] or module.check_mode
    after = install.wanted(before, sha256, params["key"], generate)
    diff = install.differences(before, after)
    if diff and not module.check_mode:
        install.apply(before, after, Path(path), content, Path(folder))
    known = before.key if module.check_mode else after.key
    return {
        "changed": bool(diff),
        "changes": [each["before_header"] for each in diff],
        "diff": diff,
        "path": path,
        "sha256": sha256,
        "mount": install.MOUNT,
        "folder": folder,
        "folder_mount": install.RUN,
        **({"key": known} if params["generate"] and known else {}),
    }


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "store": {"type": "path", "required": True},
            "state_dir": {"type": "path", "default": "/var/lib/sparkfleet"},
            "key": {"type": "str", "no_log": True},
            "generate": {"type": "bool", "default": False},
        },
        mutually_exclusive=[("key", "generate")],
        supports_check_mode=True,
    )
    hold(module)
    try:
        result = run(module)
    except (install.KeyProblem, sources.SourceError) as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(msg=files.unwritable(error.filename or module.params["store"], error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
