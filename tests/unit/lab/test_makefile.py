# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a part of a test run needs is made for it: on a machine that has run nothing else, nothing is there by chance."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
MAKEFILE = (ROOT / "Makefile").read_text()
NEEDS = {
    name: targets.split() for name, targets in re.findall(r"^needs_(\w+) := (.*)$", MAKEFILE, re.MULTILINE)
}


def reads(scenario: Path, place: str) -> bool:
    return any(
        place in path.read_text() for path in scenario.rglob("*") if path.suffix in (".py", ".yml", ".sh")
    )


@pytest.mark.parametrize(
    "scenario",
    sorted(path.parent for path in ROOT.glob("molecule/*/molecule.yml")),
    ids=lambda path: path.name,
)
@pytest.mark.parametrize(("place", "target"), [(".cache/newest", ".newest"), (".cache/next", ".next")])
def test_an_environment_that_a_scenario_uses_is_made_for_it(scenario, place, target):
    assert reads(scenario, place) == (target in NEEDS.get(scenario.name, []))


def test_every_part_with_needs_depends_on_them():
    assert {"unit", "installed", "matrix", "ee"} == set(NEEDS)
    (listed,) = re.findall(
        r"^\$\(foreach part,(.*?),\$\(eval \.part-\$\(part\): \$\(needs_\$\(part\)\)\)\)$",
        MAKEFILE,
        re.MULTILINE,
    )
    assert set(listed.split()) == set(NEEDS)
