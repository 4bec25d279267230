#!/usr/bin/python
# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: gateway_drift
version_added: "0.1.0"
author:
  - The sparkfleet.vllm authors (@sparkfleet)
short_description: Compare a gateway with what the inventory makes of it
description:
  - Compares the files of a gateway, its units, and what its servers may get. Changes nothing, and shows nothing of a file.
options:
  texts:
    description: Content by path, of the files that lie elsewhere.
    type: dict
    default: {}
  services:
    description: Units in C(/etc/systemd/system) that run, now and after a boot.
    type: list
    elements: str
    default: [sparkfleet-gateway.service]
  absent:
    description: Paths of files that should not be there.
    type: list
    elements: path
    default: []
  state_dir:
    description: Directory of the lock of a run.
    type: path
    default: /var/lib/sparkfleet
extends_documentation_fragment:
  - sparkfleet.vllm.gateway.files
  - sparkfleet.vllm.gateway
  - sparkfleet.vllm.internal
  - sparkfleet.vllm.attributes.looks
"""

EXAMPLES = r"""
- name: Compare the gateway with the inventory
  sparkfleet.vllm.gateway_drift:
    files:
      haproxy.cfg: "{{ lookup('ansible.builtin.template', 'haproxy.cfg.j2') }}"
  register: gateway
  become: true
"""

RETURN = r"""
drift:
  description: A part of a drift report, with subject, kind, expected, seen and do of each finding.
  returned: success
  type: dict
  sample: {subjects: [gateway], findings: [{subject: gateway, kind: gateway-stopped}], unknown: {}, known: {}}
"""

import grp
import time
from pathlib import Path
from typing import Any

from ..module_utils._common.basic import AnsibleModule
from ..module_utils._drift import gateway as drift
from ..module_utils._gateway import file_set
from ..module_utils._gateway.answers import HaproxyError
from ..module_utils._gateway.haproxy import Haproxy
from ..module_utils._gateway.module import ARGUMENT_SPEC, FILES_SPEC
from ..module_utils._host import unit
from ..module_utils._run import lock_file


def wanted(params: dict[str, Any]) -> drift.Wanted:
    try:
        group = grp.getgrnam(params["group"]).gr_gid
    except KeyError:
        group = -1
    files = file_set.wanted(params["files"], params["secrets"], group)
    return drift.Wanted(params["directory"], files, params["texts"], params["services"], params["absent"])


def look(params: dict[str, Any], after: drift.Wanted) -> drift.Seen:
    """:raises OSError: a file cannot be read"""
    held = lock_file.look_alive(Path(params["state_dir"]), time.time())
    if not Path(params["program"]).exists():
        return drift.Seen(program=False, held=held)
    try:
        servers, problem = Haproxy(params["socket"]).servers(), ""
    except HaproxyError as error:
        servers, problem = [], str(error)
    return drift.Seen(
        program=True,
        files=file_set.look(Path(after.directory)),
        texts={path: text for path in after.texts if (text := content(Path(path))) is not None},
        services={name: unit.look(name) for name in after.services},
        left=[path for path in after.absent if Path(path).is_symlink() or Path(path).exists()],
        servers=servers,
        problem=problem,
        held=held,
    )


def content(path: Path) -> str | None:
    """Of a regular file; None for nothing of that kind, and nothing of one that is too large to be ours."""
    if path.is_symlink() or not path.is_file():
        return None
    return path.read_text(errors="replace") if path.stat().st_size <= file_set.LARGEST else ""


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **FILES_SPEC,
            "texts": {"type": "dict", "default": {}},
            "services": {"type": "list", "elements": "str", "default": ["sparkfleet-gateway.service"]},
            "absent": {"type": "list", "elements": "path", "default": []},
            "state_dir": {"type": "path", "default": "/var/lib/sparkfleet"},
            **ARGUMENT_SPEC,
        },
        supports_check_mode=True,
    )
    after = wanted(module.params)
    try:
        seen = look(module.params, after)
    except OSError as error:
        module.fail_json(msg=f"expected files that root can read, seen: {error}; do: look at that path")
    module.exit_json(changed=False, drift=drift.judge(after, seen))


if __name__ == "__main__":
    main()
