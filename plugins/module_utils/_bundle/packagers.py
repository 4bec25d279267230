# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Downloads what a bundle holds of pip and apt."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

from .._common import packages
from .._common.pinned import canonical
from . import layout

LISTS_ARE_OLD = (
    "Unable to locate package",
    "404",
    "Can't find a source",
    "Unable to fetch",
    "Failed to fetch",
)


class Packagers:
    """Downloads for this very host: its Python, its architecture, its release."""

    def __init__(
        self,
        module: AnsibleModule,
        requirements: Sequence[str],
        packages: Sequence[str],
        index_url: str | None,
        trusted_hosts: Sequence[str],
    ) -> None:
        self._module, self._requirements, self._packages = module, requirements, packages
        self._environment = {"PIP_INDEX_URL": index_url} if index_url else {}
        if trusted_hosts:
            self._environment["PIP_TRUSTED_HOST"] = " ".join(trusted_hosts)

    def collect(self, section: str, work: Path) -> Mapping[str, Path]:
        """Download a section to `work`. Gives {path below the section: file}; raises BundleError."""
        return self._wheels(work) if section == layout.WHEELS else self._debs(work)

    def _wheels(self, work: Path) -> dict[str, Path]:
        # Wheels only: every host would have to build a source distribution, and lacks the tools.
        pip = [
            sys.executable,
            "-m",
            "pip",
            "--disable-pip-version-check",
            "--no-input",
            "download",
            "--quiet",
        ]
        argv = [*pip, "--only-binary=:all:", "--dest", str(work), *self._what(work)]
        rc, said = self._run(argv, work)
        if rc:
            raise layout.BundleError(
                f"expected wheels of {', '.join(self._requirements)}, seen: {said}; look at the host's package index "
                "and network"
            )
        return {f"{index_name(wheel.name)}/{wheel.name}": wheel for wheel in sorted(work.glob("*.whl"))}

    def _what(self, work: Path) -> list[str]:
        hashes = packages.hashes(self._requirements)
        if not hashes:
            return list(self._requirements)
        file = work / "requirements.txt"
        file.write_text("".join(f"{line}\n" for line in hashes), encoding="utf-8")
        return ["--require-hashes", "--requirement", str(file)]

    def _debs(self, work: Path) -> dict[str, Path]:
        argv = ["apt-get", "-qq", "-o", "APT::Sandbox::User=root", "download", *self._packages]
        rc, said = self._run(argv, work)
        if rc and any(words in said for words in LISTS_ARE_OLD):
            rc, said = self._run(["apt-get", "-qq", "update"], work)
            if not rc:
                rc, said = self._run(argv, work)
        if rc:
            raise layout.BundleError(
                f"expected packages {', '.join(self._packages)}, seen: {said}; look at the host's apt sources and network"
            )
        return {deb.name: deb for deb in sorted(work.glob("*.deb"))}

    def _run(self, argv: Sequence[str], work: Path) -> tuple[int, str]:
        """Exit status, and the last lines of the output."""
        rc, out, err = self._module.run_command(
            list(argv), cwd=str(work), environ_update=self._environment, umask=0o022
        )
        return rc, " / ".join([line for line in (err or out).splitlines() if line.strip()][-3:])


def index_name(wheel: str) -> str:
    """The directory of a wheel in an index (PEP 503): its distribution's name, normalized."""
    return canonical(wheel.partition("-")[0])
