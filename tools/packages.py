"""plugins/module_utils/_common/packages.py: the role's packages with all that they need, by version and hash.

    pip install uv && python tools/packages.py

Asks pip's index, so its answer changes with time. What the unit tests run with (requirements/newest.txt) is taken where it can be.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import tomllib
import yaml

ROOT = Path(__file__).resolve().parents[1]
DEFAULTS = ROOT / "roles/prerequisites/defaults/main.yml"
TARGET = ROOT / "plugins/module_utils/_common/packages.py"
OLDEST = "3.10"
ARCHITECTURES = ("aarch64", "x86_64")
# What CPython with its lock, on Linux with glibc, installs without a compiler.
WHEEL = re.compile(
    rf".*-(?:py3|py2\.py3|cp3\d+)-(?:none|abi3|cp3\d+)-(?:any|.*manylinux.*(?:{'|'.join(ARCHITECTURES)}))\.whl"
)
HEAD = '''# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The packages of the modules' Python environment with all that they need, by version and hash: wheels for Linux on aarch64 and x86-64,
CPython 3.10 and newer. Made by tools/packages.py; change the role's prerequisites_python_requirements and make it again.
"""

from __future__ import annotations

from collections.abc import Iterable

'''
TAIL = '''

def hashes(requirements: Iterable[str]) -> list[str]:
    """The lines with hashes for just these packages; none for others, whose hashes nobody here knows."""
    return list(HASHES) if set(requirements) == set(REQUIREMENTS) else []
'''


def requirements() -> list[str]:
    wanted: list[str] = yaml.safe_load(DEFAULTS.read_text())["prerequisites_python_requirements"]
    return wanted


def resolve(work: Path) -> list[dict[str, Any]]:
    """The packages of a lock file (PEP 751) for Linux."""
    newest = re.findall(r"^[a-z0-9-]+==\S+", (ROOT / "requirements/newest.txt").read_text(), re.M)
    platforms = [f"sys_platform == 'linux' and platform_machine == '{machine}'" for machine in ARCHITECTURES]
    (work / "asked.in").write_text("\n".join(requirements()))
    (work / "tested.txt").write_text("\n".join(f"{line} ; python_full_version >= '3.11'" for line in newest))
    (work / "pyproject.toml").write_text(
        f'[project]\nname = "x"\nversion = "0"\nrequires-python = ">={OLDEST}"\n[tool.uv]\nenvironments = {platforms}\n'
    )
    subprocess.run(
        ["uv", "pip", "compile", "--quiet", "--universal", "--python-version", OLDEST, "--constraint", "tested.txt",
         "asked.in", "--output-file", "pylock.toml"],
        cwd=work, check=True,
    )  # fmt: skip
    packages: list[dict[str, Any]] = tomllib.loads((work / "pylock.toml").read_text())["packages"]
    return packages


def line(package: dict[str, Any]) -> str:
    """One entry of HASHES."""
    python = re.match(r"python_full_version [<>=]+ '[0-9.]+'", package.get("marker", ""))
    wheels = [
        each["hashes"]["sha256"]
        for each in package["wheels"]
        if WHEEL.fullmatch(each["url"].rpartition("/")[2])
    ]
    assert wheels, f"{package['name']}: expected wheels for Linux, seen none"
    name = f"{package['name']}=={package['version']}" + (f" ; {python[0]}" if python else "")
    return (
        "".join([f'    "{name}"\n', *(f'    " --hash=sha256:{sha256}"\n' for sha256 in sorted(wheels))])[:-1]
        + ",\n"
    )


def main() -> None:
    with tempfile.TemporaryDirectory() as work:
        packages = resolve(Path(work))
    asked = "".join(f'    "{requirement}",\n' for requirement in requirements())
    TARGET.write_text(
        f"{HEAD}REQUIREMENTS = (\n{asked})\nHASHES = (\n{''.join(map(line, packages))})\n{TAIL}"
    )


if __name__ == "__main__":
    main()
