#!/usr/bin/python
# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: bundle_info
version_added: "0.1.0"
author:
  - The sparkfleet.vllm authors (@sparkfleet)
short_description: Find out whether a host has a bundle, and what it holds
description:
  - Reads C(bundle.json) and compares all files with it by size, and recipe, lock and patches by SHA-256.
  - Models and image are hashed when they are used, wheels and packages by M(sparkfleet.vllm.bundle_serve).
  - Does not fail if the directory is missing or the bundle is damaged. The caller decides.
options:
  path:
    description: Directory of the bundle.
    type: path
    required: true
  interface:
    description: Network interface whose IPv4 address is returned. Without it and O(address), that of the default route.
    type: str
  address:
    description: IPv4 address to return, in place of O(interface)'s. The host must have it.
    type: str
extends_documentation_fragment:
  - sparkfleet.vllm.internal
  - sparkfleet.vllm.attributes.looks
seealso:
  - module: sparkfleet.vllm.bundle_import
"""

EXAMPLES = r"""
- name: Look for a bundle
  sparkfleet.vllm.bundle_info:
    path: /mnt/usb/sparkfleet-bundle
  register: bundle
"""

RETURN = r"""
found:
  description: Whether there is a bundle that is complete by file sizes.
  type: bool
  returned: success
  sample: true
problem:
  description: What is wrong with the bundle. Empty if nothing is, or if there is none.
  type: str
  returned: success
  sample: ""
machine:
  description: Architecture of the host, as C(uname -m) prints it.
  type: str
  returned: success
  sample: aarch64
python:
  description: Version of the host's own Python, in two parts.
  type: str
  returned: success
  sample: "3.12"
address:
  description: IPv4 address of the host for the others. Empty if the answer is ambiguous.
  type: str
  returned: success
  sample: 192.168.100.11
bundle:
  description: Content of bundle.json, without its list of files.
  type: dict
  returned: when RV(found)
  contains:
    recipe:
      description: Name of the recipe.
      type: str
      sample: huihui-gemma4-mtp-n1
    created:
      description: When it was written, in UTC.
      type: str
      sample: "2026-11-24T00:00:00Z"
    machine:
      description: Architecture of the bundle.
      type: str
      sample: aarch64
    python:
      description: Python version of its wheels.
      type: str
      sample: "3.12"
    image:
      description: The image by digest.
      type: str
      sample: vllm/vllm-openai@sha256:…
    wheels:
      description: Its Python packages as requirements with hashes, as M(sparkfleet.vllm.python_environment) takes them.
      type: list
      elements: str
      sample: ["docker==7.2.0 --hash=sha256:…"]
    bytes:
      description: Size of all its files.
      type: int
      sample: 38100000000
texts:
  description: Recipe, lock and patches, base64, by their path in the bundle.
  type: dict
  returned: when RV(found)
  sample: {recipe.yml: bmFtZTog…}
"""

import base64
import hashlib
import platform
import sys
from pathlib import Path
from typing import Any

from ..module_utils._bundle import layout
from ..module_utils._common.basic import AnsibleModule
from ..module_utils._swarm import interface

ARGUMENTS: dict[str, dict[str, Any]] = {
    "path": {"type": "path", "required": True},
    "interface": {"type": "str"},
    "address": {"type": "str"},
}


def look(folder: Path) -> dict[str, Any]:
    """The keys ``bundle`` and ``texts`` of the result; empty without a bundle.

    :raises BundleError: there is a damaged one
    """
    bundle = layout.read(folder)
    if bundle is None:
        return {}
    layout.refuse_alterable(folder, bundle)
    problems = layout.damaged_by_size(folder, bundle.files.items())
    texts: dict[str, str] = {}
    for path, file in bundle.files.items():
        if problems or not layout.is_text(path):
            continue
        content = (folder / path).read_bytes()
        if (seen := hashlib.sha256(content).hexdigest()) != file.sha256:
            problems.append(f"{path}: expected sha256 {file.sha256}, seen {seen}")
        texts[path] = base64.b64encode(content).decode()
    if problems:
        raise layout.damaged(folder, problems)
    return {
        "bundle": {
            "recipe": bundle.recipe,
            "created": bundle.created,
            "machine": bundle.machine,
            "python": bundle.python,
            "image": bundle.image,
            "wheels": layout.wheels(bundle),
            "bytes": bundle.size,
        },
        "texts": texts,
    }


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    result: dict[str, Any] = {
        "changed": False,
        "problem": "",
        "machine": platform.machine(),
        "python": f"{sys.version_info.major}.{sys.version_info.minor}",
    }
    try:
        result["address"] = interface.find(module.params["interface"], module.params["address"])
        result |= look(Path(module.params["path"]))
    except interface.AddressError as error:
        module.fail_json(msg=str(error))
    except layout.BundleError as error:
        result["problem"] = str(error)
    except OSError as error:
        result["problem"] = (
            f"{module.params['path']}: expected files that can be read, seen {error}; check the disk"
        )
    module.exit_json(**result, found="bundle" in result)


if __name__ == "__main__":
    main()
