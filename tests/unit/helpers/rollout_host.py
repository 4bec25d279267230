# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A Spark that is a directory, and the action plugins that stand in for the modules which touch a real one.

What a run asks of a host becomes steps: ``look``, ``compare``, ``judge``, ``look for room``, ``make room``, ``stopped``, ``start``,
``gate``, ``record``, ``stop``. Each is written down. A test may hold a host at a step, or lose it there. The server of a host passes
the gate unless its environment says ``STUB_ACCEPTANCE=0``, as the lab's stub of vLLM has it. Behind a gateway come ``guard``, and
``drain``, ``idle``, ``wait`` and ``admit``, each with the name of the gateway; the real modules have their own tests.

Loaded by ansible-playbook; helpers/rollout.py puts it there.
"""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail, AnsibleConnectionFailure
from ansible.plugins.action import ActionBase
from ansible_collections.sparkfleet.vllm.plugins.module_utils._common import store
from ansible_collections.sparkfleet.vllm.plugins.module_utils._gateway import drain
from ansible_collections.sparkfleet.vllm.plugins.module_utils._gateway.answers import DRAINED, READY, Server
from ansible_collections.sparkfleet.vllm.plugins.module_utils._serve import state as serve_state
from ansible_collections.sparkfleet.vllm.plugins.plugin_utils.gateway import fleet

RUNNING, EXITED = "running", "exited"


class Host:
    """``container.json``: id, status, started_at, spec, drafts; ``events``: what became of servers; ``steps``; ``told.json``: orders."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.state = folder / "state" / "state.json"

    @property
    def container(self) -> dict[str, Any] | None:
        path = self.folder / "container.json"
        return json.loads(path.read_text()) if path.exists() else None

    def _put(self, container: dict[str, Any]) -> None:
        path = self.folder / "container.json"
        path.with_suffix(".new").write_text(json.dumps(container))
        path.with_suffix(".new").rename(path)

    def _add(self, name: str, line: str) -> None:
        with (self.folder / name).open("a") as file:
            file.write(line + "\n")

    def _event(self, action: str, identity: str) -> None:
        self._add("events", json.dumps({"time": time.time(), "action": action, "id": identity}))

    def events(self) -> list[dict[str, Any]]:
        path = self.folder / "events"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def steps(self) -> list[str]:
        path = self.folder / "steps"
        return path.read_text().splitlines() if path.exists() else []

    def tell(self, **orders: Any) -> None:
        """``hold``, ``lose`` or ``fail``: the step at which that happens; ``time``: which of several, from 1; ``full``: nothing can be
        recorded; ``look``: what the supervisor of a unit's member says.

        Steps are counted from now on.
        """
        (self.folder / "steps").write_text("")
        (self.folder / "held").unlink(missing_ok=True)
        (self.folder / "told.json").write_text(json.dumps(orders))

    def let_go(self) -> None:
        (self.folder / "told.json").unlink(missing_ok=True)

    @property
    def told(self) -> dict[str, Any]:
        path = self.folder / "told.json"
        return json.loads(path.read_text()) if path.exists() else {}

    @property
    def held(self) -> bool:
        return (self.folder / "held").exists()

    def step(self, name: str) -> None:
        """A run has come to this step.

        :raises AnsibleConnectionFailure: the host is to be lost here, or was before
        """
        self._add("steps", name)
        path, orders = self.folder / "told.json", self.told
        seen, which = self.steps(), orders.get("time", 1)
        if orders.get("hold") == name and seen.count(name) == which:
            run = os.getppid()
            (self.folder / "held").touch()
            while path.exists():
                if os.getppid() != run:
                    os._exit(1)  # of a controller that is gone
                time.sleep(0.02)
        if orders.get("fail") == name and seen.count(name) == which:
            raise AnsibleActionFail(f"the disk is full at: {name}")
        if "lose" in orders and seen.count(orders["lose"]) >= which:
            raise AnsibleConnectionFailure("the host was switched off")

    def stop(self) -> float | None:
        """When a server that ran was asked to stop; None where none ran."""
        if not (container := self.container) or container["status"] != RUNNING:
            return None
        asked = time.time()
        self._put(container | {"status": EXITED})
        self._event("die", container["id"])
        return asked

    def start(self, spec: dict[str, Any]) -> None:
        old = self.container
        identity = old["id"] if old and old["spec"] == spec else uuid.uuid4().hex
        started = datetime.now(timezone.utc).isoformat().replace("+00:00", "Z")
        self._put({"id": identity, "status": RUNNING, "started_at": started, "spec": spec, "drafts": None})
        self._event("start", identity)

    def measured(self) -> None:
        container = self.container
        assert container is not None
        self._put(container | {"drafts": 236})

    def boot(self) -> None:
        """Power is back: the server that is there starts again, as its unit has it."""
        if (container := self.container) is not None:
            self.start(container["spec"])


class Gate:
    """A gateway that is a directory. ``servers.json`` says what each Spark may get, by pool/name."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "servers.json"

    @property
    def servers(self) -> list[Server]:
        known = json.loads(self.path.read_text()) if self.path.exists() else {}
        places = [(*key.split("/"), each) for key, each in known.items()]
        return [Server(pool, name, up=True, **each) for pool, name, each in places]

    def put(self, servers: Sequence[Server]) -> None:
        known = {
            each.key: {"state": each.state, "address": each.address, "port": each.port} for each in servers
        }
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.with_suffix(".new").write_text(json.dumps(known))
        self.path.with_suffix(".new").rename(self.path)

    def give(self, changed: Sequence[Server], state: str) -> None:
        """One at a time, as the real module does."""
        with store.locked(self.path.parent, 60, print):
            keys = {each.key for each in changed}
            self.put([replace(each, state=state) if each.key in keys else each for each in self.servers])

    def states(self) -> dict[str, str]:
        """By Spark."""
        return {each.name: each.state for each in self.servers}


class StandIn(ActionBase):
    """Runs on the controller, and the host is a directory."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        self.variables = task_vars or {}
        host = Host(Path(self.variables["lab_host"]))
        return result | self.on(host, dict(self._task.args), bool(self._task.check_mode))

    def on(self, host: Host, options: dict[str, Any], dry: bool) -> dict[str, Any]:
        raise NotImplementedError


class HostUnchanged(StandIn):
    """Whatever is asked, everything is looked at."""

    def on(self, host: Host, options: dict[str, Any], dry: bool) -> dict[str, Any]:
        return {"changed": False, "settled": False}


class ServeInfo(StandIn):
    def on(self, host: Host, options: dict[str, Any], dry: bool) -> dict[str, Any]:
        host.step("look")
        seen = host.container
        state = serve_state.parse(host.state.read_text() if host.state.exists() else None)
        kept = [which for which in serve_state.KEPT if (state or {}).get(which)]
        return {
            "changed": False,
            "container": seen
            and {
                "id": seen["id"],
                "status": seen["status"],
                "image": seen["spec"]["image"],
                "started_at": seen["started_at"],
                "restart_policy": "no",
            },
            "state": state,
            "problem": "",
            "recorded": {which: {"missing": [], "stamps": []} for which in kept},
            "image": {"id": "sha256:1", "settled": True, "mirrored": False} if options.get("image") else None,
            "unit": {"text": "", "enabled": False, "watches": False},
        }


class DockerContainer(StandIn):
    """``community.docker.docker_container``: its diff names the options that differ, as that module's does."""

    MANNER = ("state", "recreate", "comparisons", "command_handling", "stop_timeout")

    def on(self, host: Host, options: dict[str, Any], dry: bool) -> dict[str, Any]:
        if options["state"] == "stopped":
            host.step("stop")
            running = (host.container or {}).get("status") == RUNNING
            if not dry:
                host.stop()
            return {"changed": running}
        host.step("compare" if dry else "start")
        spec = {name: value for name, value in options.items() if name not in self.MANNER}
        seen = host.container
        before, after = self._sides(seen, spec)
        if after and not dry:
            host.stop()
            host.start(spec)
        return {"changed": bool(after), "diff": {"before": before, "after": after}}

    @staticmethod
    def _sides(seen: dict[str, Any] | None, spec: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        if seen is None:
            return {"exists": False}, {"exists": True}
        before, after = {}, {}
        for name in {**seen["spec"], **spec}:
            was, wanted = seen["spec"].get(name), spec.get(name)
            if was != wanted:
                shown = {"image": "image_name", "volumes": "volume_binds"}.get(name, name)
                before[shown], after[shown] = (_shown(name, value) for value in (was, wanted))
        if seen["status"] != RUNNING:
            before["running"], after["running"] = False, True
        return before, after


def _shown(name: str, value: Any) -> Any:
    """An option, as the diff of docker_container has it."""
    if name == "env":
        return [f"{key}={text}" for key, text in (value or {}).items()]
    if name == "published_ports":
        ports = [text.rsplit(":", 2) for text in value or []]
        return {f"{inside}/tcp": [{"HostIp": ip, "HostPort": outside}] for ip, outside, inside in ports}
    return value


class ServeValidate(StandIn):
    def on(self, host: Host, options: dict[str, Any], dry: bool) -> dict[str, Any]:
        host.step("judge")
        return {"changed": False}


class PortGuard(StandIn):
    """The real module would set rules on this machine. Where it is asked for, the port of another server is kept, too."""

    def on(self, host: Host, options: dict[str, Any], dry: bool) -> dict[str, Any]:
        host.step("guard")
        return {"changed": False, "ports": [1, *map(int, options["ports"])]}


class UnitGuard(StandIn):
    """The real module would set rules on this machine. Members of the unit on record are kept, too."""

    def on(self, host: Host, options: dict[str, Any], dry: bool) -> dict[str, Any]:
        host.step(f"guard unit {','.join(options.get('records', ['current', 'last_good']))}")
        return {"changed": False, "members": options["members"]}


class Watchdog(StandIn):
    """The real module would set up units on this machine."""

    def on(self, host: Host, options: dict[str, Any], dry: bool) -> dict[str, Any]:
        host.step("watch")
        return {"changed": False, "changes": []}


class MemoryReclaim(StandIn):
    def on(self, host: Host, options: dict[str, Any], dry: bool) -> dict[str, Any]:
        host.step("look for room" if dry else "make room")
        running = (host.container or {}).get("status") == RUNNING
        asked = None if dry else host.stop()
        if not dry:
            host.step("stopped")
        return {"changed": running, "made": not dry, "stopped": running, "stopped_at": asked}


class SpecDecodeAssert(StandIn):
    """A server that nobody started is none."""

    def on(self, host: Host, options: dict[str, Any], dry: bool) -> dict[str, Any]:
        host.step("gate")
        seen = host.container
        if seen is None or seen["status"] != RUNNING:
            return self._refusal("container_not_running", "expected a server that runs, seen none")
        life = {"container": {"id": seen["id"], "started_at": seen["started_at"], "image": ""}, "files": []}
        if options.get("headless"):
            return {"changed": False, "verdict": "pass", "diagnosis": "ok", **life, "passed_at": time.time()}
        if seen["spec"]["env"].get("STUB_ACCEPTANCE") == "0":
            told = "expected drafts that the model accepts, seen 0 of 236; do: look at the draft"
            return self._refusal("drafts_never_accepted", told) | life
        host.measured()
        now = time.time()
        figures = {"drafts": 236, "acceptance_rate": 0.69, "decode_tokens_per_second": 30.0}
        return {"changed": False, "verdict": "pass", "diagnosis": "ok", **life, **figures,
                "accepted_per_position": [0.69], "mean_acceptance_length": 1.69, "ready_at": now, "passed_at": now}  # fmt: skip

    @staticmethod
    def _refusal(diagnosis: str, told: str) -> dict[str, Any]:
        return {"failed": True, "verdict": "fail", "diagnosis": diagnosis, "msg": told}


class UnitLook(StandIn):
    def on(self, host: Host, options: dict[str, Any], dry: bool) -> dict[str, Any]:
        host.step("look at the member")
        status = (host.container or {}).get("status", "")
        phase = RUNNING if status == RUNNING else ""
        known = {
            "changed": False,
            "phase": phase,
            "generation": "a1",
            "why": "",
            "problem": "",
            "container": status,
        }
        return known | host.told.get("look", {})


class UnitSupervisor(StandIn):
    def on(self, host: Host, options: dict[str, Any], dry: bool) -> dict[str, Any]:
        host.step("supervisor")
        return {"changed": False, "path": "/store/supervisor/1", "key": "0" * 64} if options.get("generate") else {
            "changed": False, "path": "/store/supervisor/1"
        }  # fmt: skip


class ServeIdle(StandIn):
    def on(self, host: Host, options: dict[str, Any], dry: bool) -> dict[str, Any]:
        host.step("idle")
        return {"changed": False, "requests": 0}


class AtGate(StandIn):
    """A task of a Spark that is delegated to a gateway."""

    @property
    def gate(self) -> Gate:
        return Gate(Path(self.variables["hostvars"][self._task.delegate_to]["lab_host"]))

    def step(self, host: Host, what: str) -> None:
        host.step(f"{what} at {self._task.delegate_to}")


class GatewayServer(AtGate):
    def on(self, host: Host, options: dict[str, Any], dry: bool) -> dict[str, Any]:
        self.step(host, "drain" if int(options["timeout"]) == 0 else "wait")
        mine = drain.named(self.gate.servers, options["name"], [])
        lacking = drain.lacking(mine, options["state"])
        if not dry:
            self.gate.give(lacking, options["state"])
        return {"changed": bool(lacking), "servers": [], "idle": True}


class GatewayOutage(AtGate):
    def on(self, host: Host, options: dict[str, Any], dry: bool) -> dict[str, Any]:
        found = drain.outages_by_batch(
            self.gate.servers,
            [(batch.get("taken", []), batch.get("admitted", [])) for batch in options["batches"]],
        )
        failed = bool(found) and not options["allow_outage"]
        return {"changed": False, "failed": failed, "outages": found, "msg": f"an outage of {found}"}


class GatewayAdmit(AtGate):
    def on(self, host: Host, options: dict[str, Any], dry: bool) -> dict[str, Any]:
        self.step(host, "admit")
        hosts = self.variables["hostvars"]
        names = options.get("sparks") or self.variables["ansible_play_hosts"]
        passed = [
            name for name in names if "spark_served" in hosts[name] and "spark_failure" not in hosts[name]
        ]
        wanted = [
            fleet.place(name, hosts[name]["spark_served"], fleet.met_at(name, hosts[name])) for name in passed
        ]
        places = [drain.place(self.gate.servers, each) for each in wanted]
        self.gate.give(drained := [each for each in places if each and each.state == DRAINED], READY)
        return {"changed": bool(drained), "admitted": [each.key for each in drained]}


class ServeState(StandIn):
    """The real module records; a test may come before it."""

    def on(self, host: Host, options: dict[str, Any], dry: bool) -> dict[str, Any]:
        host.step("record")
        if host.told.get("full"):
            options = options | {"path": "/dev/full/state.json"}
        done: dict[str, Any] = self._execute_module(
            "sparkfleet.vllm.serve_state", options, task_vars=self.variables
        )
        return done
