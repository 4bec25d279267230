#!/usr/bin/python
# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: bundle_serve
version_added: "0.1.0"
author:
  - The sparkfleet.vllm authors (@sparkfleet)
short_description: Serve the Python packages of a bundle to the fleet while it is installed
description:
  - Verifies wheels and system packages of the bundle, then serves the wheels as a package index over HTTP.
  - The server is a transient systemd unit on one address, as a user without rights that sees nothing of the host but the
    wheels. It ends with O(state=closed), and by itself after O(lifetime).
options:
  path:
    description: Directory of the bundle.
    type: path
    required: true
  state:
    description: V(open) starts the server, anew if there is one. V(closed) ends it.
    type: str
    choices: [open, closed]
    default: open
  address:
    description: Address to listen on. Needed with O(state=open).
    type: str
  port:
    description: TCP port to listen on.
    type: int
    default: 8618
  lifetime:
    description: Seconds after which the server ends by itself, should nobody end it.
    type: int
    default: 14400
  packages_only:
    description: Verify, and return what is missing, without a server. Used with O(state=open).
    type: bool
    default: false
extends_documentation_fragment:
  - sparkfleet.vllm.internal
attributes:
  check_mode:
    description: Verifies, and starts and ends nothing.
    support: full
  diff_mode:
    description: There is no difference to show.
    support: none
  idempotent:
    description: A server that runs already is started anew. Nothing of it stays on the host.
    support: partial
requirements:
  - systemd
"""

EXAMPLES = r"""
- name: Serve the wheels while the fleet is installed
  sparkfleet.vllm.bundle_serve:
    path: /mnt/usb/sparkfleet-bundle
    address: 192.168.100.11

- name: End it
  sparkfleet.vllm.bundle_serve:
    path: /mnt/usb/sparkfleet-bundle
    state: closed
"""

RETURN = r"""
index_url:
  description: Address of the package index.
  type: str
  returned: with O(state=open), except with O(packages_only=true)
  sample: http://192.168.100.11:8618/simple/
packages:
  description: Files of system packages in the bundle that are not installed on the host.
  type: list
  elements: str
  returned: with O(state=open)
  sample: [/mnt/usb/sparkfleet-bundle/packages/docker-registry_2.8.2_arm64.deb]
"""

import time
import urllib.request
from pathlib import Path
from typing import Any

from ..module_utils._bundle import layout
from ..module_utils._common.basic import AnsibleModule
from ..module_utils._common.files import sha256_of
from ..module_utils._run.lock_file import hold

UNIT = "sparkfleet-bundle.service"
INSIDE = "/run/sparkfleet-bundle"
WAIT = 15.0
"""Seconds that the server may take to answer."""

ARGUMENTS: dict[str, dict[str, Any]] = {
    "path": {"type": "path", "required": True},
    "state": {"type": "str", "choices": ["open", "closed"], "default": "open"},
    "address": {"type": "str"},
    "port": {"type": "int", "default": 8618},
    "lifetime": {"type": "int", "default": 14400},
    "packages_only": {"type": "bool", "default": False},
}

LIMITS = (
    "DynamicUser=yes",
    "ProtectSystem=strict",
    "ProtectHome=yes",
    "PrivateTmp=yes",
    "PrivateDevices=yes",
    "NoNewPrivileges=yes",
    "CapabilityBoundingSet=",
    "RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX",
    f"TemporaryFileSystem={INSIDE}:ro",
)


def verify(folder: Path) -> layout.Bundle:
    """The bundle, with its wheels and packages verified.

    :raises BundleError: one is damaged, or there is no bundle
    """
    bundle = layout.read(folder)
    if bundle is None:
        raise layout.BundleError(f"{folder}: expected a bundle, seen no such directory; mount its disk")
    files = {
        path: file
        for path, file in bundle.files.items()
        if path.partition("/")[0] in (layout.WHEELS, layout.PACKAGES)
    }
    problems = layout.damaged_by_size(folder, files.items())
    if not problems:
        seen = {path: sha256_of(folder / path)[0] for path in files}
        problems = [
            f"{path}: expected sha256 {file.sha256}, seen {seen[path]}"
            for path, file in files.items()
            if seen[path] != file.sha256
        ]
    if problems:
        raise layout.damaged(folder, problems)
    return bundle


def missing_packages(module: AnsibleModule, folder: Path, bundle: layout.Bundle) -> list[str]:
    """The package files whose packages the host lacks."""
    missing = []
    for path in bundle.files:
        if not path.startswith(f"{layout.PACKAGES}/"):
            continue
        _rc, name, _err = module.run_command(
            ["dpkg-deb", "--field", str(folder / path), "Package"], check_rc=True
        )
        rc, status, _err = module.run_command(
            ["dpkg-query", "--show", "--showformat=${db:Status-Status}", name.strip()]
        )
        if rc or status.strip() != "installed":
            missing.append(str(folder / path))
    return missing


def command(folder: Path, address: str, port: int, lifetime: int) -> list[str]:
    """The command that starts the server. The server sees the wheels at INSIDE, whatever directories they lie below."""
    limits = [
        *LIMITS,
        f"RuntimeMaxSec={lifetime}",
        f"BindReadOnlyPaths={escaped(folder / layout.WHEELS)}:{INSIDE}/{layout.WHEELS}",
    ]
    return [
        "systemd-run",
        f"--unit={UNIT}",
        "--description=Python packages of a bundle, while a fleet is installed from it",
        "--collect",
        "--quiet",
        *(f"--property={limit}" for limit in limits),
        "/usr/bin/python3",
        *("-m", "http.server", "--bind", address, "--directory", INSIDE, str(port)),
    ]


def escaped(path: Path) -> str:
    """The path as a source of BindReadOnlyPaths, where a colon, a blank and a backslash have a meaning."""
    return "".join(f"\\{character}" if character in ':\\ "' else character for character in str(path))


def start(module: AnsibleModule, folder: Path) -> str:
    """Start the server. Gives the address of the index, once it answers.

    :raises BundleError: the server does not answer
    """
    address, port = module.params["address"], module.params["port"]
    module.run_command(["systemctl", "stop", UNIT])
    module.run_command(["systemctl", "reset-failed", UNIT])
    rc, out, err = module.run_command(command(folder, address, port, module.params["lifetime"]))
    if rc:
        raise layout.BundleError(
            f"expected systemd to start {UNIT}, seen: {(err or out).strip()}; run again with -v"
        )
    url = f"http://{address}:{port}/{layout.WHEELS}/"
    # The host asks one of its own addresses, so a proxy in its environment must not apply.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + WAIT
    while True:
        try:
            with opener.open(url, timeout=5):
                return url
        except OSError as error:
            rc, _out, _err = module.run_command(["systemctl", "is-active", "--quiet", UNIT])
            if rc or time.monotonic() > deadline:
                _rc, said, _err = module.run_command(
                    ["journalctl", f"--unit={UNIT}", "--lines=3", "--output=cat", "--no-pager"]
                )
                reason = " / ".join(said.split("\n")).strip(" /") or str(error)
                raise layout.BundleError(
                    f"expected the Python packages of the bundle at {url}, seen: {reason}; free the port or choose another "
                    "(bundle_port), and see that the address is one of this host (spark_address, spark_interface)"
                ) from error
            time.sleep(0.2)


def run(module: AnsibleModule) -> dict[str, Any]:
    folder = Path(module.params["path"])
    if module.params["state"] == "closed":
        rc, _out, _err = module.run_command(["systemctl", "is-active", "--quiet", UNIT])
        if not rc and not module.check_mode:
            module.run_command(["systemctl", "stop", UNIT], check_rc=True)
        return {"changed": not rc}
    bundle = verify(folder)
    result: dict[str, Any] = {"packages": missing_packages(module, folder, bundle)}
    if module.params["packages_only"]:
        return result | {"changed": False}
    if not module.params["address"]:
        raise layout.BundleError("address: expected the address to listen on, seen none; name it")
    if module.check_mode:
        url = f"http://{module.params['address']}:{module.params['port']}/{layout.WHEELS}/"
        return result | {"changed": True, "index_url": url}
    return result | {"changed": True, "index_url": start(module, folder)}


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    hold(module)
    try:
        module.exit_json(**run(module))
    except layout.BundleError as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(
            msg=f"{module.params['path']}: expected a bundle that can be read, seen {error}; check the disk"
        )


if __name__ == "__main__":
    main()
