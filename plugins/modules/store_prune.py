#!/usr/bin/python
# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: store_prune
short_description: Remove snapshots, patches and images that a host no longer needs
version_added: "0.1.0"
author:
  - The sparkfleet.vllm authors (@sparkfleet)
description:
  - Keeps everything that C(current) or C(last_good) of C(state.json) refers to, that the lock names, and that a container of the
    host mounts, names or was made from, running or not. Removes other model snapshots, partial snapshots and patches from the store,
    what the servers of other images compiled, the remains of an interrupted build, images from the storage of the fleet's registry in
    the store, and from the engine those images that this collection brought.
  - If the state does not say what serves, or the engine does not say what its containers use, nothing is removed.
  - Works only inside the store and follows no link. Names outside the layout are listed as unknown and kept.
  - Anything that another run is working on is kept, and the list says so.
  - A folder is renamed before it is deleted, so an interrupted run leaves no incomplete snapshot; the next one removes the rest.
options:
  store:
    description: Root of the content-addressed store on the host.
    type: path
    required: true
  state_dir:
    description: Directory of C(state.json) and of C(images.json), the list of images that this collection brought.
    type: path
    required: true
  lock:
    description: The current lock, if there is one. Everything it names is kept, even if it does not serve yet.
    type: dict
    default: {}
  keep:
    description: Further commits, SHA-256 sums of patches or images by digest to keep.
    type: list
    elements: str
    default: []
  partial_age:
    description: Seconds. Partial snapshots newer than this are kept, so that an interrupted download can resume.
    type: int
    default: 86400
  overlooked_containers:
    description:
      - Names of containers that mount a directory around the whole store without using it, such as monitoring that mounts
        C(/). Such a mount of any other container keeps everything.
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
    description: Lists everything with its size and verdict, and removes nothing.
    support: full
  diff_mode:
    description: Shows the contents before and after, with sizes.
    support: full
  idempotent:
    description: A second run removes nothing.
    support: full
seealso:
  - module: sparkfleet.vllm.prune_report
  - module: sparkfleet.vllm.serve_state
"""

EXAMPLES = r"""
- name: Remove what this Spark no longer needs
  sparkfleet.vllm.store_prune:
    store: /srv/sparkfleet
    state_dir: /var/lib/sparkfleet
    lock: "{{ recipe_lock }}"
"""

RETURN = r"""
things:
  description: Contents of the store and images of the engine, each with its verdict.
  type: list
  elements: dict
  returned: always
  contains:
    kind:
      description:
        - One of snapshot, partial, patch, image, registry (an image in the fleet registry's storage), registry partial (what
          belongs to no whole image there), leftover (of an interrupted run), log (of the last build), cache (what the servers of
          an image compiled), answers (of images that were asked), unknown.
      type: str
      sample: snapshot
    name:
      description: What it is, for people.
      type: str
      sample: coolthor/Huihui-gemma-4-26B-A4B-it-abliterated-FP8-Dynamic@c4bbb7689dc16de4aaa468647625a5a02f98e22f
    path:
      description: Where it lies; for an image its reference by digest.
      type: str
      sample: /srv/sparkfleet/models/org--name/c4bbb7689dc16de4aaa468647625a5a02f98e22f
    bytes:
      description:
        - Its disk usage, with each hard-linked file counted once. For an image the part that no other image shares, if the engine
          counts that (API 1.42), else its whole size.
      type: int
      sample: 27014131712
    verdict:
      description: V(kept), V(removed) (in check mode it would be), V(unknown), which is left, or V(failed).
      type: str
      sample: kept
    why:
      description: What refers to it, or why it was removed or kept.
      type: str
      sample: last_good, container sparkfleet-vllm
    at_most:
      description:
        - Whether RV(things[].bytes) of an image counts layers that may stay because others share them, which engines before API 1.42,
          and those before 29.5 that keep images in containerd, do not tell.
      type: bool
      sample: false
freed_bytes:
  description: Freed bytes, or those that would be. A file with another name elsewhere does not count.
  type: int
  returned: always
  sample: 27014131712
freed_at_most:
  description: Whether that counts bytes of images that may have stayed.
  type: bool
  returned: always
  sample: false
"""

import os
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ..module_utils._common import files, json_text
from ..module_utils._common.basic import AnsibleModule
from ..module_utils._common.paths import ledger_path
from ..module_utils._host import engine, engine_socket
from ..module_utils._host.request import Request
from ..module_utils._images import ledger
from ..module_utils._prune import references, store
from ..module_utils._prune.references import PruneError, References, Thing
from ..module_utils._run.lock_file import hold

ANSWER_TIMEOUT = 30.0
REMOVAL_TIMEOUT = 600.0
"""Seconds. The engine removes an image of 20 GB in some tens of them."""


def read_json(path: Path) -> Any:
    """The content of a file; None if there is none.

    :raises PruneError: the file cannot be read
    """
    try:
        return json_text.read_file(path)
    except FileNotFoundError:
        return None
    except (OSError, json_text.JsonError) as error:
        seen = error.reason if isinstance(error, json_text.JsonError) else error
        raise PruneError(
            f"{path}: expected a readable JSON file, seen {seen}; nothing was removed; mend it or move it away"
        ) from error


def read_ledger(path: Path) -> list[str]:
    """The images that this collection brought; none without a ledger.

    :raises PruneError: the ledger cannot be read, so nobody knows which images are ours
    """
    try:
        return ledger.parse(path.read_text() if path.exists() else None)
    except (OSError, ValueError, ledger.LedgerError) as error:
        raise PruneError(
            f"{path}: {error}; nothing was removed; move it away: images that it does not name are left alone"
        ) from error


class Host:
    """What the host holds, and who refers to it, at the time when this object was made.

    :raises PruneError: nobody can tell what serves
    """

    def __init__(self, params: dict[str, Any]) -> None:
        self.params = params
        self.store = os.path.realpath(params["store"])
        self.state_path = Path(params["state_dir"]) / "state.json"
        self.ledger_path = Path(ledger_path(params["state_dir"]))
        self.references = References()
        state = read_json(self.state_path)
        if state is None:
            raise PruneError(
                f"{self.state_path}: expected the record of what serves, seen none; nothing was removed; "
                "deploy with playbooks/site.yml first"
            )
        references.refer_state(self.references, state, str(self.state_path), os.path.realpath)
        self.references.refer("lock", params["lock"])
        references.refer_keep(self.references, params["keep"])
        self.brought = read_ledger(self.ledger_path)
        # Ask for sizes of shared layers. An engine before API 1.42 ignores that.
        self.images = self._ask("/images/json?shared-size=1", engine.IMAGES) or []
        self.info = self._ask("/info", engine.INFO)
        self.containerd = Request().text(engine.CONTAINERD_CONFIG) or ""
        self.containers = self._ask("/containers/json?all=1", engine.CONTAINERS) or []
        volumes = self._ask("/volumes", engine.VOLUMES).get("Volumes") or []
        references.refer_containers(
            self.references,
            self.containers,
            {volume["Name"]: (volume.get("Options") or {}).get("device", "") for volume in volumes},
            self.store,
            params["overlooked_containers"],
            os.path.realpath,
        )
        self.peer = store.peer(Path(self.store))
        self.mounts = store.mount_points()

    def _ask(self, url: str, expected: Any) -> Any:
        try:
            return engine_socket.get(self.params["socket"], url, ANSWER_TIMEOUT, expected)
        except engine_socket.EngineError as error:
            raise PruneError(
                f"expected a Docker engine that says what its containers use, seen {error}; nothing was removed; "
                "start the engine, or run the prerequisites role"
            ) from error

    def judge(self, things: list[Thing]) -> list[Thing]:
        return references.judge_store(
            things, self.references, self.peer, self.mounts, self.params["partial_age"], time.time()
        )

    def stored(self) -> list[Thing]:
        return self.judge(store.things(Path(self.store)))

    def brought_images(self) -> list[Thing]:
        return references.judge_images(
            self.brought,
            self.images,
            self.containers,
            self.references,
            engine.counts_packed_layers(self.info),
            lambda image: engine.other_store(self.info, self.containerd, image),
        )


def prune_store(host: Host, write: bool) -> list[Thing]:
    """Judge everything in the store and remove what may go, under the lock of each folder that has one."""
    things = host.stored()
    folders = {thing.guard for thing in things if thing.verdict == references.REMOVED} - {""}
    result = [thing for thing in things if thing.guard not in folders]
    if write:
        for thing in result:
            delete(thing)
    for folder in sorted(folders):
        with store.at_work(Path(folder), keep_out=write) as owner:
            # Judge again: another run may have worked there until now.
            for thing in host.judge(store.guarded(Path(folder))):
                if owner and thing.verdict == references.REMOVED:
                    thing.judged(references.KEPT, f"{owner} works in {folder}")
                if write:
                    delete(thing)
                result.append(thing)
    return sorted(result, key=lambda thing: thing.path)


def delete(thing: Thing) -> None:
    if thing.verdict != references.REMOVED:
        return
    try:
        store.delete(thing)
    except OSError as error:
        thing.judged(references.FAILED, f"{error}; correct that and prune again")


def prune_images(host: Host, write: bool) -> list[Thing]:
    """Judge the images of the ledger, have the engine remove what may go, and forget what went."""
    things = host.brought_images()
    there = {digest for image in host.images for digest in image.get("RepoDigests") or []}
    for thing in things:
        name = references.familiar(thing.path)
        if not write or thing.verdict != references.REMOVED or name not in there:
            continue
        try:
            engine_socket.delete(
                host.params["socket"], f"/images/{quote(name, safe='/:@')}?noprune=1", REMOVAL_TIMEOUT
            )
        except engine_socket.EngineError as error:
            if error.status == 409:  # since the look, somebody made a container or an image from it
                thing.judged(references.KEPT, f"the engine says: {error.said}")
            elif error.status != 404:
                thing.judged(references.FAILED, f"{error}; see the engine's log and prune again")
    gone = {thing.path for thing in things if thing.verdict == references.REMOVED}
    if write and gone:
        # Read the ledger again: another run may have added an image since the look.
        left = [image for image in read_ledger(host.ledger_path) if image not in gone]
        files.write(host.ledger_path, ledger.render(left).encode())
    return things


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "store": {"type": "path", "required": True},
            "state_dir": {"type": "path", "required": True},
            "lock": {"type": "dict", "default": {}},
            "keep": {"type": "list", "elements": "str", "default": [], "no_log": False},
            "partial_age": {"type": "int", "default": 86400},
            "overlooked_containers": {"type": "list", "elements": "str", "default": []},
            "socket": {"type": "path", "default": "/var/run/docker.sock"},
        },
        supports_check_mode=True,
    )
    hold(module)
    things: list[Thing] = []
    try:
        host = Host(module.params)
        things += prune_store(host, write=not module.check_mode)
        things += prune_images(host, write=not module.check_mode)
    except PruneError as error:
        module.fail_json(msg=str(error), **result(things))
    except OSError as error:
        module.fail_json(
            msg=f"expected a store that can be read and written, seen: {error}; mend that and prune again",
            **result(things),
        )
    failed = [f"{thing.name}: {thing.why}" for thing in things if thing.verdict == references.FAILED]
    if failed:
        module.fail_json(
            msg="expected to remove what nothing refers to, seen:\n  " + "\n  ".join(failed), **result(things)
        )
    module.exit_json(**result(things), diff=references.diff(things))


def result(things: list[Thing]) -> dict[str, Any]:
    return {
        "changed": any(thing.verdict == references.REMOVED for thing in things),
        "things": [thing.result() for thing in things],
        "freed_bytes": references.freed(things),
        "freed_at_most": any(thing.at_most for thing in things if thing.verdict == references.REMOVED),
    }


if __name__ == "__main__":
    main()
