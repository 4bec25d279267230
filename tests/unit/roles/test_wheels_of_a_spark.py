# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""DGX OS has Python 3.12 on aarch64 and no compiler to count on: every package of the modules' environment must be there as a wheel.

Asks the package index that pip is configured with, and downloads metadata only. It installs nothing.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name, parse_wheel_filename

ROOT = Path(__file__).resolve().parents[3]
DEFAULTS = yaml.safe_load((ROOT / "roles/prerequisites/defaults/main.yml").read_text())
WANTED = DEFAULTS["prerequisites_python_requirements"]
# DGX OS 7 is Ubuntu 24.04: glibc 2.39, which runs what was built for an older one.
PLATFORMS = [*(f"manylinux_2_{minor}_aarch64" for minor in range(39, 16, -1)), "manylinux2014_aarch64"]
# Where it differs from the machine that runs this.
SPARK = {
    "python_version": "3.12",
    "python_full_version": "3.12.3",
    "implementation_version": "3.12.3",
    "platform_machine": "aarch64",
}


@pytest.fixture(scope="module")
def resolved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What pip would install on a Spark: {name: its entry in pip's report}."""
    place = tmp_path_factory.mktemp("spark")
    command = [
        sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "--retries=2", "--timeout=30", "install",
        "--quiet", "--dry-run", "--ignore-installed", "--only-binary=:all:", "--implementation=cp", "--python-version=3.12",
        *(f"--platform={platform}" for platform in PLATFORMS),
        f"--target={place / 'nothing'}", f"--report={place / 'report.json'}", *WANTED,
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    said = " / ".join(done.stderr.strip().splitlines()[-4:])
    assert done.returncode == 0, (
        f"expected wheels of {', '.join(WANTED)} for Python 3.12 on aarch64, seen: {said}; "
        "do: check that pip reaches its package index, then pin a version that has wheels"
    )
    report = json.loads((place / "report.json").read_text())
    return {canonicalize_name(entry["metadata"]["name"]): entry for entry in report["install"]}


def wheel(entry: dict[str, Any]) -> str:
    """The name of its file."""
    return str(entry["download_info"]["url"].rsplit("/", 1)[1])


def needs(entry: dict[str, Any]) -> set[str]:
    """Names of what it needs on a Spark."""
    stated = map(Requirement, entry["metadata"].get("requires_dist", []))
    return {
        canonicalize_name(one.name)
        for one in stated
        if one.marker is None or one.marker.evaluate(SPARK | {"extra": ""})
    }


def test_each_is_a_wheel_with_a_hash_that_a_spark_can_use(resolved):
    compiled = set()
    for name, entry in resolved.items():
        platforms = {tag.platform for tag in parse_wheel_filename(wheel(entry))[3]}
        assert platforms == {"any"} or platforms & set(PLATFORMS), wheel(entry)
        if platforms != {"any"}:
            compiled.add(name)
        hashes = entry["download_info"]["archive_info"]["hashes"]
        assert re.fullmatch(r"[0-9a-f]{64}", hashes.get("sha256", "")), f"{wheel(entry)}: {hashes}"
    # Without them this would say nothing about the architecture.
    assert {"libtorrent", "hf-xet"} <= compiled


# pip reads the conditions of a dependency as those of the machine that it runs on, whatever platform it is asked for.
def test_nothing_that_only_a_spark_needs_is_left_out(resolved):
    asked = {canonicalize_name(Requirement(wanted).name) for wanted in WANTED}
    needed = asked.union(*map(needs, resolved.values()))
    assert needed - set(resolved) == set()
