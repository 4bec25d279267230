#!/usr/bin/python
# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: registry_info
version_added: "0.1.0"
author:
  - The sparkfleet.vllm authors (@sparkfleet)
short_description: Check a registry in one execution
description:
  - Checks everything that role C(image_registry) sets up on the serving host, which is the registry's program, storage, files, unit
    and answer.
  - Reports a unit that started before one of its files was written, because it still runs with the old file.
  - Needs only Python.
options:
  program:
    description: Path of the registry's program.
    type: path
    required: true
  storage:
    description: Directory that it serves from.
    type: path
    required: true
  files:
    description: Its files. They belong to root and are readable by all.
    type: list
    elements: dict
    required: true
    suboptions:
      path:
        description: Where it is.
        type: path
        required: true
      content:
        description: Its exact content.
        type: str
        required: true
  unit:
    description: Name of its systemd unit, enabled and active.
    type: str
    required: true
  url:
    description: Its address. The module requests C(/v2/).
    type: str
    required: true
extends_documentation_fragment:
  - sparkfleet.vllm.internal
  - sparkfleet.vllm.attributes.looks
"""

EXAMPLES = r"""
- name: Look whether it serves
  sparkfleet.vllm.registry_info:
    program: /usr/bin/docker-registry
    storage: /srv/sparkfleet/registry
    files:
      - path: /etc/sparkfleet-registry.yml
        content: "{{ lookup('ansible.builtin.template', 'registry.yml.j2') }}"
    unit: sparkfleet-registry.service
    url: http://192.0.2.11:5000
  register: registry
"""

RETURN = r"""
settled:
  description: Whether everything is right.
  type: bool
  returned: success
  sample: true
program:
  description: Whether the program is there.
  type: bool
  returned: success
  sample: true
stale:
  description: Whether the unit runs with files that have been replaced.
  type: bool
  returned: success
  sample: false
problems:
  description: What is wrong.
  type: list
  elements: str
  returned: success
  sample: ["http://192.0.2.11:5000: expected an answer, seen Connection refused"]
"""

import stat
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path

from ..module_utils._common.basic import AnsibleModule

SHOWN = ("ActiveState", "UnitFileState", "NeedDaemonReload", "ActiveEnterTimestamp")
ANSWER = 5
"""Seconds that an answer may take."""


def file_problem(path: Path, content: str) -> str:
    """What is wrong with a file; empty if nothing is."""
    try:
        status, seen = path.stat(), path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        return f"{path}: expected a file, seen {error}"
    if seen != content:
        return f"{path}: expected other content"
    return owner_problem(path, status.st_mode, status.st_uid, status.st_gid, 0o644)


def owner_problem(path: Path, mode: int, user: int, group: int, wanted: int) -> str:
    seen = (stat.S_IMODE(mode), user, group)
    return (
        ""
        if seen == (wanted, 0, 0)
        else f"{path}: expected {wanted:o} root:root, seen {seen[0]:o} {user}:{group}"
    )


def directory_problem(path: Path) -> str:
    if not path.is_dir():
        return f"{path}: expected a directory, seen none"
    status = path.stat()
    return owner_problem(path, status.st_mode, status.st_uid, status.st_gid, 0o755)


def shown(module: AnsibleModule, unit: str) -> dict[str, str]:
    """What systemd says of a unit. `ActiveEnterTimestamp` is @Unix time, or empty."""
    argv = ["systemctl", "show", "--timestamp=unix", f"--property={','.join(SHOWN)}", unit]
    _rc, said, _why = module.run_command(argv)
    return dict(line.split("=", 1) for line in said.splitlines() if "=" in line)


def unit_problems(unit: str, state: Mapping[str, str]) -> Iterator[str]:
    for name, wanted in (("ActiveState", "active"), ("UnitFileState", "enabled")):
        if state.get(name) != wanted:
            yield f"{unit}: expected {wanted}, seen {state.get(name) or 'no such unit'}"


def stale(state: Mapping[str, str], written: float) -> bool:
    """Whether an active unit was started before its files were written (Unix time), or has not read its unit file."""
    since = state.get("ActiveEnterTimestamp", "").removeprefix("@")
    # Both are whole seconds. A file written in the second of the start may be the one that it was started with.
    return state.get("NeedDaemonReload") == "yes" or (since.isdigit() and int(written) > int(since))


def answer_problem(url: str) -> str:
    """Why /v2/ does not answer. Never asks through a proxy."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"{url}/v2/", timeout=ANSWER):
            return ""
    except (urllib.error.URLError, OSError, ValueError) as error:
        return f"{url}: expected an answer, seen {getattr(error, 'reason', error)}"


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "program": {"type": "path", "required": True},
            "storage": {"type": "path", "required": True},
            "files": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "path": {"type": "path", "required": True},
                    "content": {"type": "str", "required": True},
                },
            },
            "unit": {"type": "str", "required": True},
            "url": {"type": "str", "required": True},
        },
        supports_check_mode=True,
    )
    params = module.params
    files = {Path(file["path"]): file["content"] for file in params["files"]}
    program = Path(params["program"]).exists()
    problems = [] if program else [f"{params['program']}: expected a program, seen none"]
    problems += [file_problem(path, content) for path, content in files.items()]
    problems.append(directory_problem(Path(params["storage"])))
    state = shown(module, params["unit"])
    problems += unit_problems(params["unit"], state)
    old = stale(state, max((path.stat().st_mtime for path in files if path.exists()), default=0.0))
    if old:
        problems.append(f"{params['unit']}: expected its files in use, seen a start before they were written")
    if not any(problems):
        problems.append(answer_problem(params["url"]))
    problems = [problem for problem in problems if problem]
    module.exit_json(changed=False, settled=not problems, program=program, stale=old, problems=problems)


if __name__ == "__main__":
    main()
