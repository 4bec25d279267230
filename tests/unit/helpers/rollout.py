# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A fleet whose hosts are directories, and the real playbooks on it, as a user runs them.

Playbooks, filters, the lock, the reports and the roles that decide and change are the real ones. rollout_host.py stands in for the
modules that touch an engine or a server; roles that bring things to a host before its turn bring nothing.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from ansible_collections.sparkfleet.vllm.plugins.module_utils._gateway.answers import Server
from ansible_collections.sparkfleet.vllm.plugins.plugin_utils.gateway.fleet import place
from helpers.playbook import PROGRAM, environment
from helpers.recipe import ROOT
from helpers.rollout_host import RUNNING, Gate, Host

BRING = ("recipe", "prerequisites", "model_sync", "image_sync", "image_registry", "patch_pin", "gateway")
"""Roles that find everything in place."""
REAL = ("drain.yml", "admit.yml", "outage.yml")
"""Task files of such a role that work all the same."""
MODULES = {
    "community.docker.docker_container": "DockerContainer",
    "sparkfleet.vllm.gateway_admit": "GatewayAdmit",
    "sparkfleet.vllm.gateway_outage": "GatewayOutage",
    "sparkfleet.vllm.gateway_server": "GatewayServer",
    "sparkfleet.vllm.host_unchanged": "HostUnchanged",
    "sparkfleet.vllm.memory_reclaim": "MemoryReclaim",
    "sparkfleet.vllm.port_guard": "PortGuard",
    "sparkfleet.vllm.serve_idle": "ServeIdle",
    "sparkfleet.vllm.serve_info": "ServeInfo",
    "sparkfleet.vllm.serve_state": "ServeState",
    "sparkfleet.vllm.serve_validate": "ServeValidate",
    "sparkfleet.vllm.spec_decode_assert": "SpecDecodeAssert",
    "sparkfleet.vllm.unit_guard": "UnitGuard",
    "sparkfleet.vllm.unit_look": "UnitLook",
    "sparkfleet.vllm.unit_supervisor": "UnitSupervisor",
    "sparkfleet.vllm.watchdog": "Watchdog",
}
"""Modules, and the classes of rollout_host.py that stand in for them."""
SERVE: dict[str, Any] = {
    "ansible_connection": "local",
    "ansible_become": False,
    "ansible_python_interpreter": sys.executable,
    "vllm_serve_python": sys.executable,
    "spark_guarded": False,
    "spark_unit_guarded": False,
    "image_registry_config": "/etc/registry.yml",
    "image_registry_host": "",
    "vllm_serve_bind": "127.0.0.1",
    "vllm_serve_recipe": "r",
    "vllm_serve_image": "r/vllm@sha256:" + "1" * 64,
    "vllm_serve_models": {"body": {"path": "/store/body", "mount": "/models/body"}},
    "vllm_serve_arguments": {"speculative-config": {"method": "mtp", "num_speculative_tokens": 1}},
}


def collection(folder: Path) -> Path:
    """The real collection, with what stands in for the rest. Gives the directory of collections."""
    root = folder / "ansible_collections/sparkfleet/vllm"
    for name in ("plugins/action", "roles"):
        (root / name).mkdir(parents=True)
    for path in (ROOT / "plugins").iterdir():
        if path.is_dir() and path.name != "action":
            (root / "plugins" / path.name).symlink_to(path)
    for path in [*(ROOT / "plugins/action").glob("*.py"), *(ROOT / "roles").iterdir()]:
        (root / path.relative_to(ROOT)).symlink_to(path)
    for name in BRING:
        role = root / "roles" / name
        role.unlink()
        for path in (ROOT / "roles" / name).iterdir():
            if path.name != "tasks":
                (role / path.name).parent.mkdir(exist_ok=True)
                (role / path.name).symlink_to(path)
        (role / "tasks").mkdir()
        for path in (ROOT / "roles" / name / "tasks").iterdir():
            if path.name in REAL:
                (role / "tasks" / path.name).symlink_to(path)
            else:
                (role / "tasks" / path.name).write_text("---\n[]\n")
    for module, stand_in in MODULES.items():
        path = folder / "ansible_collections" / module.rpartition(".")[0].replace(".", "/") / "plugins/action"
        path.mkdir(parents=True, exist_ok=True)
        plugin = path / f"{module.rpartition('.')[2]}.py"
        plugin.unlink(missing_ok=True)
        plugin.write_text(f"from helpers.rollout_host import {stand_in} as ActionModule\n")
    return folder


@dataclass(frozen=True)
class Seen:
    """A host at one moment."""

    name: str
    container: dict[str, Any] | None
    state: str
    recorded_at: float
    events: list[dict[str, Any]]

    @property
    def serves(self) -> tuple[str, str] | None:
        """The very process: container and start."""
        return (self.container["id"], self.container["started_at"]) if self.container else None

    @property
    def spec(self) -> dict[str, Any]:
        assert self.container is not None, f"{self.name} has no server"
        spec: dict[str, Any] = self.container["spec"]
        return spec

    def proven(self) -> list[Any]:
        state = json.loads(self.state)
        return [state[which] and state[which]["serving"]["container"] for which in ("current", "last_good")]

    def passed(self) -> bool:
        """What runs is what is recorded, and was measured in this very process."""
        if self.container is None or self.container["status"] != RUNNING:
            return False
        recorded = self.proven()[0]
        seen = {name: self.spec[name] for name in ("image", "command", "env")}
        return bool(self.container["drafts"]) and seen == {name: recorded[name] for name in seen}

    def at(self, action: str) -> float:
        """When that happened to a server first."""
        times = [event["time"] for event in self.events if event["action"] == action]
        assert times, f"{self.name}: {action} not among {self.events}"
        return float(times[0])


class Run:
    """One run of a playbook. Whatever strategy its controller prefers must not matter."""

    def __init__(self, fleet: Fleet, playbook: str, options: Iterable[str], extra: Mapping[str, Any]) -> None:
        self.began = time.time()
        self._output = fleet.folder / f"output-{time.monotonic_ns()}"
        # `__vllm_serve_unit`: nothing is written to where systemd of this machine would find it.
        given = {**extra, "__vllm_serve_unit": ""}
        with self._output.open("w") as output:
            self.process = subprocess.Popen(
                [PROGRAM, ROOT / f"playbooks/{playbook}.yml",
                 f"--inventory={fleet.inventory}", f"--extra-vars={json.dumps(given)}", *options],
                cwd=fleet.folder,
                env=environment(
                    Path(__file__).parents[1],
                    ANSIBLE_COLLECTIONS_PATH=str(fleet.collections),
                    ANSIBLE_FORCE_COLOR="0",
                    ANSIBLE_STRATEGY="ansible.builtin.free",
                    COLUMNS="300",
                ),
                stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip

    @property
    def output(self) -> str:
        return self._output.read_text()

    def end(self) -> Run:
        self.process.wait(timeout=600)
        self.ended = time.time()
        self.failed = self.process.returncode != 0
        return self

    def kill(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def row(self, name: str) -> str:
        """The host's line of the table."""
        rows = [
            line for line in self.output.splitlines() if re.match(rf"{name}\s", line) and "ok=" not in line
        ]
        assert rows, f"no line of {name} in a table:\n{self.output}"
        return rows[-1].rstrip()


class Fleet:
    """Hosts as they are in `template`, a directory of one; else hosts where nothing was ever deployed."""

    def __init__(
        self, folder: Path, collections: Path, names: Sequence[str], template: Path | None = None
    ) -> None:
        self.folder, self.collections, self.names = folder, collections, list(names)
        self.inventory = folder / "hosts.yml"
        self.runs: list[Run] = []
        self.gates: dict[str, Gate] = {}
        self.hosts = {name: Host(folder / name) for name in names}
        for host in self.hosts.values():
            if template:
                shutil.copytree(template, host.folder)
            host.state.parent.mkdir(parents=True, exist_ok=True)
        self.describe()

    def address(self, name: str) -> str:
        return f"192.0.2.{1 + self.names.index(name)}"

    def put_behind(self, *names: str) -> None:
        """All Sparks get requests from these gateways now."""
        self.gates = {name: Gate(self.folder / name) for name in names}
        for gate in self.gates.values():
            known = [
                place(name, json.loads(host.state.read_text())["current"]["serving"], self.address(name))
                for name, host in self.hosts.items()
            ]
            gate.put(
                [Server(at["pool"], at["name"], "ready", True, 0, at["address"], at["port"]) for at in known]
            )
        self.describe()

    def describe(self, hosts: Mapping[str, Mapping[str, Any]] | None = None) -> None:
        """Writes the inventory, with variables of single hosts."""
        own = {
            name: {
                "lab_host": str(self.folder / name),
                "spark_state_dir": str(self.folder / name / "state"),
                "ansible_host": self.address(name),
            }
            | dict((hosts or {}).get(name, {}))
            for name in self.names
        }
        # One for all, and not a host's own: a host that is made of a template has the record of that.
        shared = SERVE | {"spark_store": str(self.collections / "store")}
        groups: dict[str, Any] = {"sparks": {"hosts": own, "vars": shared}}
        if self.gates:
            gates = {
                name: {
                    "lab_host": str(self.folder / name),
                    "spark_state_dir": str(self.folder / name / "state"),
                }
                for name in self.gates
            }
            groups["gateways"] = {"hosts": gates, "vars": SERVE}
        self.inventory.write_text(yaml.safe_dump(groups))

    def start(self, playbook: str, *options: str, **extra: Any) -> Run:
        self.runs.append(Run(self, playbook, options, extra))
        return self.runs[-1]

    def run(self, playbook: str, *options: str, **extra: Any) -> Run:
        return self.start(playbook, *options, **extra).end()

    def held(self, name: str, run: Run) -> None:
        """Waits until a run has come to where the host is held."""
        until(lambda: self.hosts[name].held or run.process.poll() is not None)
        assert run.process.poll() is None, run.output

    def look(self, since: float = 0) -> dict[str, Seen]:
        return {name: self._look(name, since) for name in self.names}

    def _look(self, name: str, since: float) -> Seen:
        host = self.hosts[name]
        recorded = host.state.exists()
        return Seen(
            name,
            host.container,
            host.state.read_text() if recorded else "",
            host.state.stat().st_mtime if recorded else 0.0,
            [event for event in host.events() if event["time"] >= since],
        )

    def locks(self) -> list[str]:
        """The hosts that a run holds."""
        return [path.parent.parent.name for path in self.folder.glob("*/state/run.json")]

    def end(self) -> None:
        for host in self.hosts.values():
            host.let_go()
        for run in self.runs:
            if run.process.poll() is None:
                run.kill()


def until(condition: Callable[[], Any], within: float = 300) -> None:
    """The limit is for what never comes, not for what is slow."""
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline, "it never came to that"
        time.sleep(0.02)
