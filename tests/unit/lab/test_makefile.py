# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a part of a test run needs is made for it: on a machine that has run nothing else, nothing is there by chance."""

from __future__ import annotations

import functools
import re
import subprocess
from pathlib import Path

import pytest
import yaml

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


@functools.cache
def database() -> str:
    """What make knows after it has read the file."""
    done = subprocess.run(["make", "-pn", "help"], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout


def parts(target: str) -> set[str]:
    """Those that make runs for it."""
    told = re.search(rf"^{target}: parts := (.*)$", database(), re.MULTILINE)
    assert told
    values = dict(re.findall(r"^(\w+) := (.*)$", database(), re.MULTILINE))
    return set(re.sub(r"\$\((\w+)\)", lambda name: values[name[1]], told[1]).split())


def runs(part: str) -> str:
    """How pytest is limited in that part."""
    told = subprocess.run(
        ["make", "-n", f".part-{part}"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    (limit,) = re.findall(
        rf'PYTEST_ADDOPTS="(.*?)" .* molecule test -s {part.removesuffix("-whole")}\b', told.stdout
    )
    return limit.strip()


def test_a_scenario_with_tests_that_are_long_runs_whole_with_the_long_ones():
    marked = {
        path.relative_to(ROOT / "molecule").parts[0]
        for path in ROOT.glob("molecule/*/tests/**/test_*.py")
        if "pytest.mark.long" in path.read_text()
    }
    short, long = parts("test"), parts("test-long")
    assert marked
    assert marked <= short
    assert {f"{name}-whole" for name in marked} <= long
    for name in marked:
        assert (runs(name), runs(f"{name}-whole")) == ("-m 'not long'", "")


def test_every_scenario_is_a_part_of_one_of_both():
    everything = {path.parent.name for path in ROOT.glob("molecule/*/molecule.yml")}
    assert everything <= parts("test") | parts("test-long")


def test_every_part_has_a_budget():
    budgets = yaml.safe_load((ROOT / "molecule/lab/budgets.yml").read_text())
    assert parts("test") | parts("test-long") == set(budgets) - {"test", "test-long"}
