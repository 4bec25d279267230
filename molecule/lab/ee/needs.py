# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the build of the execution environment will ask pip or apt-get for:   needs.py pip|apt"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import yaml
from ansible_builder.user_definition import UserDefinition

ROOT = Path(__file__).resolve().parents[3]
DEFINITION = ROOT / "execution-environment" / "execution-environment.yml"
METADATA = ROOT / "meta" / "execution-environment.yml"
# What ansible-builder installs for itself: containerfile.py
OF_BUILDER = ["bindep", "pyyaml", "packaging"]


def of_collection(kind: str) -> list[str]:
    """The collection's own list of needs, without comments."""
    text = (ROOT / yaml.safe_load(METADATA.read_text())["dependencies"][kind]).read_text()
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def pip() -> list[str]:
    stated = UserDefinition(str(DEFINITION))
    stated.validate()
    of_image = [*stated.ansible_ref_install_list.split(), stated.container_init["package_pip"]]
    return [*of_image, *OF_BUILDER, *of_collection("python")]


def apt() -> list[str]:
    steps = yaml.safe_load(DEFINITION.read_text())["additional_build_steps"]["prepend_base"]
    asked = re.findall(r"apt-get install -y (.*)", "\n".join(steps))
    of_image = [package for packages in asked for package in packages.split()]
    return [*of_image, *(line.split()[0] for line in of_collection("system") if "platform:dpkg" in line)]


if __name__ == "__main__":
    print(*{"pip": pip, "apt": apt}[sys.argv[1]](), sep="\n")
