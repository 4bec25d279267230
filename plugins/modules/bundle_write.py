#!/usr/bin/python
# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: bundle_write
version_added: "0.1.0"
author:
  - The sparkfleet.vllm authors (@sparkfleet)
short_description: Write everything that a recipe needs from outside into one directory
description:
  - Writes the controller's recipe, lock and patches, the models from the store of the host, the wheels of the modules' Python
    environment and system packages. M(sparkfleet.vllm.image_fetch) has already written the image.
  - Every file is verified. On the same file system the bundle shares the store's models by a clone or a hard link; otherwise they
    are copied and hashed.
  - C(bundle.json) is removed before anything changes and written last, so a directory without it is no bundle.
  - An interrupted run resumes. A second run changes nothing, and reads no file with a valid stat cache.
options:
  path:
    description: Directory of the bundle. It may be on a mounted disk.
    type: path
    required: true
  store:
    description: Root of the content-addressed store on the host, which has the models of the lock.
    type: path
    required: true
  lock:
    description: The lock, as the fact C(recipe_lock) holds it.
    type: dict
    required: true
  recipe_path:
    description: File of the recipe on the controller.
    type: path
    required: true
  lock_path:
    description: File of the lock on the controller. In check mode it may be missing.
    type: path
    required: true
  texts:
    description: Recipe, lock and patches, base64, by their path in the bundle. Filled in by the controller side of this module.
    type: dict
  requirements:
    description: Packages of the modules' Python environment. Wheels are for the Python that runs this module, and its architecture.
    type: list
    elements: str
    default: []
  pip_index_url:
    description: Package index in place of the host's own configuration. It travels in the environment of pip.
    type: str
  pip_trusted_hosts:
    description: Hosts of package indexes that pip may use without TLS.
    type: list
    elements: str
    default: []
  packages:
    description: System packages, downloaded with apt and without their dependencies.
    type: list
    elements: str
    default: []
  archive:
    description: Also write C(<path>.tar), the bundle as one file.
    type: bool
    default: false
  without_image:
    description: Ignore a missing image. Only for check mode.
    type: bool
    default: false
  disk_reserve:
    description: Space in MiB that must stay free in the file system. Checked before the first byte.
    type: int
    default: 2048
  max_workers:
    description: Files copied, and hashed, at the same time.
    type: int
    default: 4
  lock_timeout:
    description: Seconds to wait for another run that works on the same bundle or model.
    type: int
    default: 3600
  timeout:
    description: Seconds that the task may take. A timeout keeps what was written for the next run.
    type: int
    default: 14400
extends_documentation_fragment:
  - sparkfleet.vllm.internal
attributes:
  check_mode:
    description: Reports what would be written, with sizes. Writes and downloads nothing. Fails if the disk is too small.
    support: full
  diff_mode:
    description: Shows what is left to write, section by section.
    support: full
  idempotent:
    description: A second run changes nothing.
    support: full
requirements:
  - pip, of the Python that runs this module
seealso:
  - module: sparkfleet.vllm.bundle_serve
"""

EXAMPLES = r"""
- name: Write the bundle
  sparkfleet.vllm.bundle_write:
    path: /mnt/usb/sparkfleet-bundle
    store: /srv/sparkfleet
    lock: "{{ recipe_lock }}"
    recipe_path: "{{ loaded.recipe_path }}"
    lock_path: "{{ loaded.lock_path }}"
    requirements: ["docker==7.2.0", "requests==2.34.2"]
    packages: [docker-registry]
"""

RETURN = r"""
path:
  description: Directory of the bundle.
  type: str
  returned: success
  sample: /srv/sparkfleet-bundle
archive:
  description: The bundle as one file; empty without one.
  type: str
  returned: success
  sample: /srv/sparkfleet-bundle.tar
files:
  description: Number of files of the bundle.
  type: int
  returned: success, except in check mode
  sample: 91
bytes:
  description: Size of the bundle in bytes.
  type: int
  returned: success, except in check mode
  sample: 38100000000
linked_bytes:
  description: Bytes of models that were shared with the store.
  type: int
  returned: success, except in check mode
  sample: 27000000000
copied_bytes:
  description: Bytes of models that were copied.
  type: int
  returned: success, except in check mode
  sample: 0
summary:
  description: Its contents, one line a section, for people.
  type: list
  elements: str
  returned: success, except in check mode
  sample: ["models: 14 files, 27000.0 MB"]
missing_bytes:
  description: Bytes of texts and models that are left to write. The downloads of pip and apt are not known in advance.
  type: int
  returned: in check mode
  sample: 27000000000
todo:
  description: What was left to do, a line a section.
  type: list
  elements: str
  returned: success
  sample: ["models: 14 to write, 27.00 GB", "Python packages: to be downloaded"]
"""

import base64
import os
import platform
import sys
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from ..module_utils._bundle import layout, plan, write
from ..module_utils._bundle.packagers import Packagers
from ..module_utils._common.basic import AnsibleModule
from ..module_utils._common.progress import Progress
from ..module_utils._common.store import StoreError, check_space
from ..module_utils._models import manifest
from ..module_utils._run.detached import in_background
from ..module_utils._run.lock_file import hold

MIB = 1024 * 1024

ARGUMENTS: dict[str, dict[str, Any]] = {
    "path": {"type": "path", "required": True},
    "store": {"type": "path", "required": True},
    "lock": {"type": "dict", "required": True},
    "recipe_path": {"type": "path", "required": True},
    "lock_path": {"type": "path", "required": True},
    "texts": {"type": "dict"},
    "requirements": {"type": "list", "elements": "str", "default": []},
    "pip_index_url": {"type": "str", "no_log": True},
    "pip_trusted_hosts": {"type": "list", "elements": "str", "default": []},
    "packages": {"type": "list", "elements": "str", "default": []},
    "archive": {"type": "bool", "default": False},
    "without_image": {"type": "bool", "default": False},
    "disk_reserve": {"type": "int", "default": 2048},
    "max_workers": {"type": "int", "default": 4},
    "lock_timeout": {"type": "int", "default": 3600},
    "timeout": {"type": "int", "default": 14400},
}


def wanted(params: Mapping[str, Any]) -> plan.Wanted:
    """:raises ManifestError: the lock's models do not have the form of a lock"""
    lock = params["lock"]
    return plan.Wanted(
        recipe=lock["recipe"],
        image=lock["image"]["pinned"],
        machine=platform.machine(),
        python=f"{sys.version_info.major}.{sys.version_info.minor}",
        texts={path: base64.b64decode(text) for path, text in (params["texts"] or {}).items()},
        manifests=[
            manifest.parse(model["repository"], model["commit"], model["files"])
            for model in lock["models"].values()
        ],
        requirements=tuple(params["requirements"]),
        packages=tuple(params["packages"]),
    )


def run(module: AnsibleModule) -> dict[str, Any]:
    params = module.params
    folder = Path(params["path"])
    if not folder.is_absolute():
        raise layout.BundleError(f"path: expected an absolute path, seen {folder}; correct the option")
    progress = Progress(None) if module.check_mode else Progress.from_environment()
    options = plan.Options(
        folder,
        params["store"],
        params["disk_reserve"] * MIB,
        params["max_workers"],
        params["lock_timeout"],
        params["archive"],
        params["without_image"] and module.check_mode,
        progress.say,
    )
    asked = wanted(params)
    todo = plan.plan(asked, options)
    result: dict[str, Any] = {
        "path": str(folder),
        "archive": str(write.archive_path(folder)) if options.archive else "",
        "todo": todo.lines(),
        "diff": {"before": "", "after": "".join(f"{line}\n" for line in todo.lines())},
    }
    if module.check_mode:
        check_space(params["path"], todo.needed, options.reserve)
        return result | {
            "changed": todo.changed or (options.archive and not write.archived(folder)),
            "missing_bytes": todo.needed,
        }
    packagers = Packagers(
        module, asked.requirements, asked.packages, params["pip_index_url"], params["pip_trusted_hosts"]
    )
    now = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    written = write.write(asked, options, packagers.collect, now)
    return result | {
        "changed": written.changed,
        "files": len(written.bundle.files),
        "bytes": written.bundle.size,
        "linked_bytes": written.linked,
        "copied_bytes": written.copied,
        "summary": layout.summary(written.bundle),
    }


def main() -> None:
    in_background()
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    hold(module)
    os.umask(0o022)
    try:
        module.exit_json(**run(module))
    except (layout.BundleError, StoreError, manifest.ManifestError) as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(
            msg=f"{module.params['path']}: expected to write the bundle, seen {error}; make room or check the disk (FAT "
            "holds no file above 4 GB). What was written is kept, and there is no bundle.json"
        )


if __name__ == "__main__":
    main()
