#!/usr/bin/python
# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: host_series
version_added: "0.1.0"
author:
  - The sparkfleet.vllm authors (@sparkfleet)
short_description: Set up or remove the program that tells Prometheus what a Spark serves
description:
  - Writes a program and a timer. The program writes two files for the textfile collector of the node exporter, C(sparkfleet.prom) from the
    files in O(state_dir), and C(sparkfleet-gpu.prom) from nvidia-smi.
  - It needs no controller, no network and no package but Python. It reads, and changes nothing else.
options:
  state:
    description: V(absent) removes program, units and both files.
    type: str
    choices: [present, absent]
    default: present
  state_dir:
    description: Directory of C(state.json).
    type: path
    default: /var/lib/sparkfleet
  folder:
    description: Folder of the textfile collector.
    type: path
    default: /var/lib/prometheus/node-exporter
  interval:
    description: Seconds between two times that it writes, 5 to 3600.
    type: int
    default: 15
  python:
    description: Python that runs it, at least 3.10.
    type: path
    default: /usr/bin/python3
extends_documentation_fragment:
  - sparkfleet.vllm.internal
attributes:
  check_mode:
    description: Reports what it would change.
    support: full
  diff_mode:
    description: Shows the units before and after, and of the program its digest.
    support: full
  idempotent:
    description: Does nothing if program and units are as they should be.
    support: full
"""

EXAMPLES = r"""
- name: Tell Prometheus what the Spark serves
  sparkfleet.vllm.host_series:
    interval: 30
  become: true
"""

RETURN = r"""
program:
  description: Digest of the program; empty once it is removed.
  returned: success
  type: str
  sample: 0d1e2f3a4b5c6d7e
"""

from pathlib import Path
from typing import Any

from ..module_utils._common import files, sources
from ..module_utils._common.basic import AnsibleModule
from ..module_utils._host.request import ProbeError
from ..module_utils._run.lock_file import hold
from ..module_utils._series import install


def run(module: AnsibleModule) -> dict[str, Any]:
    """:raises SeriesError, SourceError, ProbeError, OSError: it cannot be set up or removed"""
    params = module.params
    content = sources.files(install.ENTRY)
    digest = sources.digest(content)
    before, after = install.look(digest), install.State()
    if params["state"] == "present":
        names = ("python", "state_dir", "folder", "interval")
        after = install.wanted(digest, **{name: params[name] for name in names})
    changed = before != after
    if changed and not module.check_mode:
        if params["state"] == "present":
            install.apply(before, after, content, Path(params["python"]))
        else:
            install.remove(before, Path(params["folder"]))
    return {"changed": changed, "program": after.program, "diff": install.differences(before, after)}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "state_dir": {"type": "path", "default": "/var/lib/sparkfleet"},
            "folder": {"type": "path", "default": "/var/lib/prometheus/node-exporter"},
            "interval": {"type": "int", "default": 15},
            "python": {"type": "path", "default": "/usr/bin/python3"},
        },
        supports_check_mode=True,
    )
    hold(module)
    try:
        result = run(module)
    except (install.SeriesError, sources.SourceError) as error:
        module.fail_json(msg=str(error))
    except ProbeError as error:
        module.fail_json(
            msg=f"expected systemd to follow {install.TIMER}, and {module.params['python']} to compile the program, seen: {error}; "
            f"do: systemctl status {install.TIMER}, and run again"
        )
    except OSError as error:
        module.fail_json(msg=files.unwritable(error.filename or str(install.PROGRAMS), error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
