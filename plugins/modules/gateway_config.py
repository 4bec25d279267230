#!/usr/bin/python
# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: gateway_config
version_added: "0.1.0"
author:
  - The sparkfleet.vllm authors (@sparkfleet)
short_description: Give HAProxy a set of files that it accepts, all at once and without loss
description:
  - Writes the whole set beside its place, has C(haproxy -c) read it there, and only then exchanges it with the former set. So a broken set
    never replaces a good one, and no reader sees half of one.
  - Reloads HAProxy if it runs, and waits for the new worker. Former workers end their streams. If no new worker comes, the module puts the
    former set back.
  - Files that are in the directory and not in the set go.
options:
  service:
    description: Its systemd unit.
    type: str
    default: sparkfleet-gateway.service
  reload:
    description: Whether to reload it. Not if it starts again anyway.
    type: bool
    default: true
  socket:
    description: Socket of HAProxy's master.
    type: path
    default: /run/sparkfleet-gateway/master.sock
  timeout:
    description: Seconds that the new worker may take to come.
    type: int
    default: 30
extends_documentation_fragment:
  - sparkfleet.vllm.gateway.files
  - sparkfleet.vllm.internal
attributes:
  check_mode:
    description: Has HAProxy check the set, in a directory of its own, and reports the changes. Without the program it only compares.
    support: full
  diff_mode:
    description: Shows each file before and after, and of a secret one only that it changes.
    support: full
  idempotent:
    description: Does nothing if the directory holds the set.
    support: full
"""

EXAMPLES = r"""
- name: Configure the gateway
  sparkfleet.vllm.gateway_config:
    files:
      haproxy.cfg: "{{ lookup('ansible.builtin.template', 'haproxy.cfg.j2') }}"
      keys.map: "{{ lookup('ansible.builtin.template', 'keys.map.j2') }}"
    secrets:
      tls.pem: "{{ certificate ~ key }}"
  become: true
"""

RETURN = r"""
changed_files:
  description: Names of the files that are new, other or gone.
  returned: success
  type: list
  elements: str
  sample: [keys.map]
reloaded:
  description: Whether HAProxy runs with the set since now.
  returned: success
  type: bool
  sample: true
"""

import grp
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..module_utils._common import files
from ..module_utils._common.basic import AnsibleModule
from ..module_utils._gateway import file_set
from ..module_utils._gateway.answers import HaproxyError
from ..module_utils._gateway.file_set import File
from ..module_utils._gateway.haproxy import Haproxy
from ..module_utils._gateway.module import FILES_SPEC
from ..module_utils._run.lock_file import hold

MAIN = "haproxy.cfg"
PAUSE = 0.1


def group_of(module: AnsibleModule) -> int:
    try:
        return grp.getgrnam(module.params["group"]).gr_gid
    except KeyError:
        if module.check_mode:
            return -1  # the package makes it
        module.fail_json(
            msg=f"expected a group {module.params['group']}, seen none; do: install the package of HAProxy"
        )
        raise


def check(module: AnsibleModule, folder: Path) -> None:
    """Fails the module unless HAProxy takes the set that lies in `folder`."""
    rc, out, err = module.run_command([module.params["program"], "-c", "-f", str(folder / MAIN)])
    if not rc:
        return
    said = [line for line in (err + out).splitlines() if "[ALERT]" in line] or [(err or out).strip()]
    files.remove(folder)
    module.fail_json(
        msg=f"expected a configuration that HAProxy accepts, seen: {' '.join(said)[:2000]}; do: correct the inputs of the gateway. "
        f"{module.params['directory']} is untouched, and HAProxy goes on with it"
    )


def running(module: AnsibleModule) -> bool:
    return not module.run_command(["systemctl", "is-active", "--quiet", module.params["service"]])[0]


def reload(module: AnsibleModule) -> str:
    """Have the set read by a new worker. Returns what went wrong."""
    haproxy = Haproxy(module.params["socket"])
    try:
        before = set(haproxy.processes())
    except HaproxyError as error:
        return str(error)
    rc, out, err = module.run_command(["systemctl", "reload", module.params["service"]])
    if rc:
        return (err or out).strip() or "systemctl reload failed"
    deadline = time.monotonic() + module.params["timeout"]
    said = ""
    while time.monotonic() < deadline:
        try:
            if haproxy.processes()[0] not in before:
                return ""
        except HaproxyError as error:  # the master begins anew, too
            said = f" ({error})"
        time.sleep(PAUSE)
    return f"no new worker within {module.params['timeout']} s{said}"


def differences(before: Mapping[str, File], after: Mapping[str, File]) -> Iterator[dict[str, str]]:
    for name in sorted({*before, *after}):
        old, new = before.get(name), after.get(name)
        if old == new:
            continue
        secret = any(file and file.secret for file in (old, new))
        yield {
            "before_header": f"{name}{_mode(old)}",
            "after_header": f"{name}{_mode(new)}",
            "before": _shown(old, secret, "as it was"),
            "after": _shown(new, secret, "another one"),
        }


def _mode(file: File | None) -> str:
    return f" ({file.mode:04o})" if file else " (absent)"


def _shown(file: File | None, secret: bool, instead: str) -> str:
    if file is None:
        return ""
    return f"secret: {instead}\n" if secret else file.content.decode(errors="replace")


def replace(module: AnsibleModule, wanted: Mapping[str, File], group: int) -> bool:
    """Put the set in its place and have HAProxy follow. Returns whether it was reloaded."""
    folder = Path(module.params["directory"])
    staged = folder.with_name(f".{folder.name}.new")
    file_set.write(staged, wanted, group)
    check(module, staged)
    file_set.put(staged, folder)
    reloads = module.params["reload"] and running(module)
    said = reload(module) if reloads else ""
    if said and staged.exists():
        file_set.put(staged, folder)
        back = reload(module)
        files.remove(staged)
        module.fail_json(
            msg=f"expected HAProxy to go on with the new set, seen: {said}; do: look at journalctl -u {module.params['service']}. "
            f"The former set is back in {folder}" + (f"; it was not reloaded: {back}" if back else "")
        )
    files.remove(staged)
    if said:
        module.fail_json(
            msg=f"expected HAProxy to go on with {folder}, seen: {said}; do: look at its journal, and run again"
        )
    return reloads


def run(module: AnsibleModule) -> dict[str, Any]:
    folder = Path(module.params["directory"])
    group = group_of(module)
    wanted = file_set.wanted(module.params["files"], module.params["secrets"], group)
    before = file_set.look(folder)
    found = list(differences(before, wanted))
    reloaded = False
    if found and not module.check_mode:
        reloaded = replace(module, wanted, group)
    elif found and Path(module.params["program"]).exists():
        tried = Path(module.tmpdir) / "set"
        file_set.write(tried, wanted, group)
        check(module, tried)
        files.remove(tried)
    return {
        "changed": bool(found),
        "changed_files": [
            name for name in sorted({*before, *wanted}) if before.get(name) != wanted.get(name)
        ],
        "reloaded": reloaded,
        "diff": found,
    }


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **FILES_SPEC,
            "service": {"type": "str", "default": "sparkfleet-gateway.service"},
            "reload": {"type": "bool", "default": True},
            "socket": {"type": "path", "default": "/run/sparkfleet-gateway/master.sock"},
            "timeout": {"type": "int", "default": 30},
        },
        supports_check_mode=True,
    )
    hold(module)
    try:
        result = run(module)
    except OSError as error:
        module.fail_json(msg=files.unwritable(error.filename or module.params["directory"], error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
