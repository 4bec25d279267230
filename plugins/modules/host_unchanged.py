#!/usr/bin/python
# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: host_unchanged
short_description: Whether anything has changed since a run in which nothing was to be done
version_added: "0.1.0"
author:
  - The sparkfleet.vllm authors (@sparkfleet)
description:
  - A run that brings a host to a recipe looks at packages, engine, models, image, patches and container, one module after the
    other. This one tells in one execution that they would all see what they saw before.
  - It keeps digests of what those modules look at, C(<state_dir>/settled.json). They are taken at the beginning of a run and at its
    end, and hold only when they are equal, the run had nothing to do, and the host passed. So what changed while a run
    was looking is looked at again.
  - It takes no lock and changes nothing with O(state=looked). Where another run holds the lock of the host, nothing is settled.
  - A digest of all that was asked for belongs to them. The controller side makes it of the host's variables and of the code of
    this collection, so other inputs or another release call for a full look.
  - Nothing but the standard library of the system's Python is needed. Files are told apart by their stat, as C(hf_snapshot) does.
options:
  state:
    description:
      - V(looked) compares. V(recorded) is for the end of a run in which the host has passed.
    type: str
    choices: [looked, recorded]
    default: looked
  state_dir:
    description: Directory of C(state.json) and C(settled.json) on the host.
    type: path
    required: true
  before:
    description: What the look at the beginning of the run returned as RV(seen). With O(state=recorded).
    type: dict
    default: {}
  inputs:
    description: Digest of all that is asked for. Filled in by the controller side with O(state=looked), and given back with O(state=recorded).
    type: str
    default: ""
  trust:
    description: With V(false) and O(state=looked), nothing is taken for settled, and what is seen is returned all the same.
    type: bool
    default: true
  environment:
    description: Python environment of the modules. With O(state=recorded), as are the next two.
    type: path
    default: /opt/sparkfleet/venv
  files:
    description: Further files whose change calls for a full look.
    type: list
    elements: path
    default: [/etc/docker/daemon.json]
  urls:
    description: Addresses on the host's own network whose answer, a status of HTTP, is part of what was seen.
    type: list
    elements: str
    default: []
  socket:
    description: Socket of the Docker engine.
    type: path
    default: /var/run/docker.sock
extends_documentation_fragment:
  - sparkfleet.vllm.internal
attributes:
  check_mode:
    description: Compares as otherwise, and records nothing.
    support: full
  diff_mode:
    description: There is no difference to show.
    support: none
  idempotent:
    description: What it records is a cache and counts as no change.
    support: full
seealso:
  - module: sparkfleet.vllm.spark_info
  - module: sparkfleet.vllm.serve_info
"""

EXAMPLES = r"""
- name: See whether anything has changed
  sparkfleet.vllm.host_unchanged:
    state_dir: /var/lib/sparkfleet
  register: spark_settled
  become: true

- name: Remember how it looked
  sparkfleet.vllm.host_unchanged:
    state: recorded
    state_dir: /var/lib/sparkfleet
    before: "{{ spark_settled.seen }}"
    inputs: "{{ spark_settled.inputs }}"
  become: true
"""

RETURN = r"""
settled:
  description: Whether a full look would see what it saw when nothing was to be done.
  type: bool
  returned: success
  sample: true
because:
  description: Why a full look is called for; what has changed since then, or a run that is at work. Empty when nothing is known.
  type: list
  elements: str
  returned: success
  sample: [container, models]
seen:
  description: Digests of what is there, by part. Empty when nothing is known of an earlier run.
  type: dict
  returned: with O(state=looked)
  sample: {container: 5f3c…, models: 90ab…}
inputs:
  description: O(inputs), for the end of the run.
  type: str
  returned: with O(state=looked)
  sample: 27ae…
serving:
  description: The record of what serves and has passed, C(current) of C(state.json).
  type: dict
  returned: when RV(settled)
  sample: {recipe: huihui-gemma4-mtp-n1}
"""

import json
import traceback
from functools import partial
from pathlib import Path
from typing import Any

from ..module_utils._common import files, json_text
from ..module_utils._common.basic import AnsibleModule
from ..module_utils._host import engine_socket, unchanged
from ..module_utils._run import run_lock
from ..module_utils._run.lock_file import hold
from ..module_utils._serve import state as serve_state

VERSION = 1
WATCH = ("environment", "files", "urls")


def read(path: Path) -> dict[str, Any]:
    """The recorded digests. The file is a cache: if it is missing, or of an unknown version, nothing was recorded."""
    try:
        known = json_text.read_file(path)
    except (OSError, json_text.JsonError):
        return {}
    if not isinstance(known, dict) or known.get("version") != VERSION:
        return {}
    kinds = {"inputs": str, "watch": dict, "seen": dict, "proved": bool}
    whole = all(isinstance(known.get(name), kind) for name, kind in kinds.items())
    return known if whole and _watchable(known["watch"]) else {}


def _watchable(watch: dict[str, Any]) -> bool:
    lists = [watch.get("files"), watch.get("urls")]
    texts = all(isinstance(one, list) and all(isinstance(entry, str) for entry in one) for one in lists)
    return texts and isinstance(watch.get("environment"), str)


def current(path: Path) -> dict[str, Any] | None:
    """The record of what has passed; None without one that can be read."""
    try:
        state = serve_state.parse(path.read_text() if path.exists() else None)
    except (OSError, ValueError):
        return None
    return ((state or {}).get("current") or {}).get("serving")


def see(params: dict[str, Any], serving: dict[str, Any], watch: dict[str, Any]) -> dict[str, str]:
    """Digests by part; empty if the engine does not answer."""
    ask = partial(engine_socket.get, params["socket"])
    try:
        return unchanged.of_host(params["state_dir"], serving, watch, ask)
    except (engine_socket.EngineError, OSError):
        return {}


def look(params: dict[str, Any]) -> dict[str, Any]:
    known = read(Path(params["state_dir"]) / "settled.json")
    serving = current(Path(params["state_dir"]) / "state.json")
    seen = see(params, serving, known["watch"]) if known and serving else {}
    because = unchanged.differences(known["seen"], seen) if known else []
    if known and known["inputs"] != params["inputs"]:
        because.append("what is asked for")
    if (Path(params["state_dir"]) / run_lock.FILE).exists():
        because.append("a run that holds the host")
    settled = params["trust"] and bool(seen and params["inputs"]) and not because and known["proved"]
    result = {"settled": settled, "because": because, "seen": seen, "inputs": params["inputs"]}
    return result | ({"serving": serving} if settled else {})


def record(params: dict[str, Any], *, write: bool) -> dict[str, Any]:
    path = Path(params["state_dir"]) / "settled.json"
    known, serving = read(path), current(Path(params["state_dir"]) / "state.json")
    watch = {name: params[name] for name in WATCH}
    seen = see(params, serving, watch) if serving else {}
    because = unchanged.differences(params["before"], seen) if params["before"] else []
    settled = bool(seen) and params["before"] == seen
    new = {
        "version": VERSION,
        "inputs": params["inputs"],
        "watch": watch,
        "seen": seen,
        "proved": settled,
    }
    if write and new != known:
        files.write(path, json.dumps(new, indent=1, sort_keys=True).encode(), 0o600)
    return {"settled": settled, "because": because}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["looked", "recorded"], "default": "looked"},
            "state_dir": {"type": "path", "required": True},
            "before": {"type": "dict", "default": {}},
            "inputs": {"type": "str", "default": ""},
            "trust": {"type": "bool", "default": True},
            "environment": {"type": "path", "default": "/opt/sparkfleet/venv"},
            "files": {"type": "list", "elements": "path", "default": ["/etc/docker/daemon.json"]},
            "urls": {"type": "list", "elements": "str", "default": []},
            "socket": {"type": "path", "default": "/var/run/docker.sock"},
        },
        supports_check_mode=True,
    )
    hold(module)
    if module.params["state"] == "looked":
        try:
            looked = look(module.params)
        except Exception as error:
            # The run goes on with a full look, so nobody sees more of the fault than this text.
            module.fail_json(
                msg=f"expected records and an engine of a known shape, seen {error!r}; report it with state.json of this host",
                exception=traceback.format_exc(),
            )
        module.exit_json(changed=False, **looked)
    try:
        recorded = record(module.params, write=not module.check_mode)
    except OSError as error:
        # The host has passed by now. Without the file the next run looks again, and that is all.
        module.warn(files.unwritable(f"settled.json in {module.params['state_dir']}", error))
        recorded = {"settled": False, "because": []}
    module.exit_json(changed=False, **recorded)


if __name__ == "__main__":
    main()
