#!/usr/bin/python
# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: hf_snapshot_info
short_description: Look which snapshots are in the store, and whether body and draft fit
version_added: "0.1.0"
author:
  - The sparkfleet.vllm authors (@sparkfleet)
description:
  - Says of one or more repositories at a commit what is in the store, what is missing and what is damaged, and on which address
    other hosts could get it. Asks no Hub and changes nothing.
  - The stat cache (size, mtime, ctime, inode) tells which files are still those that were verified, so no file is read, unless
    O(hash) asks for it. M(sparkfleet.vllm.hf_snapshot) brings what is missing.
options:
  snapshots:
    description: What to look for, as the lock holds it. All of it is done in one execution.
    required: true
  verify:
    description:
      - V(stat) goes by the stat cache.
      - V(full) believes in none of it. A file of the right size is unknown then, until it is hashed.
    type: str
    choices: [stat, full]
    default: stat
  hash:
    description:
      - Read the files of which only a hash can tell. What is found is not remembered, so that the next look reads them again.
        M(sparkfleet.vllm.hf_snapshot) with O(sparkfleet.vllm.hf_snapshot#module:fetch=false) remembers it.
    type: bool
    default: false
  timeout:
    description: Seconds that O(hash) may take.
    type: int
    default: 14400
  pair:
    description:
      - Repositories of the body and of its draft, or of a body alone that drafts with layers of its own. Then
        RV(fits) says whether the draft fits the body (see M(sparkfleet.vllm.model_pair)).
    type: list
    elements: str
    default: []
  speculation:
    description: The speculative config that the server gets, for O(pair).
    type: dict
    default: {}
  interface:
    description:
      - Network interface whose IPv4 address is returned as RV(address); refused when the host has none of that name.
      - Without it and O(address), the source address of the default route; without a default route, the only address.
    type: str
  address:
    description: IPv4 address to return as RV(address), in place of O(interface)'s. Refused when it is not the host's.
    type: str
extends_documentation_fragment:
  - sparkfleet.vllm.snapshots
attributes:
  check_mode:
    description: It changes nothing.
    support: full
  diff_mode:
    description: It changes nothing.
    support: none
  idempotent:
    description: It changes nothing.
    support: full
seealso:
  - module: sparkfleet.vllm.hf_snapshot
  - module: sparkfleet.vllm.model_pair
"""

EXAMPLES = r"""
- name: Look whether body and draft of the loaded recipe are there and fit
  sparkfleet.vllm.hf_snapshot_info:
    store: /srv/sparkfleet
    snapshots: "{{ recipe_lock.models.values() | list }}"
    pair: "{{ recipe_lock.models.values() | map(attribute='repository') | list }}"

- name: Hash everything that is served
  sparkfleet.vllm.hf_snapshot_info:
    store: /srv/sparkfleet
    snapshots: "{{ recipe_lock.models.values() | list }}"
    verify: full
    hash: true
"""

RETURN = r"""
settled:
  description: Whether all is in place.
  type: bool
  returned: success
  sample: true
unchecked:
  description: Whether there is something to hash, or file modes to mend, in any of the snapshots.
  type: bool
  returned: success
  sample: false
look:
  description: What is on the host, in the order asked for.
  type: list
  elements: dict
  returned: success
  contains:
    repository:
      description: Repository.
      type: str
      sample: google/gemma-4-26B-A4B-it-assistant
    commit:
      description: Commit.
      type: str
      sample: c4bbb7689dc16de4aaa468647625a5a02f98e22f
    whole:
      description: Whether every file is there and known to be right.
      type: bool
      sample: false
    bytes:
      description: Size of the snapshot in bytes.
      type: int
      sample: 27000000000
    missing_bytes:
      description: Size of the files that are not there, or are there and wrong.
      type: int
      sample: 5000000000
    unknown_bytes:
      description: Size of the files that are there and that only a hash can tell of.
      type: int
      sample: 0
    unchecked:
      description: Whether there is something to hash, or file modes to mend. M(sparkfleet.vllm.hf_snapshot) does both.
      type: bool
      sample: false
    kept_bytes:
      description: What an interrupted run left on the disk, in bytes.
      type: int
      sample: 1200000000
    verified_bytes:
      description: Bytes that were hashed in this run.
      type: int
      sample: 0
    damaged:
      description: Files that are there and wrong, each with what was expected and seen.
      type: list
      elements: str
      sample: []
    missing:
      description: Files of the lock that are not there.
      type: list
      elements: str
      sample: []
    unknown:
      description: Files that are there and that only a hash can tell of, since they changed after they were verified.
      type: list
      elements: str
      sample: []
    unexpected:
      description: Files that the lock does not know.
      type: list
      elements: str
      sample: []
fits:
  description: Whether the draft fits the body. M(sparkfleet.vllm.model_pair) says why it does not.
  type: bool
  returned: with O(pair), when all is in place
  sample: true
unseen:
  description: What was not looked at when body and draft were judged, and why. vLLM decides there.
  type: list
  elements: str
  returned: with O(pair), when all is in place
  sample: ["draft weights: not looked at, because pytorch_model.bin are no safetensors"]
address:
  description: IPv4 address on which the host meets the others; empty when it has several, none was asked for and no default route.
  type: str
  returned: success
  sample: 192.168.100.11
drift:
  description: What differs, as M(sparkfleet.vllm.drift_report) takes it. M(sparkfleet.vllm.serve_drift) has an example.
  type: dict
  returned: success
check_mode:
  description: Whether the task ran in check mode, which a play or a block can ask for and no variable tells.
  type: bool
  returned: success
  sample: false
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

from ..module_utils._common.basic import AnsibleModule
from ..module_utils._common.progress import Progress
from ..module_utils._models import ensure, manifest, model, pairing
from ..module_utils._models import options as snapshot_options
from ..module_utils._models.snapshot import Report, SnapshotError
from ..module_utils._run.detached import in_background
from ..module_utils._swarm import interface

ARGUMENT_SPEC: dict[str, Any] = snapshot_options.ARGUMENT_SPEC | {
    "verify": snapshot_options.STORING["verify"],
    "hash": {"type": "bool", "default": False},
    "timeout": {"type": "int", "default": 14400},
    "pair": {"type": "list", "elements": "str", "default": []},
    "speculation": {"type": "dict", "default": {}},
    "interface": {"type": "str"},
    "address": {"type": "str"},
}
LEAST = {"max_workers": 1, "timeout": 1}


def run(module: AnsibleModule) -> list[Report]:
    params = module.params
    manifests = snapshot_options.parse(params, LEAST)
    options = ensure.Options(params["store"], params["max_workers"], params["verify"] == "full")
    if not params["hash"]:
        return ensure.look(manifests, options)
    return ensure.check(manifests, replace(options, say=Progress.from_environment().say), remember=False)


def fits(paths: dict[str, Path], pair: list[str], speculation: dict[str, Any]) -> tuple[bool, list[str]]:
    """Whether whole snapshots are a body and its draft, and what was not looked at. Files that cannot be read fit nothing."""
    try:
        body, *drafts = (
            model.read(name, paths[repository])
            for name, repository in zip(("body", "draft")[: len(pair)], pair, strict=True)
        )
    except (OSError, KeyError, ValueError):
        return False, []
    problems, _facts, unseen = pairing.judge(body, drafts[0] if drafts else None, not drafts, speculation)
    return not problems, [str(each) for each in unseen]


def main() -> None:
    in_background()
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    params = module.params
    try:
        reports = run(module)
        address = interface.find(params["interface"], params["address"])
    except (manifest.ManifestError, SnapshotError, interface.AddressError) as error:
        module.fail_json(msg=str(error))
    settled = not any(report.changed for report in reports)
    result: dict[str, Any] = {
        "settled": settled,
        "unchecked": any(report.unchecked for report in reports),
        "look": [report.look() for report in reports],
        "address": address,
        "check_mode": module.check_mode,
    }
    if params["pair"] and settled:
        paths = {report.manifest.repository: Path(report.path) for report in reports}
        result["fits"], result["unseen"] = fits(paths, params["pair"], params["speculation"])
        if result["fits"]:  # model_pair says the same, and why a pair does not fit
            for each in result["unseen"]:
                module.warn(each)
    for warning in filter(None, map(Report.strays, reports)):
        module.warn(warning)
    module.exit_json(changed=False, **result)


if __name__ == "__main__":
    main()
