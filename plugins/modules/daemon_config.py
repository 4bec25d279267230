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
short_description: Merge into daemon.json, and apply it to the Docker engine
description:
  - Merges into the configuration of the Docker engine. Objects are merged deep, lists united, other values replaced. Everything
    else stays, in its order.
  - Applies the file to the running engine by a reload, which stops no container, or by a restart if a reload is not enough.
  - Refuses a restart that would stop a container before it writes anything, unless O(restart=always).
  - If the engine does not apply the file, the module restores the old file and applies that.
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
    description: A mirror of Docker Hub that the engine asks before all others, including those already in the file.
    type: str
    default: ""
  nvidia_runtime:
    description: Add a runtime C(nvidia) if there is none. An existing one stays.
    type: bool
    default: false
  config:
    description: Anything else the file must hold, as in daemon.json.
    type: dict
    default: {}
  restart:
    description:
      - When the engine may restart. V(auto) means if that stops no container, because none runs or C(live-restore) keeps them.
      - V(always) restarts in any case and returns the stopped containers in RV(stopped).
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
    description: Seconds that the engine may take to apply the file.
    type: float
    default: 60
attributes:
  check_mode:
    description: Reports the changes and whether the engine would reload or restart. A refused restart fails here, too.
    support: full
  diff_mode:
    description: Shows the file before and after.
    support: full
  idempotent:
    description: Does nothing if the file holds everything and the engine has applied it.
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
  description: How the file was, or in check mode would be, applied.
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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..module_utils._common.basic import AnsibleModule
from ..module_utils._common.files import sync, unwritable
from ..module_utils._host import daemon_json, engine_socket, toolkit
from ..module_utils._host import engine as docker
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
STOP_TIMEOUT = 600.0
"""Seconds. Before that, the engine kills the container after its own stop time."""
VALIDATES_SINCE = 23  # dockerd --validate


class Engine:
    """The engine of this host, as far as it must follow daemon.json."""

    def __init__(self, module: AnsibleModule, request: Request, path: str) -> None:
        self.module = module
        self.request = request
        self.path = path
        self.seen = docker.look(request)
        self.toolkit = toolkit.look(request, self.seen)

    def validate(self, text: str) -> None:
        """Let dockerd itself check the new file before it is in place."""
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

    def stop(self, containers: list[str]) -> str | None:
        """Stop containers that the engine would lose while they run on, with their memory and port. Returns what went wrong."""
        for name in containers if self.seen["live_restore"] else ():
            try:
                engine_socket.stop(self.module.params["socket"], name, STOP_TIMEOUT)
            except engine_socket.EngineError as error:
                return str(error)
        return None

    def follow(self, action: str, content: dict[str, Any]) -> str | None:
        """Reload or restart, and wait until the engine shows `content`. Returns what went wrong."""
        said = self._signal() if action == "reload" else self._restart()
        if said:
            return said
        deadline, behind = time.monotonic() + self.module.params["timeout"], list[str]()
        while time.monotonic() < deadline:
            now = docker.look(self.request)
            behind = daemon_json.unapplied_keys(content, now) + daemon_json.store_differs(content, now)
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
        # systemd gives up on a unit that was started a few times in a minute, and restoring the old file starts it too.
        self.module.run_command(["systemctl", "reset-failed", "docker"])
        rc, out, err = self.module.run_command(["systemctl", "restart", "docker"])
        if not rc:
            return None
        log = self.module.run_command(["journalctl", "-u", "docker", "-n", "20", "-o", "cat", "--no-pager"])[
            1
        ]
        reasons = [line for line in log.splitlines() if "failed" in line or "unable" in line]
        return (reasons or [(err or out).strip() or "systemctl restart docker failed"])[-1]


class File:
    """daemon.json as it was found. Replaces it, and puts it back."""

    def __init__(self, module: AnsibleModule, path: Path) -> None:
        self.module, self.path = module, path
        self.existed = path.exists()
        self.text = path.read_text() if self.existed else ""

    def replace(self, text: str) -> None:
        """Write to the disk before renaming: after a power cut, an empty file would be an empty configuration."""
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
        handle, name = tempfile.mkstemp(dir=self.path.parent, prefix=f".{self.path.name}.")
        try:
            with os.fdopen(handle, "w") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            if not self.path.exists():
                Path(name).chmod(0o644)
            self.module.atomic_move(name, str(self.path))
        finally:
            Path(name).unlink(missing_ok=True)
        sync(self.path.parent)

    def restore(self) -> None:
        if self.existed:
            self.replace(self.text)
        else:
            self.path.unlink()
            sync(self.path.parent)


@dataclass(frozen=True)
class Change:
    """The contents of the file before and after, and what the engine must do to follow."""

    before: dict[str, Any]
    after: dict[str, Any]
    plan: daemon_json.Plan
    text: str
    """The new text of the file."""

    @property
    def changed(self) -> bool:
        return bool(self.plan.changed) or self.plan.action != "none"

    def result(self, file: File) -> dict[str, Any]:
        action = self.plan.action
        return {
            "changed": self.changed,
            "changed_keys": self.plan.changed,
            "action": action,
            "because": self.plan.because,
            "stopped": self.plan.stops,
            "diff": {
                "before": daemon_json.redacted(file.text),
                "after": daemon_json.redacted(self.text),
                "before_header": str(file.path),
                "after_header": f"{file.path} ({action})" if action != "none" else str(file.path),
            },
        }


def plan(module: AnsibleModule, file: File, engine: Engine) -> Change:
    """The change to make. Fails the module if it cannot or may not be made, before anything is written."""
    asked = module.params
    try:
        before = daemon_json.parse(file.text)
        after = daemon_json.wanted(
            before,
            asked["registry_mirrors"],
            asked["nvidia_runtime"],
            asked["config"],
            asked["fleet_registry"],
        )
    except daemon_json.DaemonConfigError as error:
        module.fail_json(msg=cannot_merge(file.path, error))
    if why := daemon_json.unusable(after, engine.seen):
        module.fail_json(
            msg=f"expected {file.path} that dockerd starts with and follows, seen: {why}; do: correct what is asked for, or the file. "
            "Nothing was changed"
        )
    if engine.seen["snap"]:
        module.fail_json(
            msg=f"expected Docker as a package of the system, seen: Docker as a snap, which does not read {file.path}; "
            "do: snap remove docker, and run again. Nothing was changed"
        )
    if silent := engine.seen.get("silent"):
        module.fail_json(msg=f"expected an engine that answers, seen: {silent}; do: systemctl status docker")
    unseen = asked["nvidia_runtime"] and engine.toolkit["unseen"]
    made = daemon_json.plan(
        before,
        after,
        running=engine.seen["running"],
        engine=engine.seen,
        containers=engine.seen["containers"] or [],
        restart_because=[daemon_json.TOOLKIT_UNSEEN] if unseen else [],
    )
    if refused := daemon_json.refusal(made, asked["restart"]):
        module.fail_json(
            msg=f"expected no restart of Docker, or one that stops no container, seen: {'; '.join(made.because)}: {refused}; "
            f"do: {daemon_json.instead(made.because)}. Nothing was changed"
        )
    return Change(
        before, after, made, daemon_json.render(after, like=file.text) if made.changed else file.text
    )


def cannot_merge(path: Path, error: Exception) -> str:
    return f"expected {path} that can be merged, seen: {error}; do: mend it by hand and run again"


def apply(module: AnsibleModule, file: File, engine: Engine, change: Change) -> dict[str, Any]:
    """Write the file and have the engine follow. If it does not, put everything back and fail. Returns more of the result."""
    more: dict[str, Any] = {}
    if change.plan.changed:
        engine.validate(change.text)
    if wrong := engine.stop(change.plan.stops):
        module.fail_json(
            msg=f"expected the containers to stop, seen: {wrong}; do: stop them. {file.path} is untouched"
        )
    if change.plan.changed:
        if module.params["backup"] and file.existed:
            more["backup_file"] = module.backup_local(str(file.path))
        try:
            file.replace(change.text)
        except OSError as error:
            module.fail_json(msg=f"{unwritable(file.path, error)}. Nothing was changed")
    if change.plan.action == "none":
        return more
    if wrong := engine.follow(change.plan.action, change.after):
        undone = ""
        if change.plan.changed:
            file.restore()
            again = engine.follow(change.plan.action, change.before)
            outcome = f"needs care: {again}" if again else "runs with it"
            undone = f" {file.path} is as it was, and the engine {outcome}"
        module.fail_json(
            msg=f"expected the engine to {change.plan.action}, seen: {wrong}; do: journalctl -u docker.{undone}"
        )
    return more


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    hold(module)
    path = Path(module.params["path"])
    try:
        file = File(module, path)
    except (OSError, UnicodeDecodeError) as error:
        module.fail_json(msg=cannot_merge(path, error))
    engine = Engine(module, Request(daemon_config=str(path), socket=module.params["socket"]), str(path))
    change = plan(module, file, engine)
    result = change.result(file)
    if change.changed and not module.check_mode:
        result |= apply(module, file, engine, change)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
