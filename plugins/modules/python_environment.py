#!/usr/bin/python
# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: python_environment
version_added: "0.1.0"
author:
  - The sparkfleet.vllm authors (@sparkfleet)
short_description: Create a separate Python environment with the packages of the modules
description:
  - Creates a virtual environment and installs distributions into it, in one execution.
  - Does not touch the system's Python (PEP 668), and keeps the version of installed packages that satisfy the requirements.
  - Recreates an environment whose Python is gone (after an upgrade of the distribution).
options:
  path:
    description: Directory of the environment. The module creates it if it is missing, and refuses a directory with other content.
    type: path
    default: /opt/sparkfleet/venv
  requirements:
    description: Required packages, as C(name), or with versions, as C(name==1.*) or C(name>=1.2,<2).
    type: list
    elements: str
    required: true
  python:
    description: Python for a new environment.
    type: path
    default: /usr/bin/python3
  index_url:
    description:
      - Package index in place of the host's own configuration. It travels in the environment of pip and not in its arguments.
    type: str
  trusted_hosts:
    description: Hosts of package indexes that pip may use without TLS.
    type: list
    elements: str
    default: []
  hashes:
    description:
      - What pip may install, by version and hash, one distribution a line. Everything that O(requirements) need has to be among
        them. A file with another hash is refused, wherever it comes from.
      - Empty for those that the collection ships, if O(requirements) are the default of the role P(sparkfleet.vllm.prerequisites#role),
        else for whatever the index offers.
    type: list
    elements: str
    default: []
  index_only:
    description:
      - Use O(index_url) and no other index, and nothing of pip's configuration on the host. Needs O(index_url).
    type: bool
    default: false
extends_documentation_fragment:
  - sparkfleet.vllm.internal
attributes:
  check_mode:
    description: Reports what would be installed.
    support: full
  diff_mode:
    description: Shows distributions and versions before and after.
    support: full
  idempotent:
    description: Contacts no index if everything is there.
    support: full
seealso:
  - module: sparkfleet.vllm.spark_info
"""

EXAMPLES = r"""
- name: Give the modules their environment
  sparkfleet.vllm.python_environment:
    requirements: ["docker==7.1.0", "huggingface_hub==2.4.*"]
  become: true
"""

RETURN = r"""
python:
  description: Version of the environment's Python. Null in check mode if there is none yet.
  returned: success
  type: str
  sample: 3.12.3
created:
  description: Whether the environment was created, or would be.
  returned: success
  type: bool
  sample: false
installed:
  description: Requirements that were missing, or would be installed.
  returned: success
  type: list
  elements: str
  sample: ["docker==7.1.0"]
"""

import os
import re
from pathlib import Path
from typing import Any

from ..module_utils._common import packages
from ..module_utils._common.basic import AnsibleModule
from ..module_utils._common.pinned import canonical, names
from ..module_utils._host import probes
from ..module_utils._host.request import ProbeError, Request
from ..module_utils._run.lock_file import hold

ARGUMENTS: dict[str, dict[str, Any]] = {
    "path": {"type": "path", "default": "/opt/sparkfleet/venv"},
    "requirements": {"type": "list", "elements": "str", "required": True},
    "python": {"type": "path", "default": "/usr/bin/python3"},
    "index_url": {"type": "str", "no_log": True},
    "trusted_hosts": {"type": "list", "elements": "str", "default": []},
    "hashes": {"type": "list", "elements": "str", "default": []},
    "index_only": {"type": "bool", "default": False},
}


# A name with versions. pip would read anything else as an option, a file or an address.
REQUIREMENT = re.compile(r"\s*([A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)\s*([<>=!~][^;@\[\]]*)?")
PIP = ("-m", "pip", "--disable-pip-version-check", "--no-input")


def look(path: str) -> dict[str, Any]:
    """The environment as it is. One whose Python does not run counts as absent."""
    try:
        return probes.environment(Request(environment=path))
    except ProbeError:
        return {"path": path, "python": None, "distributions": {}}


def name_of(requirement: str) -> str:
    """:raises ValueError: the text is not a name with versions"""
    match = REQUIREMENT.fullmatch(requirement)
    if not match:
        raise ValueError(
            f"{requirement!r}: expected a name, and versions after it as in name==1.*, or name>=1.2,<2"
        )
    return canonical(match[1])


def shown(environment: dict[str, Any], requirements: list[str]) -> str:
    """The distributions in question, one per line, for a diff."""
    asked = {name_of(requirement) for requirement in requirements}
    held = {canonical(name): version for name, version in environment["distributions"].items()}
    return "".join(f"{name} {held[name]}\n" for name in sorted(asked) if name in held)


def missing(module: AnsibleModule, environment: dict[str, Any], requirements: list[str]) -> list[str]:
    """Requirements that an environment does not meet, by its own pip, without an index."""
    held = {canonical(name) for name in environment["distributions"]}
    if not environment["python"] or "pip" not in held:
        return requirements

    def met(wanted: list[str]) -> bool:
        argv = [f"{environment['path']}/bin/python", *PIP, "--isolated", "install", "--no-index", "--no-deps"]
        status, _out, _err = module.run_command(
            [*argv, "--quiet", *wanted], environ_update={"PIP_CONFIG_FILE": os.devnull}
        )
        return bool(status == 0)

    there = [requirement for requirement in requirements if name_of(requirement) in held]
    if len(there) == len(requirements) and met(requirements):
        return []
    return [requirement for requirement in requirements if requirement not in there or not met([requirement])]


def unhashed(requirements: list[str], hashes: list[str]) -> list[str]:
    """Requirements for which pip would have no hash.

    :raises ValueError: a line of `hashes` is not a version with hashes
    """
    known = names(hashes)
    return [requirement for requirement in requirements if hashes and name_of(requirement) not in known]


def sources(params: dict[str, Any]) -> dict[str, str]:
    """The environment of pip: where it may get packages from. An address can hold a password, so it is no argument."""
    environment = {}
    if params["index_url"]:
        environment["PIP_INDEX_URL"] = params["index_url"]
    if params["trusted_hosts"]:
        environment["PIP_TRUSTED_HOST"] = " ".join(params["trusted_hosts"])
    if params["index_only"]:
        # For pip, os.devnull means no configuration file at all.
        environment |= {"PIP_CONFIG_FILE": os.devnull, "PIP_EXTRA_INDEX_URL": "", "PIP_FIND_LINKS": ""}
    return environment


def what(module: AnsibleModule, requirements: list[str], hashes: list[str]) -> list[str]:
    """The arguments that say what to install."""
    if not hashes:
        return requirements
    file = Path(module.tmpdir) / "requirements.txt"
    file.write_text("".join(f"{line}\n" for line in hashes), encoding="utf-8")
    return ["--require-hashes", "--requirement", str(file)]


def run(module: AnsibleModule, doing: str, argv: list[str], **environment: str) -> None:
    rc, out, err = module.run_command(argv, environ_update=environment, umask=0o022)
    if rc:
        # The reason is in the last lines. They may show an index with a password in its URL; no_log masks it.
        said = " / ".join([line for line in (err or out).splitlines() if line.strip()][-3:])
        module.fail_json(
            msg=f"expected to {doing}, seen: {said}; do: look at the host's package index and network",
            stderr=err,
        )


def main() -> None:
    module = AnsibleModule(
        argument_spec=ARGUMENTS, supports_check_mode=True, required_if=[("index_only", True, ["index_url"])]
    )
    hold(module)
    path, requirements = module.params["path"], module.params["requirements"]
    hashes = module.params["hashes"] or packages.hashes(requirements)
    before = look(path)
    try:
        held = shown(before, requirements)
    except ValueError as error:
        module.fail_json(msg=f"requirements: {error}")
    try:
        unknown = unhashed(requirements, hashes)
    except ValueError as error:
        module.fail_json(msg=f"hashes: {error}")
    lacking = missing(module, before, requirements)
    result: dict[str, Any] = {
        "changed": bool(lacking),
        "created": before["python"] is None and bool(lacking),
        "installed": lacking,
        "python": before["python"],
        "diff": {"before": held, "after": held},
    }
    if module.check_mode or not lacking:
        result["diff"]["after"] += "".join(f"{requirement} (to be installed)\n" for requirement in lacking)
        module.exit_json(**result)

    if unknown:
        module.fail_json(
            msg=f"expected hashes of {', '.join(requirements)}, seen none of {', '.join(unknown)}; do: add them, and those "
            "of everything that they need, or make the bundle again if they come from one"
        )
    directory = Path(path)
    ours = (directory / "pyvenv.cfg").exists()
    if directory.exists() and not ours and any(directory.iterdir()):
        module.fail_json(
            msg=f"expected a virtual environment or nothing at {path}, seen: something else; do: choose another path"
        )
    with_pip = "pip" in {canonical(name) for name in before["distributions"]}
    if not with_pip:
        argv = [module.params["python"], "-m", "venv", *(["--clear"] if ours else []), path]
        run(module, f"make a virtual environment at {path}", argv)
    argv = [f"{path}/bin/python", *PIP, "install", "--quiet", *what(module, requirements, hashes)]
    run(module, f"install {', '.join(lacking)}", argv, **sources(module.params))

    after = look(path)
    still = missing(module, after, requirements)
    if still:
        module.fail_json(
            msg=f"expected {', '.join(still)} in {path}, seen: {after['distributions']}; do: remove {path} and run again"
        )
    result["python"] = after["python"]
    result["diff"]["after"] = shown(after, requirements)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
