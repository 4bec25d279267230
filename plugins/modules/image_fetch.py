#!/usr/bin/python
# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: image_fetch
version_added: "0.1.0"
author:
  - The sparkfleet.vllm authors (@sparkfleet)
short_description: Fetch an image once, by digest, into the storage that a registry serves
description:
  - Brings the manifests and blobs of an image, for one platform, from an upstream registry into the storage of the distribution's
    registry, in its own layout. The registry serves them without a restart and without write access.
  - Verifies every byte before it puts it into place. The image's manifest is written last, so the registry never offers an incomplete
    image.
  - Brings the attestations of the platform too, which an image built by buildx has in its index. If no source has one, it warns and
    goes on.
  - An interrupted run keeps what arrived, and the next one resumes.
  - On the controller it shows its progress.
options:
  image:
    description: The image, by digest.
    type: str
    required: true
  storage:
    description: Root of the registry's storage (C(rootdirectory) of its configuration).
    type: path
    required: true
  sources:
    description:
      - Addresses of registries, tried in this order. Each one provides what the earlier ones lack.
      - An absolute path is the storage of another registry on this host, read directly.
      - Default, the image's own registry. With an empty list the module only reports what is missing or wrong, for an image that was
        built here and can only be built again.
    type: list
    elements: str
  username:
    description: User name at the last of O(sources).
    type: str
  password:
    description: Password or access token of O(username).
    type: str
  architecture:
    description: Platform of a multi-platform image, as named in its index. Default, that of the host.
    type: str
  verify:
    description:
      - V(stat) trusts existing blobs of the right size. V(full) hashes them and fetches wrong ones again.
    type: str
    choices: [stat, full]
    default: stat
  disk_reserve:
    description: Space in MiB that must stay free in the storage's file system. Checked before the first byte.
    type: int
    default: 2048
  retries:
    description: Repeats of a request in a row without progress.
    type: int
    default: 5
  timeout:
    description: Seconds that the task may take. A timeout keeps what was fetched for the next run.
    type: int
    default: 14400
  settled_only:
    description:
      - Check names and sizes only. If anything is left to do, do nothing and return RV(settled=false).
    type: bool
    default: false
extends_documentation_fragment:
  - sparkfleet.vllm.internal
attributes:
  check_mode:
    description:
      - Reports whether the image would be fetched. Contacts no registry and writes nothing, so an attestation that no source has counts
        as one to be fetched.
    support: full
  diff_mode:
    description: Lists the blobs that would be fetched, or were.
    support: full
  idempotent:
    description: A second run changes nothing.
    support: full
requirements:
  - requests (Python package) on the host, except in check mode
seealso:
  - module: sparkfleet.vllm.image_pull
"""

EXAMPLES = r"""
- name: Fetch the locked image once for the whole fleet
  sparkfleet.vllm.image_fetch:
    image: "{{ recipe_lock.image.pinned }}"
    storage: /srv/sparkfleet/registry
    sources: [https://mirror.example.com, https://registry-1.docker.io]
"""

RETURN = r"""
state:
  description: V(present), it was complete. V(fetched), something was missing. V(repaired), something was wrong.
  type: str
  returned: success, except when RV(settled=false)
  sample: fetched
bytes:
  description: Transfer size of the image. 0 if check mode cannot know it yet.
  type: int
  returned: success, except when RV(settled=false)
  sample: 9800000000
fetched_bytes:
  description: Size of the blobs that were fetched.
  type: int
  returned: success, except when RV(settled=false)
  sample: 9800000000
damaged:
  description: Existing blobs that were wrong, with what was seen.
  type: list
  elements: str
  returned: success, except when RV(settled=false)
  sample: []
sources:
  description: Registries that provided something.
  type: list
  elements: str
  returned: success, except when RV(settled=false)
  sample: [https://registry-1.docker.io]
settled:
  description: Whether everything was already in place.
  type: bool
  returned: success
  sample: true
"""

import os
import platform
import traceback
from typing import Any

from ansible.module_utils.basic import missing_required_lib

from ..module_utils._common import upstream
from ..module_utils._common.basic import AnsibleModule
from ..module_utils._common.progress import Progress
from ..module_utils._images import oci, registry, storage
from ..module_utils._images.folder import FolderSource
from ..module_utils._images.reference import Reference, parse_reference
from ..module_utils._images.remote import Source
from ..module_utils._run.detached import in_background
from ..module_utils._run.lock_file import hold

MIB = 1024 * 1024
LACKING = (
    "expected all of {image}, seen without an attestation of it: {why}. The image serves without, but Docker 29.1 and later, where "
    "images are in containerd, ask for it in a pull, and fail where no registry has it: name a source that has the whole image"
)

ARGUMENTS: dict[str, dict[str, Any]] = {
    "image": {"type": "str", "required": True},
    "storage": {"type": "path", "required": True},
    "sources": {"type": "list", "elements": "str"},
    "username": {"type": "str"},
    "password": {"type": "str", "no_log": True},
    "architecture": {"type": "str"},
    "verify": {"type": "str", "choices": ["stat", "full"], "default": "stat"},
    "disk_reserve": {"type": "int", "default": 2048},
    "retries": {"type": "int", "default": 5},
    "timeout": {"type": "int", "default": 14400},
    "settled_only": {"type": "bool", "default": False},
}


def sources(params: dict[str, Any], reference: Reference) -> list[Source | FolderSource]:
    """The registries in their order. Only the last one gets the password: the others are mirrors."""
    homes = params["sources"]
    if homes is None:
        homes = [registry.endpoint(reference.registry)]
    known = None
    if params["username"]:
        known = registry.Credentials(params["username"], params["password"] or "")

    def source(home: str, credentials: registry.Credentials | None) -> Source | FolderSource:
        return FolderSource(home) if home.startswith("/") else Source(home, reference, credentials)

    return [*(source(home, None) for home in homes[:-1]), *(source(home, known) for home in homes[-1:])]


def run(module: AnsibleModule) -> storage.Report | None:
    params = module.params
    reference = parse_reference(params["image"])
    if not reference.digest:
        raise ValueError(
            f"image: expected a digest (name@sha256:…), seen {params['image']}; take that of a lock"
        )
    machine = platform.machine()
    progress = Progress(None) if module.check_mode or params["settled_only"] else Progress.from_environment()
    store = storage.ImageStore(
        params["storage"],
        reference,
        reference.digest,
        params["architecture"] or oci.ARCHITECTURES.get(machine, machine),
        reserve=params["disk_reserve"] * MIB,
        retries=params["retries"],
        say=progress.say,
    )
    if params["settled_only"]:
        return store.report if store.whole() else None
    if module.check_mode:
        return store.preview()
    return store.ensure(sources(params, reference), verify=params["verify"] == "full")


def main() -> None:
    in_background()
    module = AnsibleModule(
        argument_spec=ARGUMENTS, required_by={"password": "username"}, supports_check_mode=True
    )
    hold(module)
    os.umask(0o022)
    if not upstream.HAS_REQUESTS and not module.check_mode and not module.params["settled_only"]:
        module.fail_json(msg=missing_required_lib("requests"))
    try:
        report = run(module)
    except (ValueError, upstream.UpstreamError, storage.ImageStoreError) as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(
            msg=f"{module.params['storage']}: expected a storage that can be written, seen {error}; mend it and run again",
            exception=traceback.format_exc(),
        )
    if report is None:
        module.exit_json(changed=False, settled=False)
        return
    for why in report.lacking:
        module.warn(LACKING.format(image=module.params["image"], why=why))
    result: dict[str, Any] = {
        "changed": report.changed,
        "settled": not report.changed,
        "state": report.state,
        "bytes": report.bytes,
        "fetched_bytes": report.fetched_bytes,
        "damaged": report.damaged,
        "sources": report.sources,
    }
    if module._diff:
        result["diff"] = {"before": "", "after": "".join(f"{digest}\n" for digest in report.fetched)}
    module.exit_json(**result)


if __name__ == "__main__":
    main()
