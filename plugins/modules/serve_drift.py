#!/usr/bin/python
# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: serve_drift
short_description: Compare what serves on a host with what should
version_added: "0.1.0"
author:
  - The sparkfleet.vllm authors (@sparkfleet)
description:
  - Compares the container option by option with the wanted one, the image by digest, the patched files as the process sees
    them, the server's answers with its arguments, the acceptance since its start with the floor, the unit that keeps it running,
    and the record of what passed the gate.
  - Only reads, and sends no request that generates tokens.
options:
  serving:
    description: What should serve, as the filter P(sparkfleet.vllm.vllm_serving#filter) returns it.
    type: dict
    required: true
  labels:
    description: Further labels that the container should carry. Without it labels are not compared.
    type: dict
  boot_unit:
    description: Text of the unit that keeps the container running. Empty if there should be none.
    type: str
    default: ""
  stop_timeout:
    description:
      - Seconds until a server that begins to stop at once is killed. O(boot_unit) is expected with this and with what the server
        itself waits for, which differs where the record of an earlier release is kept (O(keep_recorded)).
    type: int
    required: true
  state_dir:
    description: Directory of C(state.json).
    type: path
    required: true
  api_key:
    description: API key that the server was started with. It is compared, and never shown.
    type: str
  keep_recorded:
    description: Whether a server that an earlier release of this collection deployed may stay as it is recorded.
    type: bool
    default: true
  patches_known:
    description: Whether O(serving) holds all patched files. If not, mounts and files are not judged.
    type: bool
    default: true
  patches_stored:
    description: Whether the store holds the locked patches. If not, a mount with the same wrong bytes is no separate finding.
    type: bool
    default: true
  ready_timeout:
    description: Seconds after its start in which a server that does not answer counts as starting, not as broken.
    type: int
    default: 1200
  watchdog:
    description:
      - Options of M(sparkfleet.vllm.watchdog) that say what should watch the server. Without it the watchdog is not judged.
      - Its key is O(api_key).
    type: dict
extends_documentation_fragment:
  - sparkfleet.vllm.internal
  - sparkfleet.vllm.attributes.looks
attributes:
  diff_mode:
    description: Findings replace the diff.
requirements:
  - docker, requests and prometheus_client (Python packages) on the host
"""

EXAMPLES = r"""
- name: Hold what serves against what should
  sparkfleet.vllm.serve_drift:
    serving: "{{ spark_candidate.serving }}"
    state_dir: /var/lib/sparkfleet
  vars:
    ansible_python_interpreter: /opt/sparkfleet/venv/bin/python
"""

RETURN = r"""
drift:
  description: What was found.
  returned: success
  type: dict
  contains:
    subjects:
      description: The subjects that were checked.
      type: list
      elements: str
      sample: [host, models, patches, container, server, boot, record, watchdog]
    findings:
      description: What differs, each with C(subject), C(kind), C(severity), C(expected), C(seen) and C(do). docs/drift.md lists the kinds.
      type: list
      elements: dict
      sample:
        - subject: container
          kind: argument
          severity: drift
          expected: --max-model-len 8192
          seen: --max-model-len 4096
          do: playbooks/site.yml makes it anew from the recipe
    unknown:
      description: Why a subject could not be judged, by its name.
      type: dict
      sample: {server: the container does not run}
    known:
      description:
        - The C(container), the C(speculation) since its start, and C(passed_on), driver, toolkit and engine with which the
          current record passed the gate; C(held), the run that holds the host, if any.
      type: dict
      sample:
        container: {id: 4f1c3c0d1f0e, image: "vllm/vllm-openai@sha256:…", status: running, restarts: 0}
        speculation: {drafts: 10342, acceptance_rate: 0.6904}
        passed_on: {driver: 580.95.05, toolkit: 1.19.0-1, engine: 29.1.3}
"""

import time
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import missing_required_lib

from ..module_utils._common.basic import AnsibleModule
from ..module_utils._common.inspected import CONTAINER, IMAGE, unfit
from ..module_utils._common.paths import unit_path
from ..module_utils._common.sources import SourceError
from ..module_utils._drift import look as drift_look
from ..module_utils._drift import watchdog as drift_watchdog
from ..module_utils._drift.container import has_gpu
from ..module_utils._gate import container as gate_container
from ..module_utils._gate import docker_container
from ..module_utils._gate.diagnosis import CheckedFile, WantedFile
from ..module_utils._host import unit
from ..module_utils._run import lock_file
from ..module_utils._serve import former, short_lived, watched
from ..module_utils._serve import state as serve_state
from ..module_utils._unit import status as unit_status
from ..module_utils._vllm import client, log, metrics
from ..module_utils._vllm.argv import shutdown_timeout
from ..module_utils._watchdog import install
from ..module_utils._watchdog import plan as watchdog_plan
from ..module_utils._watchdog.settings import SettingsError

if not docker_container.DOCKER_IMPORT_ERROR:
    import docker
    import docker.errors

START_WINDOW = 3600.0
"""Seconds of log after a start in which vLLM says how it was configured."""
_LIBRARIES = (
    ("docker", docker_container.DOCKER_IMPORT_ERROR),
    ("requests", client.REQUESTS_IMPORT_ERROR),
    ("prometheus_client", metrics.PROMETHEUS_IMPORT_ERROR),
)


def _fit(name: str, data: Any, expected: Any) -> dict[str, Any]:
    """:raises EngineError: the answer has another form than is read here"""
    if said := unfit(name, data, expected):
        raise docker_container.EngineError(said)
    return dict(data)


class Engine:
    """The local Docker engine. Gives None for a thing that is not there."""

    def __init__(self) -> None:
        self._api = docker.from_env(timeout=60).api

    def container(self, name: str) -> dict[str, Any] | None:
        try:
            return _fit(name, self._api.inspect_container(name), CONTAINER)
        except docker.errors.NotFound:
            return None

    def image(self, name: str) -> dict[str, Any] | None:
        try:
            return _fit(name, self._api.inspect_image(name), IMAGE)
        except docker.errors.NotFound:
            return None

    def changes(self, name: str) -> list[dict[str, Any]]:
        return list(self._api.diff(name) or [])

    def others_with_gpu(self, name: str) -> list[str]:
        """Names of running containers, without `name`, that were given a GPU."""
        found = []
        for listed in self._api.containers():
            other = self.container(listed["Id"])
            if other is None or short_lived.LABEL in (other["Config"].get("Labels") or {}):
                continue
            if has_gpu(other["HostConfig"]) and other["Name"].lstrip("/") != name:
                found.append(other["Name"].lstrip("/"))
        return sorted(found)


def look_files(
    container: docker_container.DockerContainer, state: gate_container.State, files: list[dict[str, Any]]
) -> list[CheckedFile]:
    return [
        CheckedFile(
            WantedFile(**file),
            container.file(state, file["path"]),
            container.host_file(file["host_path"]) if file.get("host_path") else None,
            state.mounts.get(file["path"]),
        )
        for file in files
    ]


def mounted(state: gate_container.State, serving: dict[str, Any]) -> dict[str, str]:
    """Models and other mounts of a record that are mounted from the right place: mount point -> source."""
    # A record from before there were other mounts has none.
    entries = [*serving["models"].values(), *(serving.get("mounts") or [])]
    wanted = {entry["mount"]: entry["path"] for entry in entries}
    return {target: source for target, source in wanted.items() if state.mounts.get(target) == source}


def ask(server: client.Server) -> drift_look.Answers:
    """The server's answers to questions that cost it no work."""
    if not server.healthy():
        return drift_look.Answers()
    models, problem = None, ""
    try:
        models = server.models()
    except client.ServerError as error:
        problem = f"which models it serves: {error}"
    try:
        text = server.metrics()
        counters = metrics.parse(text)
        cache = metrics.labels(text, "vllm:cache_config_info")
    except (client.ServerError, metrics.MetricsError) as error:
        return drift_look.Answers(True, models, problem=f"its counters: {error}")
    return drift_look.Answers(True, models, counters, cache, problem)


def recorded(state_dir: str) -> tuple[dict[str, Any] | None, str]:
    """The content of ``state.json``, and why it cannot be read."""
    path = Path(state_dir) / "state.json"
    try:
        return serve_state.parse(path.read_text() if path.exists() else None), ""
    except (ValueError, OSError) as error:
        return None, str(error)


def look_watchdog(plan: watchdog_plan.Plan, now: float) -> drift_watchdog.Seen:
    """:raises OSError: a file of it cannot be read"""
    verdict, problem = None, ""
    try:
        with plan.places.verdict.open("rb") as file:
            verdict = watched.parse(file.read(watched.LIMIT + 1))
    except (OSError, ValueError) as error:
        problem = str(error)
    state = install.look(plan.places, plan.program)
    units = [unit.look(name) for name in state.units if "@" not in name]
    drop_ins = [path for each in units for path in each.drop_ins]
    return drift_watchdog.Seen(state, drop_ins, verdict, problem, now)


def look(
    params: dict[str, Any],
    engine: Engine,
    record: tuple[dict[str, Any] | None, str],
    plan: watchdog_plan.Plan | None,
) -> drift_look.Seen:
    """:param record: as :func:`recorded` gives it
    :param plan: of the watchdog; None where it is not judged

    :raises docker.errors.DockerException, OSError, EngineError: the engine does not answer"""
    serving = params["serving"]
    name = serving["container"]["name"]
    data = engine.container(name)
    seen: dict[str, Any] = {
        "container": data,
        "wanted_image": engine.image(serving["container"]["image"]),
        "neighbours": engine.others_with_gpu(name),
        "unit": unit.look(f"{name}.service"),
        "now": time.time(),
    }
    seen["held"] = lock_file.look_alive(Path(params["state_dir"]), seen["now"])
    seen["recorded"], seen["record_problem"] = record
    if serving.get("unit"):
        found = unit_status.read(Path(unit_path(params["state_dir"])))
        seen["member"] = unit_status.judged(*found, seen["now"])
    if plan is not None:
        seen["watchdog"] = look_watchdog(plan, seen["now"])
    if data is not None:
        seen["image"] = engine.image(data["Image"])
        container = docker_container.DockerContainer(name, [params["api_key"] or ""])
        state = container.inspect()
        seen["state"] = state
        if state is not None and state.status == "running":
            start = state.started
            seen |= {
                "files": look_files(container, state, serving["files"]) if params["patches_known"] else [],
                "changes": engine.changes(name),
                "stale": gate_container.stale_mounts(state.pid, mounted(state, serving)),
                "answers": drift_look.Answers()
                if serve_state.rank_of(serving)
                else ask(client.Server(serving["gate"]["base_url"], params["api_key"])),
                "log": log.speculation(line.text for line in container.log(start, start + START_WINDOW)),
            }
    return drift_look.Seen(**seen)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "serving": {"type": "dict", "required": True},
            "labels": {"type": "dict"},
            "boot_unit": {"type": "str", "default": ""},
            "stop_timeout": {"type": "int", "required": True},
            "state_dir": {"type": "path", "required": True},
            "api_key": {"type": "str", "no_log": True},
            "keep_recorded": {"type": "bool", "default": True},
            "patches_known": {"type": "bool", "default": True},
            "patches_stored": {"type": "bool", "default": True},
            "ready_timeout": {"type": "int", "default": 1200},
            "watchdog": {"type": "dict"},
        },
        supports_check_mode=True,
    )
    for library, error in _LIBRARIES:
        if error:
            module.fail_json(msg=missing_required_lib(library), exception=error)
    params = module.params
    record = recorded(params["state_dir"])
    if params["keep_recorded"]:
        params["serving"] = former.as_recorded(params["serving"], record[0])
    try:
        asked = params["watchdog"]
        plan = watchdog_plan.given({**asked, "api_key": params["api_key"]}) if asked else None
    except (SettingsError, SourceError) as error:
        module.fail_json(msg=str(error))
    wanted = drift_look.Wanted(
        serving=params["serving"],
        labels=params["labels"],
        secrets={"VLLM_API_KEY": params["api_key"]} if params["api_key"] else {},
        boot_unit=unit.stopping_after(
            params["boot_unit"],
            params["stop_timeout"] + shutdown_timeout(params["serving"]["container"]["command"]),
        ),
        patches_known=params["patches_known"],
        patches_stored=params["patches_stored"],
        ready_timeout=params["ready_timeout"],
        watchdog=plan.after if plan else None,
    )
    try:
        seen = look(params, Engine(), record, plan)
    except (docker.errors.DockerException, docker_container.EngineError, OSError) as problem:
        module.fail_json(
            msg=f"expected a Docker engine that answers, seen: {problem}; do: systemctl status docker"
        )
    module.exit_json(
        changed=False,
        drift=drift_look.judge(wanted, seen, str(Path(params["state_dir"]) / "state.json")),
    )


if __name__ == "__main__":
    main()
