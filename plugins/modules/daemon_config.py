#!/usr/bin/python
# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: daemon_config
version_added: "0.1.0"
author:
  - The sparkfleet.vllm authors (@sparkfleet)
short_description: Merge into daemon.json, and have the Docker engine follow
description:
  - Merges into the configuration of the Docker engine. Objects are merged deep, lists united, other values replaced; what else
    is there stays, in its order.
  - Has the running engine follow, by a reload where that is enough, which stops no container, and by a restart where it is not.
  - A restart that would stop a container is refused, before anything is written, unless O(restart=always).
  - When the engine does not follow, the file is put back as it was and the engine is given the old one again.
  - Needs no Docker SDK.
options:
  path:
    description: The configuration file.
    type: path
    default: /etc/docker/daemon.json
  registry_mirrors:
    description: Mirrors of Docker Hub. One given as C(http://) needs no entry under C(insecure-registries).
    type: list
    elements: str
    default: []
  fleet_registry:
    description: A mirror of Docker Hub that the engine asks before all others, those that are in the file already too.
    type: str
    default: ""
  nvidia_runtime:
    description: Add a runtime C(nvidia) where there is none. One that is there stays as it is.
    type: bool
    default: false
  config:
    description: Anything else the file must hold, as in daemon.json.
    type: dict
    default: {}
  restart:
    description:
      - When the engine may restart. V(auto) means while that stops no container, because none runs or C(live-restore) keeps them.
      - V(always) restarts all the same and names in RV(stopped) what it stopped.
    type: str
    choices: [auto, always, never]
    default: auto
  backup:
    description: Keep a copy of the file beside it before it changes.
    type: bool
    default: true
  socket:
    description: Socket of the Docker engine.
    type: path
    default: /var/run/docker.sock
  timeout:
    description: How long the engine may take to follow, in seconds.
    type: float
    default: 60
attributes:
  check_mode:
    description: Tells what would change and whether the engine would reload or restart. A restart that is refused fails here too.
    support: full
  diff_mode:
    description: Shows the file before and after.
    support: full
  idempotent:
    description: A file that holds everything and an engine that follows it are left alone.
    support: full
notes:
  - What a reload applies is listed at U(https://docs.docker.com/reference/cli/dockerd/#configuration-reload-behavior).
seealso:
  - module: sparkfleet.vllm.spark_info
"""

EXAMPLES = r"""
- name: Have the engine ask a mirror first (a reload)
  sparkfleet.vllm.daemon_config:
    registry_mirrors: ["http://mirror.example:5000"]
    nvidia_runtime: true
  become: true

- name: Bound the logs (a restart, unless a container would stop)
  sparkfleet.vllm.daemon_config:
    config:
      log-driver: json-file
      log-opts: {max-size: 50m, max-file: "3"}
  become: true
"""

RETURN = r"""
changed_keys:
  description: Top-level keys of the file that changed.
  returned: success
  type: list
  elements: str
  sample: [registry-mirrors, runtimes]
action:
  description: What made, or in check mode would make, the engine follow.
  returned: success
  type: str
  sample: reload
because:
  description: Why the engine restarts. A reload needs no reason.
  returned: success
  type: list
  elements: str
  sample: ["log-opts takes effect at a restart only"]
stopped:
  description: Names of the containers that the restart stopped, or would stop.
  returned: success
  type: list
  elements: str
  sample: []
backup_file:
  description: The copy of the file as it was.
  returned: when the file changed and O(backup=true)
  type: str
  sample: /etc/docker/daemon.json.4711.2026-11-23@21:05:56~
"""

import os
import signal
import tempfile
import time
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._host import daemon_json, probes
from ..module_utils._host.request import Request
from ..module_utils._run.lock_file import hold

ARGUMENTS: dict[str, dict[str, Any]] = {
    "path": {"type": "path", "default": "/etc/docker/daemon.json"},
    "registry_mirrors": {"type": "list", "elements": "str", "default": []},
    "fleet_registry": {"type": "str", "default": ""},
    "nvidia_runtime": {"type": "bool", "default": False},
    "config": {"type": "dict", "default": {}},
    "restart": {"type": "str", "choices": ["auto", "always", "never"], "default": "auto"},
    "backup": {"type": "bool", "default": True},
    "socket": {"type": "path", "default": "/var/run/docker.sock"},
    "timeout": {"type": "float", "default": 60},
}
VALIDATES_SINCE = 23  # dockerd --validate


class Engine:
    """The engine of this host, as far as it must follow its file."""

    def __init__(self, module: AnsibleModule, request: Request, path: str) -> None:
        self.module = module
        self.request = request
        self.path = path
        self.seen = probes.engine(request)
        self.toolkit = probes.toolkit(request, self.seen)

    def validate(self, text: str) -> None:
        """Let dockerd itself read the new file before it is in place."""
        major = (self.seen["version"] or "0").split(".")[0]
        if not major.isdigit() or int(major) < VALIDATES_SINCE:
            return
        with tempfile.NamedTemporaryFile("w", dir=self.module.tmpdir, suffix=".json") as file:
            file.write(text)
            file.flush()
            rc, out, err = self.module.run_command(["dockerd", "--validate", "--config-file", file.name])
        if rc:
            self.module.fail_json(
                msg=f"expected a configuration that dockerd accepts, seen: {(err or out).strip()}; do: mend what is asked for. "
                f"{self.path} is untouched",
            )

    def follow(self, action: str, content: dict[str, Any]) -> str | None:
        """Reload or restart, and wait until the engine shows `content`. Returns what went wrong."""
        said = self._signal() if action == "reload" else self._restart()
        if said:
            return said
        deadline, behind = time.monotonic() + self.module.params["timeout"], list[str]()
        while time.monotonic() < deadline:
            now = probes.engine(self.request)
            behind = daemon_json.unapplied_keys(content, now)
            if now["version"] and not behind and (action == "reload" or now["pid"] != self.seen["pid"]):
                return None
            time.sleep(0.2)
        return f"after {self.module.params['timeout']:g} s the engine does not show {', '.join(behind) or 'itself'}"

    def _signal(self) -> str | None:
        try:
            os.kill(self.seen["pid"], signal.SIGHUP)
        except OSError as error:
            return f"SIGHUP to dockerd (pid {self.seen['pid']}): {error.strerror}"
        return None

    def _restart(self) -> str | None:
        # systemd gives up on a unit that was started a few times in a minute; putting the old file back is a start too.
        self.module.run_command(["systemctl", "reset-failed", "docker"])
        rc, out, err = self.module.run_command(["systemctl", "restart", "docker"])
        if not rc:
            return None
        log = self.module.run_command(["journalctl", "-u", "docker", "-n", "20", "-o", "cat", "--no-pager"])[
            1
        ]
        reasons = [line for line in log.splitlines() if "failed" in line or "unable" in line]
        return (reasons or [(err or out).strip() or "systemctl restart docker failed"])[-1]


def write(module: AnsibleModule, path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
    handle, name = tempfile.mkstemp(dir=module.tmpdir)
    with os.fdopen(handle, "w") as file:
        file.write(text)
    if not path.exists():
        Path(name).chmod(0o644)
    module.atomic_move(name, str(path))


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    hold(module)
    asked = module.params
    path = Path(asked["path"])
    try:
        text = path.read_text() if path.exists() else ""
        before = daemon_json.parse(text)
        after = daemon_json.wanted(
            before,
            asked["registry_mirrors"],
            asked["nvidia_runtime"],
            asked["config"],
            asked["fleet_registry"],
        )
    except (daemon_json.DaemonConfigError, OSError) as error:
        module.fail_json(
            msg=f"expected {path} that can be merged, seen: {error}; do: mend it by hand and run again"
        )

    engine = Engine(module, Request(daemon_config=str(path), socket=asked["socket"]), str(path))
    if engine.seen["running"] and not engine.seen["version"]:
        module.fail_json(
            msg=f"expected an engine that answers, seen: {engine.seen['silent']}; do: systemctl status docker"
        )
    plan = daemon_json.plan(
        before,
        after,
        running=engine.seen["running"],
        engine=engine.seen,
        containers=engine.seen["containers"] or [],
        restart_because=[daemon_json.TOOLKIT_UNSEEN]
        if asked["nvidia_runtime"] and engine.toolkit["unseen"]
        else [],
    )
    refused = daemon_json.refusal(plan, asked["restart"])
    if refused:
        module.fail_json(
            msg=f"expected no restart of Docker, or one that stops no container, seen: {'; '.join(plan.because)}: {refused}; "
            "do: stop the containers, set live-restore, or allow it with restart: always. Nothing was changed"
        )

    wanted_text = daemon_json.render(after, like=text) if plan.changed else text
    result: dict[str, Any] = {
        "changed": bool(plan.changed) or plan.action != "none",
        "changed_keys": plan.changed,
        "action": plan.action,
        "because": plan.because,
        "stopped": plan.stops,
        "diff": {
            "before": daemon_json.redacted(text),
            "after": daemon_json.redacted(wanted_text),
            "before_header": str(path),
            "after_header": f"{path} ({plan.action})" if plan.action != "none" else str(path),
        },
    }
    if module.check_mode or not result["changed"]:
        module.exit_json(**result)

    if plan.changed:
        engine.validate(wanted_text)
        if asked["backup"] and path.exists():
            result["backup_file"] = module.backup_local(str(path))
        existed = path.exists()
        write(module, path, wanted_text)
    if plan.action != "none":
        wrong = engine.follow(plan.action, after)
        if wrong:
            undone = ""
            if plan.changed:
                if existed:
                    write(module, path, text)
                else:
                    path.unlink()
                again = engine.follow(plan.action, before)
                undone = f" {path} is as it was, and the engine " + (
                    f"needs care: {again}" if again else "runs with it"
                )
            module.fail_json(
                msg=f"expected the engine to {plan.action}, seen: {wrong}; do: journalctl -u docker.{undone}"
            )
    module.exit_json(**result)


if __name__ == "__main__":
    main()
