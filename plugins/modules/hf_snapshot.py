#!/usr/bin/python
# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: hf_snapshot
short_description: Bring Hugging Face repositories at a commit into the store, every byte verified
version_added: "0.1.0"
author:
  - The sparkfleet.vllm authors (@sparkfleet)
description:
  - Fetches the files of one or more repositories at a commit from a Hugging Face Hub, or a mirror of it, and verifies the
    SHA-256 of every file against the lock. huggingface_hub itself compares sizes only.
  - A snapshot appears at C(<store>/models/<org>--<name>/<commit>) whole and at once, or not at all. What is there is never
    edited. A damaged snapshot is built anew beside it, with the good files linked, and swapped.
  - A second run asks nobody and reads no file. A stat cache (size, mtime, ctime, inode) tells which files are still those
    that were verified. A file touched since is hashed again.
  - An interrupted run is taken up. Verified files are kept, and over HTTP a file goes on after the bytes that are there.
    Over Xet, the storage of the public Hub, a file that was under way starts again.
  - Says while it runs how much is done, how fast, and how long it will take.
options:
  snapshots:
    description: What to bring, as the lock holds it. All of it is done in one execution.
    required: true
  endpoint:
    description: Hugging Face Hub or a mirror of it.
    type: str
    default: https://huggingface.co
  token:
    description:
      - Token of the Hub, for gated and private repositories and higher limits. Read access is enough.
      - Tokens and settings that a user of the host has stored are not used.
    type: str
  transport:
    description:
      - V(auto) uses Xet on the public Hub, when hf_xet is installed, and plain HTTP elsewhere.
      - V(http) uses plain HTTP everywhere, where a file that was interrupted goes on instead of starting again.
    type: str
    choices: [auto, http]
    default: auto
  max_workers:
    description: Files fetched, and hashed, at the same time.
  retries:
    description:
      - How often in a row a request is repeated without progress after 408, 429, 5xx, a lost connection or a body cut
        short. C(Retry-After) is respected up to 5 minutes.
    type: int
    default: 5
  timeout:
    description: Seconds the task may take. What was fetched by then is kept for the next run.
    type: int
    default: 14400
  bundle:
    description:
      - Directory of a bundle on the host. Files come from there, and no Hub is asked. Each is verified against the lock all
        the same.
    type: path
  fetch:
    description:
      - With V(false) files are hashed that the stat cache does not vouch for (all of them with O(verify=full)), and what was
        found is remembered. Nothing is fetched or promoted; RV(look) says what is missing.
    type: bool
    default: true
extends_documentation_fragment:
  - sparkfleet.vllm.snapshots
  - sparkfleet.vllm.snapshots.storing
attributes:
  check_mode:
    description:
      - Says what would be fetched. Asks no Hub, writes nothing and needs no huggingface_hub. Fails when the disk is too
        small.
    support: full
  diff_mode:
    description: Lists the files with their hashes, before and after.
    support: full
  idempotent:
    description: A second run changes nothing.
    support: full
requirements:
  - huggingface_hub >= 2.4 (Python package) on the host, except in check mode
seealso:
  - module: sparkfleet.vllm.hf_snapshot_info
  - module: sparkfleet.vllm.model_pair
"""

EXAMPLES = r"""
- name: Sync body and draft of the loaded recipe
  sparkfleet.vllm.hf_snapshot:
    store: /srv/sparkfleet
    snapshots: "{{ recipe_lock.models.values() | list }}"
    token: "{{ lookup('ansible.builtin.env', 'HF_TOKEN') or omit }}"

- name: Hash everything that is served, change nothing
  sparkfleet.vllm.hf_snapshot:
    store: /srv/sparkfleet
    snapshots: "{{ recipe_lock.models.values() | list }}"
    verify: full
  check_mode: true
"""

RETURN = r"""
snapshots:
  description: What became of each snapshot, in the order asked for. In check mode, what would.
  type: list
  elements: dict
  returned: success, except with O(fetch=false) when RV(settled=false)
  contains:
    repository:
      description: Repository.
      type: str
      sample: google/gemma-4-26B-A4B-it-assistant
    commit:
      description: Commit.
      type: str
      sample: c4bbb7689dc16de4aaa468647625a5a02f98e22f
    path:
      description: The snapshot on the host.
      type: str
      sample: /srv/sparkfleet/models/google--gemma-4-26B-A4B-it-assistant/c4bbb7689dc16de4aaa468647625a5a02f98e22f
    state:
      description:
        - V(present), it was whole. V(fetched), it was not there. V(repaired), it was there and not whole.
      type: str
      sample: fetched
    files:
      description: Number of files of the snapshot.
      type: int
      sample: 14
    bytes:
      description: Size of the snapshot in bytes.
      type: int
      sample: 27000000000
    fetched_files:
      description: Number of files that were fetched.
      type: int
      sample: 14
    fetched_bytes:
      description: Size of those in bytes.
      type: int
      sample: 27000000000
    verified_bytes:
      description: Bytes that were hashed in this run.
      type: int
      sample: 27000000000
    reused:
      description: Number of files that were not fetched, because they were there and right.
      type: int
      sample: 0
    damaged:
      description: Files that were there and wrong, each with what was expected and seen.
      type: list
      elements: str
      sample: []
    unexpected:
      description: Files in the snapshot that the lock does not know. They are left, except by a repair.
      type: list
      elements: str
      sample: []
    seconds:
      description: Time spent on this snapshot.
      type: float
      sample: 890.2
settled:
  description: Whether all was in place already.
  type: bool
  returned: success
  sample: true
look:
  description: What is on the host, in the order asked for, as M(sparkfleet.vllm.hf_snapshot_info) returns it.
  type: list
  elements: dict
  returned: with O(fetch=false), and in check mode
  sample: [{repository: google/gemma-4-26B-A4B-it-assistant, whole: true}]
"""

import os
import traceback
from dataclasses import replace
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import missing_required_lib

from ..module_utils._bundle import layout
from ..module_utils._common.basic import AnsibleModule
from ..module_utils._common.progress import Progress, scratch
from ..module_utils._common.store import StoreError
from ..module_utils._models import ensure, manifest
from ..module_utils._models import options as snapshot_options
from ..module_utils._models.hub import PUBLIC_ENDPOINT, Hub, HubError, HubLibraryMissing, fetcher_for
from ..module_utils._models.snapshot import Fetcher, Report
from ..module_utils._run.detached import in_background
from ..module_utils._run.lock_file import hold

ARGUMENT_SPEC: dict[str, Any] = (
    snapshot_options.ARGUMENT_SPEC
    | snapshot_options.STORING
    | {
        "endpoint": {"type": "str", "default": PUBLIC_ENDPOINT},
        "token": {"type": "str", "no_log": True},
        "transport": {"type": "str", "choices": ["auto", "http"], "default": "auto"},
        "retries": {"type": "int", "default": 5},
        "timeout": {"type": "int", "default": 14400},
        "bundle": {"type": "path"},
        "fetch": {"type": "bool", "default": True},
    }
)
LEAST = snapshot_options.LEAST | {"retries": 0, "timeout": 1}


def run(module: AnsibleModule) -> list[Report]:
    params = module.params
    manifests = snapshot_options.parse(params, LEAST)
    hub = Hub(params["endpoint"], params["token"] or None, params["retries"])
    options = snapshot_options.storing(params)
    if module.check_mode and params["fetch"]:
        return ensure.preview(manifests, options)
    progress = Progress.from_environment()
    options = replace(options, say=progress.say)
    if not params["fetch"]:
        return ensure.check(manifests, options, remember=not module.check_mode)
    home = scratch(module.tmpdir) / "hub"
    hub = replace(hub, on_wait=progress.say)

    def fetcher() -> Fetcher:
        if params["bundle"]:
            return layout.BundleFetcher(Path(params["bundle"]))
        return fetcher_for(hub, params["transport"], home)

    return ensure.ensure(manifests, options, fetcher)


def outcome(module: AnsibleModule, reports: list[Report]) -> dict[str, Any]:
    left, fetch = any(report.changed for report in reports), module.params["fetch"]
    mended = any(report.modes for report in reports)
    result: dict[str, Any] = {"changed": left if fetch else mended, "settled": not left}
    if module.check_mode or not fetch:
        result["look"] = [report.look() for report in reports]
    if fetch or not left:
        result["snapshots"] = [report.result() for report in reports]
    if module._diff:
        result["diff"] = [report.diff() for report in reports if report.changed and fetch]
    return result


def main() -> None:
    in_background()
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    hold(module)
    os.umask(0o022)
    result: dict[str, Any] = {}
    try:
        reports = run(module)
        result = outcome(module, reports)
    except HubLibraryMissing:
        module.fail_json(msg=missing_required_lib("huggingface_hub"), exception=traceback.format_exc())
    except HubError as error:
        module.fail_json(msg=f"{error}. Nothing was promoted; what was verified is kept for the next run")
    except (manifest.ManifestError, StoreError, layout.BundleError) as error:
        module.fail_json(msg=str(error))
    for warning in filter(None, map(Report.strays, reports)):
        module.warn(warning)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
