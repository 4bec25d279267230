# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A step of a scenario that has nothing to run is left out by molecule with a warning, and the scenario passes."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

MOLECULE = Path(__file__).resolve().parents[3] / "molecule"
STEPS = [
    (path.parent, step)
    for path in sorted(MOLECULE.glob("*/molecule.yml"))
    for step in yaml.safe_load(path.read_text())["scenario"]["test_sequence"]
]


@pytest.mark.parametrize(("scenario", "step"), STEPS, ids=lambda value: getattr(value, "name", value))
def test_every_step_has_something_to_run(scenario, step):
    action, *wanted = step.split()
    if action == "side_effect":
        # Without one of that name the others are not looked at, either.
        expected = ["side_effect.yml", *wanted]
    elif action in ("check", "converge", "idempotence"):
        expected = ["converge.yml"]
    elif action == "verify":
        directories = wanted or ["tests"]
        assert all(any((scenario / name).rglob("test_*.py")) for name in directories)
        expected = directories
    else:
        expected = []
    assert [name for name in expected if not (scenario / name).exists()] == []
